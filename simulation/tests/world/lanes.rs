//! A lane's own work: it collects, delivers and settles.

use exactly_once_protocol::{Delivered, Event, FEEDING, Kind, Partition, Range};

use crate::{BILLING, Batch, Feeding, GRACE_MS, Insert, LANES, LOG_END, Mail, Mutation, World, output, summed};

impl World {
    pub(crate) fn collect(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        if self.paused(lane) || self.members[lane].machine.standing().waiting > 0 {
            return;
        }
        let mut ranges = Vec::new();
        let flowing: Vec<Partition> = self.members[lane]
            .flows
            .iter()
            .filter(|(_, flow)| flow.collecting)
            .map(|(p, _)| *p)
            .collect();
        for partition in flowing {
            let next = self.members[lane].flows[&partition].next;
            let end = (next + 1 + self.dice.roll(4) as i64).min(LOG_END);
            if end > next && !self.dice.one_in(3) {
                ranges.push(Range {
                    partition,
                    start: next,
                    end,
                });
            }
        }
        if ranges.is_empty() {
            return;
        }
        for range in &ranges {
            self.members[lane].flows.get_mut(&range.partition).unwrap().next = range.end;
        }
        let rows = ranges
            .iter()
            .flat_map(|range| (range.start..range.end).map(|o| (range.partition, o)))
            .collect();
        let batch = self.hold(
            lane,
            Batch {
                rows,
                ranges: ranges.clone(),
                lacking: Vec::new(),
            },
        );
        let outputs = ranges.into_iter().map(output).collect();
        self.feed(
            lane,
            Event::Prepared {
                batch,
                kind: Kind::New,
                ranges: outputs,
                rules: (1, 1),
            },
        );
    }

    pub(crate) fn hold(&mut self, lane: usize, batch: Batch) -> u64 {
        let member = &mut self.members[lane];
        member.next_batch += 1;
        member.batches.insert(member.next_batch, batch);
        member.next_batch
    }

    pub(crate) fn send(
        &mut self,
        lane: usize,
        batch: u64,
        (deadline_ms, token): (Option<i64>, u64),
        feeds: Vec<Range>,
        begins: &[(Partition, u64)],
    ) {
        let incarnation = self.members[lane].incarnation;
        if batch >= FEEDING {
            let nothing = Batch {
                rows: Vec::new(),
                ranges: Vec::new(),
                lacking: Vec::new(),
            };
            self.members[lane].batches.insert(batch, nothing);
        }
        let held = &self.members[lane].batches[&batch];
        // Billing: each range with its cursor in one transaction; a repetition is answered "already applied".
        for range in &held.ranges {
            let first = begins.contains(&(range.partition, BILLING));
            assert!(
                first || self.cursor.contains_key(&range.partition),
                "billing has never heard of {range:?}, and the lane does not say that it begins there"
            );
            let cursor = self.cursor.entry(range.partition).or_insert(range.start);
            assert!(
                *cursor >= range.end || *cursor == range.start,
                "billing: gap or overlap at {range:?}, cursor {cursor}"
            );
            *cursor = (*cursor).max(range.end);
        }
        let rows = held.rows.clone();
        let feeding = match (feeds.is_empty(), held.lacking.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Feeding {
                ranges: feeds,
                lacking: false,
            }),
            (true, false) => Some(Feeding {
                ranges: held.lacking.clone(),
                lacking: true,
            }),
            (false, false) => panic!("a settled batch feeds nothing else"),
        };
        let Some(deadline_ms) = deadline_ms else {
            self.mail.push(Mail {
                lane,
                incarnation,
                event: Event::Delivered {
                    batch,
                    outcome: Delivered::Clean,
                },
            });
            return;
        };
        let lost = self.faults && self.dice.one_in(5);
        if lost {
            // The driver gives up at the deadline and reports doubt.
            self.mail.push(Mail {
                lane,
                incarnation,
                event: Event::Delivered {
                    batch,
                    outcome: Delivered::Doubt,
                },
            });
        }
        let answer = (!lost).then_some((lane, incarnation, batch));
        self.inserts.push(Insert {
            token,
            deadline_ms,
            rows,
            feeding,
            started: false,
            answer,
        });
    }

    pub(crate) fn settle_one(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        if self.paused(lane) {
            return;
        }
        let Some((partition, promise)) = self.members[lane]
            .settling
            .iter()
            .next()
            .map(|(p, promise)| (*p, promise.clone()))
        else {
            return;
        };
        let running = self
            .inserts
            .iter()
            .any(|insert| insert.token == promise.token && insert.started);
        if self.mutation != Mutation::NoDeadline && (self.clock_ms <= promise.deadline_ms + GRACE_MS || running) {
            return;
        }
        self.members[lane].settling.remove(&partition);
        let range = Range {
            partition,
            start: promise.start,
            end: promise.end,
        };
        let there =
            |offset: &i64| self.mutation != Mutation::NoReadBack && self.rows.contains_key(&(partition, *offset));
        let rows: Vec<_> = (range.start..range.end)
            .filter(|o| !there(o))
            .map(|o| (partition, o))
            .collect();
        let unfed = (promise.fed..range.end)
            .filter(|o| summed(*o))
            .any(|o| self.mutation == Mutation::BlindFeeding || !self.fed.contains_key(&(partition, o)));
        let kind = Kind::Recovery {
            missing: !rows.is_empty() || unfed,
        };
        let lacking = Range {
            start: promise.fed,
            ..range
        };
        let batch = self.hold(
            lane,
            Batch {
                rows,
                ranges: vec![range],
                lacking: if unfed { vec![lacking] } else { Vec::new() },
            },
        );
        self.feed(
            lane,
            Event::Prepared {
                batch,
                kind,
                ranges: vec![output(range)],
                rules: promise.rules,
            },
        );
    }
}
