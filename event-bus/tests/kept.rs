//! What is kept in the log's database, on either one: dead letters and checkpoints.

#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use database::testing::TestDatabase;
use database::{DatabaseError, params};
use event_bus::{
    AskError, Checkpoint, Checkpoints, DeadLetters, Healing, HealingOutcome, HealingRequest, NewDeadLetter,
    PartitionKey, Partitioning, Remedy, Retried, ScopeId,
};
use event_schemas::{
    AggregateType, EventId, LogIdentity, Position, StreamId, Timestamp, Version, derive_uuid,
};
use tokio::time::Instant;

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

async fn healing(test: &TestDatabase) -> Healing {
    Healing::open([test.database().clone()]).await.expect("opened")
}

fn scope_id(text: &str) -> ScopeId {
    text.parse().expect("an id")
}

/// Takes the one request that waits.
async fn taken(letters: &DeadLetters) -> HealingRequest {
    let asked = letters.asked_for().await.expect("read");
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked.into_iter().next().expect("one")
}

async fn giving_up_a_letter_takes_the_named_one_and_leaves_those_behind_it(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
    for (position, reason) in [(1, Some("broken")), (3, None), (5, None)] {
        letters.park(letter("a", position, reason)).await.expect("parked");
    }
    let (healing, id, now) = (healing(&test).await, scope_id("s:a"), Timestamp::UNIX_EPOCH);
    let skip = |position| Remedy::Skip {
        position: Position(position),
    };
    // Whoever has not seen which one is first gives up nothing.
    assert_eq!(
        healing.ask(&id, skip(3), "me", now).await,
        Err(AskError::NotFirst {
            scope: id.clone(),
            first: Position(1)
        })
    );
    let asked = healing.ask(&id, skip(1), "me", now).await.expect("asked");
    let request = taken(&letters).await;
    assert_eq!((&*request.asked_by, request.remedy), ("me", skip(1)));
    let outcome = letters.skip(&request, Position(1), now).await.expect("done");
    let HealingOutcome::Skipped { what } = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        what.contains("order/a/1 OrderPaid at position 1: broken"),
        "{what}"
    );
    // Another process does the same once more.
    let again = letters.skip(&request, Position(1), now).await.expect("done");
    assert_eq!(again, HealingOutcome::Moot);
    assert_eq!(
        healing.outcome(asked).await,
        Ok(Some(outcome)),
        "the first answer stays"
    );
    let left = letters.show("a").await.expect("read");
    assert_eq!(
        left.iter().map(|letter| letter.position).collect::<Vec<_>>(),
        [Position(3), Position(5)]
    );
    assert!(letters.is_parked("a"), "what came behind has to be retried");
    for position in [3, 5] {
        healing.ask(&id, skip(position), "me", now).await.expect("asked");
        let request = taken(&letters).await;
        letters
            .skip(&request, Position(position), now)
            .await
            .expect("done");
    }
    assert!(letters.none_parked());
    assert_eq!(
        healing.ask(&id, Remedy::Retry, "me", now).await,
        Err(AskError::NotParked(id))
    );
}

async fn what_is_asked_for_waits_for_its_subscriber_and_is_answered_once(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
    let others = DeadLetters::open(test.database(), "t").await.expect("opened");
    for letters in [&letters, &others] {
        letters
            .park(letter("a", 1, Some("broken")))
            .await
            .expect("parked");
    }
    let (healing, id, now) = (healing(&test).await, scope_id("s:a"), Timestamp::UNIX_EPOCH);
    let asked = healing.ask(&id, Remedy::Retry, "me", now).await.expect("asked");
    let twice = healing.ask(&id, Remedy::Retry, "you", now).await.expect("asked");
    assert_eq!(asked, twice, "it is asked for already");
    assert_eq!(others.asked_for().await, Ok(Vec::new()));
    assert_eq!(
        healing
            .wait(asked, Instant::now() + Duration::from_millis(1))
            .await,
        Ok(None),
        "nobody has answered"
    );
    let request = taken(&letters).await;
    let still = Retried::StillParked {
        handled: 0,
        reason: "still broken".to_owned(),
    };
    letters
        .answer(&request, still.clone(), now)
        .await
        .expect("written");
    let late = Retried::Healed { handled: 7 };
    letters.answer(&request, late, now).await.expect("too late");
    assert_eq!(
        healing.outcome(asked).await,
        Ok(Some(HealingOutcome::Retried(still)))
    );
    assert_eq!(letters.asked_for().await, Ok(Vec::new()));
    let next = healing.ask(&id, Remedy::Retry, "me", now).await.expect("asked");
    assert_ne!(next, asked, "what was carried out can be asked for again");
}

async fn requests_are_bounded(test: TestDatabase) {
    let letters = DeadLetters::open(test.database(), "s").await.expect("opened");
    letters
        .park(letter("a", 1, Some("broken")))
        .await
        .expect("parked");
    let (healing, id, now) = (healing(&test).await, scope_id("s:a"), Timestamp::UNIX_EPOCH);
    let fill = test.database().write(|session| {
        for id in 1..=2_500 {
            // The last thousand wait for somebody.
            let done = (id <= 1_500).then_some(0_i64);
            let sql = "INSERT INTO dead_letter_requests (id, subscriber, scope, asked_by, asked_at, outcome, done_at)
                       VALUES (?1, 't', ?2, 'me', 0, 'healed', ?3)";
            session.execute(sql, &params![id, format!("scope-{id}"), done])?;
        }
        Ok::<_, DatabaseError>(())
    });
    fill.await.expect("written");
    assert_eq!(
        healing.ask(&id, Remedy::Retry, "me", now).await,
        Err(AskError::TooMany)
    );
    let one = test
        .database()
        .write(|session| session.execute("UPDATE dead_letter_requests SET done_at = 1 WHERE id = 2500", &[]));
    assert_eq!(one.await, Ok::<_, DatabaseError>(1));
    healing.ask(&id, Remedy::Retry, "me", now).await.expect("asked");
    let kept = test.database().read(|session| {
        session.query_one("SELECT count(*) FROM dead_letter_requests", &[], |row| {
            row.get::<u64>(0)
        })
    });
    // Those that wait, the one that was carried out last, and the new one.
    assert_eq!(kept.await, Ok::<_, DatabaseError>(1_001));
}

async fn what_is_parked_anywhere_is_listed_page_by_page(test: TestDatabase) {
    // As in the embedded profile, which keeps the letters of views beside the views.
    let elsewhere = TestDatabase::sqlite();
    for (database, subscriber, scopes) in [
        (test.database(), "sagas", ["b", "d"]),
        (elsewhere.database(), "orders.g1", ["a", "c"]),
        (elsewhere.database(), "stock.g1", ["a", "b"]),
    ] {
        let letters = DeadLetters::open(database, subscriber).await.expect("opened");
        for scope in scopes {
            letters
                .park(letter(scope, 4, Some("broken")))
                .await
                .expect("parked");
            letters.park(letter(scope, 9, None)).await.expect("parked");
        }
    }
    let databases = [test.database().clone(), elsewhere.database().clone()];
    let healing = Healing::open(databases).await.expect("opened");
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = healing.list(None, after.as_ref(), 2).await.expect("read");
        let Some(last) = page.last() else { break };
        after = Some(last.id());
        for parked in &page {
            assert_eq!((parked.letters, parked.first.position), (2, Position(4)));
            assert!(parked.first.reason.is_some());
            listed.push(parked.id().to_string());
        }
    }
    let all = [
        "orders.g1:a",
        "orders.g1:c",
        "sagas:b",
        "sagas:d",
        "stock.g1:a",
        "stock.g1:b",
    ];
    assert_eq!(listed, all);
    let only = healing.list(Some("stock.g1"), None, 10).await.expect("read");
    assert_eq!(only.len(), 2);
    // Each is asked for where it is.
    let now = Timestamp::UNIX_EPOCH;
    let asked = healing
        .ask(&scope_id("stock.g1:b"), Remedy::Retry, "me", now)
        .await;
    let letters = DeadLetters::open(elsewhere.database(), "stock.g1")
        .await
        .expect("opened");
    let healed = Retried::Healed { handled: 2 };
    letters
        .answer(&taken(&letters).await, healed.clone(), now)
        .await
        .expect("written");
    let outcome = healing.outcome(asked.expect("asked")).await;
    assert_eq!(outcome, Ok(Some(HealingOutcome::Retried(healed))));
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
    giving_up_a_letter_takes_the_named_one_and_leaves_those_behind_it,
    what_is_asked_for_waits_for_its_subscriber_and_is_answered_once,
    requests_are_bounded,
    what_is_parked_anywhere_is_listed_page_by_page,
    letters_outlive_their_handle_and_belong_to_their_subscriber,
    more_scopes_than_one_page_are_known,
    checkpoints_are_kept_per_subscriber_and_partition,
);
