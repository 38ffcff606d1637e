//! The embedded stream: the log itself, tailed by position.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod conformance;
mod support;

use conformance::{DEADLINE, Stream as _, sequences, take};
use event_bus::{BusError, Checkpoint, Checkpoints, Subscription};
use event_schemas::Position;
use support::Embedded;

stream_conformance!(Embedded;
    every_event_comes_in_order_per_aggregate,
    what_was_acknowledged_does_not_come_again_and_the_rest_does,
    a_subscriber_may_go_back_to_what_it_has_not_acknowledged,
    a_waiting_subscriber_is_woken_by_a_commit,
    waiting_can_be_given_up_without_losing_anything,
    the_checkpoint_of_another_epoch_is_refused,
    poison_is_delivered_in_its_place,
    what_is_newer_than_the_binary_stops_the_subscriber,
);

#[tokio::test]
async fn a_caller_may_keep_its_own_checkpoint() {
    let stream = Embedded::empty().await;
    stream.append("A", 9).await;
    let mut subscription = Subscription::resume_at(&stream.log, "view", None)
        .await
        .expect("opened");
    let batch = subscription.next_batch(4, DEADLINE).await.expect("a batch");
    subscription.ack(&batch).await.expect("acknowledged");
    let kept = batch.checkpoint();
    let mut again = Subscription::resume_at(&stream.log, "view", Some(kept))
        .await
        .expect("opened");
    assert_eq!(sequences(&take(&mut again, 5).await)["A"].len(), 5);
    let checkpoints = Checkpoints::open(&stream.file).expect("opened");
    assert_eq!(
        checkpoints.load(&"view".into()).await.expect("read"),
        None,
        "nothing is stored behind its back"
    );
}

#[tokio::test]
async fn a_checkpoint_beyond_the_head_is_refused() {
    let stream = Embedded::empty().await;
    stream.append("A", 1).await;
    let beyond = Checkpoint {
        log: stream.log.identity(),
        position: Position(2),
    };
    let refused = Subscription::resume_at(&stream.log, "view", Some(beyond)).await;
    assert!(
        matches!(
            refused,
            Err(BusError::BeyondHead {
                head: Position(1),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_checkpoint_becomes_durable_with_what_it_stands_for_or_not_at_all() {
    let stream = Embedded::empty().await;
    let checkpoints = Checkpoints::open(&stream.file).expect("opened");
    let checkpoint = Checkpoint {
        log: stream.log.identity(),
        position: Position(3),
    };
    let failed = stream.file.write(move |conn| {
        Checkpoints::save_in(conn, "view", checkpoint)?;
        Err::<(), _>(sqlite_file::SqliteError::Aborted)
    });
    failed.await.expect_err("the rest of the write failed");
    assert_eq!(checkpoints.load(&"view".into()).await.expect("read"), None);
    checkpoints
        .save(&"view".into(), checkpoint)
        .await
        .expect("stored");
    assert_eq!(
        checkpoints.load(&"view".into()).await.expect("read"),
        Some(checkpoint)
    );
}
