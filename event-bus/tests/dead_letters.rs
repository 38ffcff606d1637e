//! Parking, healing and giving up.

#![allow(clippy::expect_used, reason = "a test may fail")]

use event_bus::{DeadLetters, NewDeadLetter};
use event_schemas::{AggregateType, EventId, Position, StreamId, Timestamp, Version};
use sqlite_file::{Options, SqliteFile};
use tempfile::TempDir;

fn open(dir: &TempDir) -> SqliteFile {
    SqliteFile::open(dir.path().join("log.db"), Options::default()).expect("opened")
}

fn letter(scope: &str, position: u64, reason: Option<&str>) -> NewDeadLetter {
    NewDeadLetter {
        scope: scope.into(),
        position: Position(position),
        event_id: EventId {
            stream: StreamId::new(AggregateType::Order, scope),
            version: Version(position),
        },
        event_type: "OrderPaid".to_owned(),
        reason: reason.map(str::to_owned),
        parked_at: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_scope_is_parked_until_its_letters_are_resolved_in_order() {
    let dir = TempDir::new().expect("a directory");
    let letters = DeadLetters::open(&open(&dir), "s").await.expect("opened");
    assert!(letters.none_parked());
    letters
        .park(letter("a", 1, Some("broken")))
        .await
        .expect("parked");
    letters.park(letter("a", 3, None)).await.expect("parked");
    letters
        .park(letter("b", 2, Some("broken")))
        .await
        .expect("parked");
    assert!(letters.is_parked("a") && letters.is_parked("b") && !letters.is_parked("c"));

    let listed = letters.list().await.expect("read");
    assert_eq!(
        listed
            .iter()
            .map(|scope| (&*scope.scope, scope.letters))
            .collect::<Vec<_>>(),
        [("a", 2), ("b", 1)]
    );
    assert_eq!(listed[0].first.position, Position(1));
    let shown = letters.show("a").await.expect("read");
    assert_eq!(
        shown.iter().map(|letter| letter.attempts).collect::<Vec<_>>(),
        [1, 0]
    );

    for position in [1, 3] {
        let first = letters.first("a").await.expect("read").expect("a letter");
        assert_eq!(first.position, Position(position));
        assert!(
            letters.is_parked("a"),
            "until the last one is resolved, events of the scope wait"
        );
        letters.resolved(&first).await.expect("taken out");
    }
    assert_eq!(letters.first("a").await.expect("read"), None);
    assert!(!letters.is_parked("a") && letters.is_parked("b"));
}

#[tokio::test]
async fn a_letter_that_fails_again_says_why_and_stays() {
    let dir = TempDir::new().expect("a directory");
    let letters = DeadLetters::open(&open(&dir), "s").await.expect("opened");
    letters
        .park(letter("a", 1, Some("broken")))
        .await
        .expect("parked");
    let first = letters.first("a").await.expect("read").expect("a letter");
    letters
        .failed_again(&first, "still broken".to_owned())
        .await
        .expect("noted");
    let first = letters.first("a").await.expect("read").expect("a letter");
    assert_eq!(
        (first.reason.as_deref(), first.attempts),
        (Some("still broken"), 2)
    );
    // The event is delivered again after a crash before its acknowledgement: still one letter.
    letters.park(letter("a", 1, None)).await.expect("parked");
    assert_eq!(letters.show("a").await.expect("read"), [first]);
}

#[tokio::test]
async fn giving_up_a_letter_leaves_those_behind_it() {
    let dir = TempDir::new().expect("a directory");
    let letters = DeadLetters::open(&open(&dir), "s").await.expect("opened");
    letters
        .park(letter("a", 1, Some("broken")))
        .await
        .expect("parked");
    letters.park(letter("a", 3, None)).await.expect("parked");
    assert_eq!(
        letters
            .skip("a")
            .await
            .expect("given up")
            .expect("a letter")
            .position,
        Position(1)
    );
    assert!(letters.is_parked("a"), "what came behind has to be retried");
    letters.skip("a").await.expect("given up");
    assert!(letters.none_parked());
    assert_eq!(letters.skip("a").await.expect("nothing"), None);
}

#[tokio::test]
async fn letters_outlive_the_process_and_belong_to_their_subscriber() {
    let dir = TempDir::new().expect("a directory");
    let file = open(&dir);
    DeadLetters::open(&file, "s")
        .await
        .expect("opened")
        .park(letter("a", 1, Some("broken")))
        .await
        .expect("parked");
    file.close().await.expect("closed");
    let file = open(&dir);
    assert!(
        DeadLetters::open(&file, "s")
            .await
            .expect("opened")
            .is_parked("a")
    );
    assert!(
        DeadLetters::open(&file, "other")
            .await
            .expect("opened")
            .none_parked()
    );
}
