use super::*;

const EMPTY: RevisionId = RevisionId { number: 0, digest: 9 };

fn kept(text: &str) -> Kept {
    Kept {
        file: format!("{text}.yaml"),
        text: text.to_owned(),
    }
}

fn next(number: u64, digest: u64, changes: &[(&str, Option<&str>)]) -> Next {
    let changes = changes
        .iter()
        .map(|(tenant, text)| ((*tenant).to_owned(), text.map(kept)))
        .collect();
    Next {
        id: RevisionId { number, digest },
        created_at_ms: 100 + i64::try_from(number).unwrap(),
        changes,
        meters: Meters::new(),
    }
}

fn documents(snapshot: Option<Snapshot>) -> Vec<(String, String)> {
    snapshot
        .unwrap()
        .documents
        .into_iter()
        .map(|(tenant, kept)| (tenant, kept.text))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(tenant, text)| ((*tenant).to_owned(), (*text).to_owned()))
        .collect()
}

#[tokio::test]
async fn every_revision_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/rules.db");
    let store = Store::open(&path, EMPTY).unwrap();
    assert_eq!(store.newest("p").await, Ok(EMPTY));
    let digest = u64::MAX;
    assert_eq!(
        store
            .add("p", next(1, digest, &[("a", Some("a1")), ("b", Some("b1"))]))
            .await,
        Ok(true)
    );
    assert_eq!(store.add("p", next(2, 2, &[("a", Some("a2"))])).await, Ok(true));
    assert_eq!(
        store.add("p", next(3, 3, &[("b", None), ("c", Some("c3"))])).await,
        Ok(true)
    );
    assert_eq!(store.add("p", next(4, 4, &[("b", Some("b4"))])).await, Ok(true));
    assert_eq!(store.add("q", next(1, 1, &[("a", Some("other"))])).await, Ok(true));
    drop(store);

    let store = Store::open(&path, EMPTY).unwrap();
    let expected: [&[(&str, &str)]; 5] = [
        &[],
        &[("a", "a1"), ("b", "b1")],
        &[("a", "a2"), ("b", "b1")],
        &[("a", "a2"), ("c", "c3")],
        &[("a", "a2"), ("b", "b4"), ("c", "c3")],
    ];
    for (number, expected) in (0..).zip(expected) {
        assert_eq!(
            documents(store.snapshot("p", Some(number)).await.unwrap()),
            pairs(expected)
        );
    }
    let first = store.snapshot("p", Some(1)).await.unwrap().unwrap();
    assert_eq!((first.id, first.created_at_ms), (RevisionId { number: 1, digest }, 101));
    assert_eq!(first.documents["a"], kept("a1"));
    assert_eq!(store.snapshot("p", None).await, store.snapshot("p", Some(4)).await);
    assert_eq!(store.snapshot("p", Some(5)).await, Ok(None));
    assert_eq!(store.snapshot("p", Some(u64::MAX)).await, Ok(None));
    let numbers = |list: Result<Vec<RevisionId>, _>| list.unwrap().into_iter().map(|id| id.number).collect::<Vec<_>>();
    assert_eq!(numbers(store.after("p", 0).await), [1, 2, 3, 4]);
    assert_eq!(numbers(store.after("p", 3).await), [4]);
    assert_eq!(numbers(store.after("nobody", 0).await), [] as [u64; 0]);
}

#[tokio::test]
async fn a_number_is_given_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.db");
    let (one, other) = (Store::open(&path, EMPTY).unwrap(), Store::open(&path, EMPTY).unwrap());
    assert_eq!(one.add("p", next(1, 1, &[("a", Some("a1"))])).await, Ok(true));
    assert_eq!(other.add("p", next(1, 2, &[("a", Some("else"))])).await, Ok(false));
    assert_eq!(other.add("p", next(3, 3, &[])).await, Ok(false));
    assert_eq!(
        documents(other.snapshot("p", None).await.unwrap()),
        pairs(&[("a", "a1")])
    );
}

#[tokio::test]
async fn nobody_changes_a_revision_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.db");
    let store = Store::open(&path, EMPTY).unwrap();
    assert_eq!(store.add("p", next(1, 1, &[("a", Some("a1"))])).await, Ok(true));
    let hand = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE revisions SET digest = 7",
        "DELETE FROM revisions",
        "UPDATE documents SET text = 'drop: true'",
        "UPDATE documents SET since = 0",
        "DELETE FROM documents",
    ] {
        assert_eq!(
            hand.execute(sql, []).unwrap_err().to_string(),
            "a revision is immutable",
            "{sql}"
        );
    }
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE notes (text)")
        .unwrap();
    let expected = format!(
        "{}: it is a SQLite database of something else; give another path",
        path.display()
    );
    assert_eq!(Store::open(&path, EMPTY).err(), Some(StoreError::Foreign(expected)));
}
