//! Which rollups one statement feeds, for which partitions, and what is remembered of one that the server refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use clickhouse_sink::{Feed, Lack, Range};

/// Rollups that lack rows of some ranges.
#[derive(Debug)]
pub struct Unfed {
    /// Which ones.
    pub feeds: Vec<Feed>,
    /// Of which rows.
    pub ranges: Vec<Range>,
    /// How many deliveries in a row the server has said that such a feeding failed in; one that it did not answer says nothing.
    pub refused: Arc<AtomicU16>,
}

/// What one statement feeds to one rollup.
pub struct Together<'a> {
    pub feed: &'a Feed,
    pub lack: Lack,
    pub ranges: Vec<Range>,
    of: Vec<&'a Unfed>,
}

/// What came of one feeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    Clean,
    /// The server has said that it failed.
    Refused,
    /// Nothing was heard of it, or it was not sent.
    Unknown,
}

/// Counts, once for each delivery, what the server has refused. A refusal of several together says of none that it was the
/// reason: they go alone from then on.
pub fn note_refusals<'a>(lacking: &[(&Unfed, Lack)], fed: impl Iterator<Item = (&'a Together<'a>, &'a Fed)> + Clone) {
    for (unfed, _) in lacking {
        let own = fed
            .clone()
            .filter(|(together, _)| together.of.iter().any(|one| std::ptr::eq(*one, *unfed)));
        let refusals: Vec<bool> = own
            .clone()
            .filter(|(_, fed)| **fed == Fed::Refused)
            .map(|(together, _)| together.of.len() == 1)
            .collect();
        if refusals.contains(&true) {
            unfed.refused.fetch_add(1, Ordering::Relaxed);
        } else if !refusals.is_empty() {
            unfed.refused.fetch_max(1, Ordering::Relaxed);
        } else if own.into_iter().all(|(_, fed)| *fed == Fed::Clean) {
            unfed.refused.store(0, Ordering::Relaxed);
        }
    }
}

/// Partitions that lack the same are fed by one statement: the server looks once at what the rollup has. One whose feeding was
/// refused before goes alone: it may be the reason, and must not take the others with it.
pub fn together<'a>(lacking: &[(&'a Unfed, Lack)]) -> Vec<Together<'a>> {
    let mut all: Vec<Together<'a>> = Vec::new();
    let mut joined = BTreeMap::new();
    for (unfed, lack) in lacking {
        let was_refused = unfed.refused.load(Ordering::Relaxed) > 0;
        for feed in &unfed.feeds {
            let with = joined.get(&(&feed.rollup, *lack == Lack::All)).filter(|_| !was_refused);
            let at = with.copied().unwrap_or_else(|| {
                all.push(Together {
                    feed,
                    lack: *lack,
                    ranges: Vec::new(),
                    of: Vec::new(),
                });
                all.len() - 1
            });
            if !was_refused {
                joined.insert((&feed.rollup, *lack == Lack::All), at);
            }
            all[at].ranges.extend(unfed.ranges.iter().cloned());
            all[at].of.push(unfed);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use apache_avro::Schema;
    use pipeline::shape::Shape;

    use super::*;

    /// A pipeline with two rollups, `by_minute` and `by_hour`.
    const PIPELINE: &str = r#"
pipeline: shop
start: earliest
connections:
  kafka: {brokers: ["localhost:9092"]}
event: {id: event_id, tenant: tenant_id, type: type, time: occurred_at}
sources:
  - {topic: order.created, table: orders}
tables:
  default: {partition_by: day, order_by: [tenant_id, type, occurred_at], keep: 13 months}
rollups:
  - {name: by_minute, from: orders, every: 1m, by: [tenant_id], measures: {events: uniq(event_id)}}
  - {name: by_hour, from: orders, every: 1h, by: [tenant_id], measures: {events: uniq(event_id)}}
"#;

    const ORDER: &str = r#"{"type":"record","name":"order","fields":[
        {"name":"event_id","type":"string"},{"name":"tenant_id","type":"string"},{"name":"type","type":"string"},
        {"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

    fn feeds() -> Vec<Feed> {
        let pipeline = pipeline::check("pipeline.yaml", PIPELINE, Path::new(".")).unwrap();
        let shape = Shape::of(&[Schema::parse_str(ORDER).unwrap()]).unwrap();
        clickhouse_sink::schema::feeds(&pipeline, &[shape])
    }

    /// What a partition lacks, of the rollups at these indices.
    fn unfed(partition: i32, rollups: &[usize]) -> Unfed {
        let all = feeds();
        Unfed {
            feeds: rollups.iter().map(|at| all[*at].clone()).collect(),
            ranges: vec![range(partition)],
            refused: Arc::default(),
        }
    }

    fn range(partition: i32) -> Range {
        Range {
            topic: "order.created".to_owned(),
            partition,
            start: 10,
            end: 20,
        }
    }

    fn refused(all: &[&Unfed]) -> Vec<u16> {
        all.iter().map(|one| one.refused.load(Ordering::Relaxed)).collect()
    }

    /// Each statement's rollup, and the partitions that it feeds.
    fn statements(feedings: &[Together<'_>]) -> Vec<(String, Vec<i32>)> {
        let partitions = |one: &Together<'_>| one.ranges.iter().map(|range| range.partition).collect();
        feedings
            .iter()
            .map(|one| (one.feed.rollup.clone(), partitions(one)))
            .collect()
    }

    /// One delivery: each statement's outcome by its rollup and partitions.
    fn deliver(lacking: &[(&Unfed, Lack)], outcome: impl Fn(&str, &[i32]) -> Fed) {
        let feedings = together(lacking);
        let fed: Vec<Fed> = statements(&feedings)
            .iter()
            .map(|(rollup, partitions)| outcome(rollup, partitions))
            .collect();
        note_refusals(lacking, feedings.iter().zip(&fed));
    }

    #[test]
    fn partitions_that_lack_the_same_are_fed_by_one_statement() {
        let (first, second, whole) = (unfed(1, &[0, 1]), unfed(2, &[0]), unfed(3, &[0]));
        let feedings = together(&[(&first, Lack::Some), (&second, Lack::Some), (&whole, Lack::All)]);
        let expected = [("by_minute", vec![1, 2]), ("by_hour", vec![1]), ("by_minute", vec![3])];
        assert_eq!(
            statements(&feedings),
            expected.map(|(rollup, partitions)| (rollup.to_owned(), partitions))
        );
    }

    #[test]
    fn who_was_refused_goes_alone_and_takes_nobody_with_it() {
        let (bad, good, other) = (unfed(1, &[0]), unfed(2, &[0]), unfed(3, &[0]));
        let lacking = [(&bad, Lack::Some), (&good, Lack::Some), (&other, Lack::Some)];
        // The three go together, which says of none that it was the reason.
        deliver(&lacking, |_, _| Fed::Refused);
        assert_eq!(refused(&[&bad, &good, &other]), [1, 1, 1]);
        // Each alone now: whose rows are good is forgotten, and whose are not counts on.
        let partitions: Vec<Vec<i32>> = statements(&together(&lacking)).into_iter().map(|(_, of)| of).collect();
        assert_eq!(partitions, [[1], [2], [3]]);
        let by_partition = |_: &str, of: &[i32]| if of.contains(&1) { Fed::Refused } else { Fed::Clean };
        deliver(&lacking, by_partition);
        assert_eq!(refused(&[&bad, &good, &other]), [2, 0, 0]);
        // The good ones go together again, without the bad one.
        let partitions: Vec<Vec<i32>> = statements(&together(&lacking)).into_iter().map(|(_, of)| of).collect();
        assert_eq!(partitions, [vec![1], vec![2, 3]]);
    }

    #[test]
    fn a_delivery_counts_once_and_silence_not_at_all() {
        let one = unfed(1, &[0, 1]);
        let lacking = [(&one, Lack::Some)];
        deliver(&lacking, |_, _| Fed::Unknown);
        assert_eq!(refused(&[&one]), [0], "nobody said anything");
        deliver(&lacking, |_, _| Fed::Refused);
        assert_eq!(refused(&[&one]), [1], "two rollups, one delivery");
        deliver(
            &lacking,
            |rollup, _| if rollup == "by_hour" { Fed::Unknown } else { Fed::Clean },
        );
        assert_eq!(refused(&[&one]), [1], "only when all is clean it is forgotten");
        deliver(&lacking, |_, _| Fed::Clean);
        assert_eq!(refused(&[&one]), [0]);
    }
}
