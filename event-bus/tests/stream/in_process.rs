//! The embedded stream: the log itself, tailed by position.

use crate::conformance::{DEADLINE, Stream as _, sequences, take};
use crate::support::Embedded;
use database::{Database, DatabaseError};
use event_bus::{BusError, Checkpoint, Checkpoints, PartitionKey, Partitioning, Subscription};
use event_schemas::{LogIdentity, Position};
use sqlite_file::{Options, SqliteFile};

stream_conformance!(Embedded, true);

#[tokio::test]
async fn a_caller_may_keep_its_own_checkpoint() {
    let stream = Embedded::empty().await;
    stream.append("A", 9).await;
    let mut subscription = Subscription::resume_at(&stream.log, "view", None)
        .await
        .expect("opened");
    let batch = subscription.next_batch(4, DEADLINE).await.expect("a batch");
    subscription.ack(&batch).await.expect("acknowledged");
    let kept = batch.checkpoint().clone();
    let mut again = Subscription::resume_at(&stream.log, "view", Some(kept))
        .await
        .expect("opened");
    assert_eq!(sequences(&take(&mut again, 5).await)["A"].len(), 5);
    let checkpoints = Checkpoints::open(&stream.file).await.expect("opened");
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
    let beyond = Checkpoint::at(stream.log.identity(), Position(2));
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
    let checkpoints = Checkpoints::open(&stream.file).await.expect("opened");
    let checkpoint = Checkpoint::at(stream.log.identity(), Position(3));
    let refused = checkpoint.clone();
    let database = Database::from(&stream.file);
    let failed = database.write(move |session| {
        Checkpoints::save_in(session, "view", &refused)?;
        session.execute("INSERT INTO nowhere VALUES (1)", &[])
    });
    let failed: Result<_, DatabaseError> = failed.await;
    failed.expect_err("the rest of the write failed");
    assert_eq!(checkpoints.load(&"view".into()).await.expect("read"), None);
    checkpoints
        .save(&"view".into(), checkpoint.clone())
        .await
        .expect("stored");
    assert_eq!(
        checkpoints.load(&"view".into()).await.expect("read"),
        Some(checkpoint)
    );
}

#[tokio::test]
async fn a_checkpoint_has_a_position_per_partition() {
    let stream = Embedded::empty().await;
    let log = stream.log.identity();
    let checkpoints = Checkpoints::open(&stream.file).await.expect("opened");
    let subscriber = "view".into();
    let partitions = Partitioning::Kafka { partitions: 3 }.all();
    let mut all = Checkpoint::start(log);
    for (position, partition) in (1..).zip(&partitions) {
        let mut batch = Checkpoint::start(log);
        batch.advance(*partition, Position(position));
        checkpoints
            .save(&subscriber, batch.clone())
            .await
            .expect("stored");
        all.merge(&batch);
    }
    assert_eq!(
        checkpoints.load(&subscriber).await.expect("read"),
        Some(all.clone())
    );
    assert_eq!(all.position(), Position(0));
    assert_eq!(all.position_of(partitions[4]), Position(5));
    // What has been handled of the whole log has been handled of every partition.
    all.advance(PartitionKey::Log, Position(9));
    assert_eq!(all.position_of(partitions[4]), Position(9));

    let epoch = LogIdentity {
        epoch: log.epoch + 1,
        ..log
    };
    let mut restored = Checkpoint::start(epoch);
    restored.advance(partitions[7], Position(2));
    checkpoints
        .save(&subscriber, restored.clone())
        .await
        .expect("stored");
    assert_eq!(
        checkpoints.load(&subscriber).await.expect("read"),
        Some(restored),
        "what is left of an older epoch says nothing about this one"
    );
}

#[tokio::test]
async fn checkpoints_from_before_partitions_are_kept() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = SqliteFile::open(dir.path().join("log.db"), Options::default()).expect("opened");
    let before = "CREATE TABLE checkpoints (
         subscriber TEXT NOT NULL PRIMARY KEY,
         log_id TEXT NOT NULL,
         epoch INTEGER NOT NULL,
         position INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     INSERT INTO checkpoints VALUES ('sagas', '0198c0de-0000-7000-8000-000000000001', 2, 71)";
    file.migrate("checkpoints", &[before]).expect("made");
    let checkpoints = Checkpoints::open(&file).await.expect("migrated");
    let log = LogIdentity {
        log_id: "0198c0de-0000-7000-8000-000000000001".parse().expect("an id"),
        epoch: 2,
    };
    assert_eq!(
        checkpoints.load(&"sagas".into()).await.expect("read"),
        Some(Checkpoint::at(log, Position(71)))
    );
}
