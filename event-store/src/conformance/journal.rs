//! What the journal promises about appends, chains and questions.

use event_schemas::{Position, Version};

use super::{Fixture, append, append_as, check_log, command_id, stream};
use crate::{AppendOutcome, Chain, LogOptions, Receipt, Settle, SettleOutcome, Unavailable};

fn appended(outcome: AppendOutcome) -> Receipt {
    match outcome {
        AppendOutcome::Appended(receipt) => receipt,
        other => panic!("not appended: {other:?}"),
    }
}

pub async fn an_append_is_all_or_nothing(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    appended(journal.append(&Chain::new(), append("a", 0, 2)).await);
    let outcome = journal.append(&Chain::new(), append("a", 1, 3)).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version(2) });
    let receipt = appended(journal.append(&Chain::new(), append("a", 2, 3)).await);
    assert_eq!((receipt.version, receipt.position), (Version(5), Position(5)));
    assert_eq!(check_log(fixture).await.len(), 5);
}

pub async fn positions_are_contiguous_from_one(fixture: &impl Fixture) {
    let logs = [fixture.open().await, fixture.open().await];
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let journal = logs[writer % 2].journal();
        tasks.push(tokio::spawn(async move {
            let chain = Chain::new();
            let shelf = format!("shelf-{writer}");
            let pending: Vec<_> = (0..50)
                .map(|round| journal.append(&chain, append(&shelf, round * 3, 3)))
                .collect();
            for (append, round) in pending.into_iter().zip(1..) {
                assert_eq!(appended(append.await).version, Version(round * 3));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(check_log(fixture).await.len(), 8 * 50 * 3);
}

/// Race 1, at the journal: the sequence that the failed append leaves free is free for no one in its chain.
pub async fn nothing_chained_on_a_stale_append_takes_its_sequence(fixture: &impl Fixture) {
    let (ours, theirs) = (fixture.open().await.journal(), fixture.open().await.journal());
    let chain = Chain::new();
    appended(ours.append(&chain, append("a", 0, 1)).await);
    appended(theirs.append(&Chain::new(), append("a", 1, 1)).await);
    // Decided on versions 1 and 2, and on what the first one would have left: after the conflict, 2 is current.
    let (first, second) = (
        ours.append(&chain, append("a", 1, 1)),
        ours.append(&chain, append("a", 2, 1)),
    );
    assert_eq!(first.await, AppendOutcome::Conflict { actual: Version(2) });
    assert_eq!(second.await, AppendOutcome::ChainBroken);
    // Neither in this batch nor in a later one.
    assert_eq!(
        ours.append(&chain, append("a", 2, 1)).await,
        AppendOutcome::ChainBroken
    );
    let question = Settle {
        stream: stream("a"),
        command_id: None,
        version: None,
    };
    assert_eq!(ours.settle(&chain, question).await, SettleOutcome::ChainBroken);
    assert!(chain.is_broken());
    appended(ours.append(&Chain::new(), append("a", 2, 1)).await);
    assert_eq!(check_log(fixture).await.len(), 3);
}

/// Race 2, at the journal.
pub async fn a_duplicate_inside_a_chain_of_three_breaks_it(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let repeated = command_id();
    let first = appended(
        journal
            .append(&Chain::new(), append_as(repeated, "a", 0, 2))
            .await,
    );
    let chain = Chain::new();
    let three = (
        journal.append(&chain, append("a", 2, 1)),
        journal.append(&chain, append_as(repeated, "a", 3, 1)),
        // Its version would fit, now that the repeat has added nothing.
        journal.append(&chain, append("a", 3, 1)),
    );
    assert_eq!(appended(three.0.await).version, Version(3));
    let AppendOutcome::Duplicate(stored) = three.1.await else {
        panic!("the repeat must be found")
    };
    assert_eq!((stored.version, stored.position), (first.version, first.position));
    assert_eq!(three.2.await, AppendOutcome::ChainBroken);
    assert_eq!(check_log(fixture).await.len(), 3);
}

/// What follows was decided on a state that the repeat did not change.
pub async fn a_duplicate_without_events_leaves_its_chain_whole(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let repeated = command_id();
    appended(
        journal
            .append(&Chain::new(), append_as(repeated, "a", 0, 2))
            .await,
    );
    let chain = Chain::new();
    let three = (
        journal.append(&chain, append("a", 2, 1)),
        journal.append(&chain, append_as(repeated, "a", 3, 0)),
        journal.append(&chain, append("a", 3, 1)),
    );
    appended(three.0.await);
    assert!(matches!(three.1.await, AppendOutcome::Duplicate(_)));
    assert_eq!(appended(three.2.await).version, Version(4));
}

/// However far the stream has moved since, and whatever the repeat was decided on.
pub async fn a_duplicate_is_told_from_a_conflict(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let repeated = command_id();
    let first = appended(
        journal
            .append(&Chain::new(), append_as(repeated, "a", 0, 2))
            .await,
    );
    appended(journal.append(&Chain::new(), append("a", 2, 1)).await);
    for expected in 0..5 {
        let chain = Chain::new();
        let outcome = journal
            .append(&chain, append_as(repeated, "a", expected, 1))
            .await;
        let AppendOutcome::Duplicate(stored) = outcome else {
            panic!("a repeat decided on version {expected}: {outcome:?}");
        };
        assert_eq!(stored.version, first.version);
        assert!(chain.is_broken());
    }
    assert_eq!(check_log(fixture).await.len(), 3);
}

pub async fn a_stale_version_inside_a_chain_of_three_breaks_it(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let chain = Chain::new();
    let three = (
        journal.append(&chain, append("a", 0, 2)),
        journal.append(&chain, append("a", 1, 1)),
        journal.append(&chain, append("a", 2, 1)),
    );
    assert_eq!(appended(three.0.await).version, Version(2));
    assert_eq!(three.1.await, AppendOutcome::Conflict { actual: Version(2) });
    assert_eq!(three.2.await, AppendOutcome::ChainBroken);
    assert_eq!(check_log(fixture).await.len(), 2);
}

pub async fn an_empty_append_needs_its_version_too(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    appended(journal.append(&Chain::new(), append("a", 0, 2)).await);
    let outcome = journal.append(&Chain::new(), append("a", 1, 0)).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version(2) });
    let receipt = appended(journal.append(&Chain::new(), append("a", 2, 0)).await);
    assert_eq!((receipt.version, receipt.position), (Version(2), Position(2)));
}

/// What a process stored last is not the latest when another has stored since, whatever is to be done then.
pub async fn what_this_process_stored_last_may_not_be_the_latest(fixture: &impl Fixture) {
    let (ours, theirs) = (fixture.open().await.journal(), fixture.open().await.journal());
    for id in ["events", "nothing", "question"] {
        appended(ours.append(&Chain::new(), append(id, 0, 1)).await);
        appended(theirs.append(&Chain::new(), append(id, 1, 1)).await);
    }
    let outcome = ours.append(&Chain::new(), append("nothing", 1, 0)).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version(2) });
    let question = Settle {
        stream: stream("question"),
        command_id: None,
        version: Some(Version(1)),
    };
    let outcome = ours.settle(&Chain::new(), question).await;
    assert_eq!(outcome, SettleOutcome::Stale { actual: Version(2) });
    let outcome = ours.append(&Chain::new(), append("events", 1, 1)).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version(2) });
    // And each is known better now.
    for id in ["events", "nothing", "question"] {
        appended(ours.append(&Chain::new(), append(id, 2, 1)).await);
    }
    check_log(fixture).await;
}

pub async fn a_version_from_the_future_leaves_no_gap(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let outcome = journal.append(&Chain::new(), append("a", 5, 1)).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version(0) });
    assert!(check_log(fixture).await.is_empty());
}

pub async fn a_question_is_answered_behind_what_was_asked_before(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let (chain, id) = (Chain::new(), command_id());
    let ask = |command_id, version| {
        journal.settle(
            &chain,
            Settle {
                stream: stream("a"),
                command_id,
                version: Some(Version(version)),
            },
        )
    };
    let append = journal.append(&chain, append_as(id, "a", 0, 1));
    let (current, known, stale, after) = (
        ask(None, 1),
        ask(Some(id), 0),
        ask(Some(command_id()), 0),
        ask(None, 1),
    );
    assert_eq!(current.await, SettleOutcome::Settled);
    let receipt = appended(append.await);
    let SettleOutcome::Duplicate(stored) = known.await else {
        panic!("its receipt is there")
    };
    assert_eq!(stored.version, receipt.version);
    assert_eq!(stale.await, SettleOutcome::Stale { actual: Version(1) });
    assert_eq!(after.await, SettleOutcome::ChainBroken);
}

/// It would fit no message of the stream, so it must not get into the log.
pub async fn an_event_that_is_too_large_is_refused_and_breaks_its_chain(fixture: &impl Fixture) {
    let journal = fixture.open().await.journal();
    let chain = Chain::new();
    let with = |expected, bytes| {
        let mut append = append("a", expected, 1);
        append.metadata.traceparent = Some("x".repeat(bytes).into());
        append
    };
    appended(
        journal
            .append(&chain, with(0, LogOptions::MAX_EVENT_BYTES - 1_000))
            .await,
    );
    let refused = journal.append(&chain, with(1, LogOptions::MAX_EVENT_BYTES)).await;
    let AppendOutcome::Unavailable(error @ Unavailable::TooLarge { .. }) = refused else {
        panic!("too large: {refused:?}");
    };
    assert!(!error.retryable());
    assert_eq!(
        journal.append(&chain, append("a", 1, 1)).await,
        AppendOutcome::ChainBroken
    );
    appended(journal.append(&Chain::new(), append("a", 1, 1)).await);
    assert_eq!(check_log(fixture).await.len(), 2);
}
