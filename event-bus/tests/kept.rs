//! What is kept in the log's database, on either one: dead letters and checkpoints.

#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::Arc;

use database::testing::TestDatabase;
use database::{DatabaseError, params};
use event_bus::{Checkpoint, Checkpoints, DeadLetters, NewDeadLetter, PartitionKey, Partitioning};
use event_schemas::{
    AggregateType, EventId, LogIdentity, Position, StreamId, Timestamp, Version, derive_uuid,
};

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

async fn a_scope_is_parked_until_its_letters_are_resolved_in_order(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
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

async fn a_letter_that_fails_again_says_why_and_stays(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
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

async fn giving_up_a_letter_leaves_those_behind_it(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
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

async fn letters_outlive_their_handle_and_belong_to_their_subscriber(test: TestDatabase) {
    let open = |subscriber| DeadLetters::open(test.database(), subscriber);
    let first = open("s").await.expect("opened");
    let second = open("s").await.expect("opened");
    first.park(letter("a", 1, Some("broken"))).await.expect("parked");
    assert!(open("s").await.expect("opened").is_parked("a"));
    assert!(open("other").await.expect("opened").none_parked());
    // As another process, which is given the partition.
    assert!(second.none_parked());
    second.reload().await.expect("read");
    assert!(second.is_parked("a"));
}

async fn more_scopes_than_one_page_are_known(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
    let many = test.database().write(|session| {
        for scope in 0..2_001 {
            let sql = "INSERT INTO dead_letters
                 (subscriber, scope, position, event_id, event_type, attempts, parked_at)
                 VALUES ('s', ?1, 1, 'order/o/1', 'OrderPaid', 1, 0)";
            session.execute(sql, &params![format!("scope-{scope:04}")])?;
        }
        Ok::<_, DatabaseError>(())
    });
    many.await.expect("written");
    letters.reload().await.expect("read");
    for scope in [0, 999, 1_000, 1_001, 1_999, 2_000] {
        assert!(letters.is_parked(&format!("scope-{scope:04}")), "{scope}");
    }
    assert!(!letters.is_parked("scope-2001"));
    assert_eq!(letters.list().await.expect("read").len(), 1_000);
}

async fn checkpoints_are_kept_per_subscriber_and_partition(test: TestDatabase) {
    let checkpoints = Checkpoints::open(test.database()).await.expect("opened");
    let (one, other) = (Arc::from("one"), Arc::from("other"));
    assert_eq!(checkpoints.load(&one).await, Ok(None));
    let log = LogIdentity {
        log_id: derive_uuid("test", &[]),
        epoch: 3,
    };
    let mut saved = Checkpoint::at(log, Position(7));
    // More than one statement takes.
    for (position, partition) in (8..).zip(Partitioning::Kafka { partitions: 120 }.all()) {
        saved.advance(partition, Position(position));
    }
    checkpoints.save(&one, saved.clone()).await.expect("saved");
    assert_eq!(checkpoints.load(&one).await, Ok(Some(saved.clone())));
    assert_eq!(checkpoints.load(&other).await, Ok(None));
    let mut next = Checkpoint::start(log);
    next.advance(PartitionKey::Log, Position(9));
    checkpoints.save(&one, next.clone()).await.expect("saved");
    saved.merge(&next);
    assert_eq!(checkpoints.load(&one).await, Ok(Some(saved)));
}

macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::TestDatabase::sqlite()).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(test) = super::TestDatabase::postgres().await {
                    super::$case(test).await;
                }
            })*
        }
    };
}

on_both!(
    a_scope_is_parked_until_its_letters_are_resolved_in_order,
    a_letter_that_fails_again_says_why_and_stays,
    giving_up_a_letter_leaves_those_behind_it,
    letters_outlive_their_handle_and_belong_to_their_subscriber,
    more_scopes_than_one_page_are_known,
    checkpoints_are_kept_per_subscriber_and_partition,
);
