//! What only SQLite can do to a log: refuse a row, fail a commit, lose its process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/killed.rs"]
mod killed;

use std::sync::mpsc;
use std::time::Duration;

use event_schemas::{Position, Version};
use event_store::conformance::{
    Process, ShelfCommand, append, append_as, command_id, request, request_as, stream,
};
use event_store::{
    AccessError, AppendOutcome, Chain, ExecuteError, Executor, ExecutorOptions, Log, LogOptions, Settle,
    SettleOutcome, Unavailable,
};
use killed::{check_acknowledged, live_and_be_killed};
use sqlite_file::{Options, SqliteError, SqliteFile};

async fn open(dir: &std::path::Path) -> (SqliteFile, Process) {
    let file = SqliteFile::open(dir.join("log.db"), Options::default()).unwrap();
    let log = Log::open(&file, LogOptions::default()).await.unwrap();
    let shelves = Executor::start(&log, &ExecutorOptions::default());
    (file, Process { log, shelves })
}

/// Holds the writer inside a transaction, so that what is handed in meanwhile shares it.
struct HeldWriter {
    release: mpsc::Sender<()>,
}

impl HeldWriter {
    fn hold(file: &SqliteFile) -> Self {
        let (release, released) = mpsc::channel();
        let (held, is_held) = mpsc::channel();
        file.submit(
            move |_| {
                held.send(()).unwrap();
                released.recv_timeout(Duration::from_secs(20)).unwrap();
                Ok::<_, SqliteError>(())
            },
            drop,
        )
        .unwrap();
        is_held.recv_timeout(Duration::from_secs(20)).unwrap();
        Self { release }
    }

    fn release(self) {
        self.release.send(()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_fails_half_way_leaves_nothing_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (file, process) = open(dir.path()).await;
    file.write(|conn| {
        conn.execute_batch(
            "CREATE TRIGGER boom BEFORE INSERT ON events
                 WHEN NEW.aggregate_id = 'bad' AND NEW.sequence = 3
                 BEGIN SELECT RAISE(ABORT, 'boom'); END",
        )?;
        Ok::<_, SqliteError>(())
    })
    .await
    .unwrap();
    let journal = process.log.journal();
    let (bad, id) = (Chain::new(), command_id());
    let held = HeldWriter::hold(&file);
    let before = journal.append(&Chain::new(), append("good", 0, 2));
    let first = journal.append(&bad, append("bad", 0, 1));
    let fails = journal.append(&bad, append_as(id, "bad", 1, 3));
    let chained = journal.append(&bad, append("bad", 1, 1));
    let after = journal.append(&Chain::new(), append("other", 0, 2));
    held.release();
    assert!(matches!(before.await, AppendOutcome::Appended(receipt) if receipt.position == Position(2)));
    assert!(matches!(first.await, AppendOutcome::Appended(receipt) if receipt.position == Position(3)));
    assert!(matches!(
        fails.await,
        AppendOutcome::Unavailable(Unavailable::Store(_))
    ));
    assert_eq!(chained.await, AppendOutcome::ChainBroken);
    assert!(matches!(after.await, AppendOutcome::Appended(receipt) if receipt.position == Position(5)));
    let raw = process.log.read_raw(Position(0), 100).await.unwrap();
    let ids: Vec<_> = raw.iter().map(|event| event.aggregate_id.as_str()).collect();
    assert_eq!(ids, ["good", "good", "bad", "other", "other"]);
    // Not its receipt either.
    let settle = Settle {
        stream: stream("bad"),
        command_id: Some(id),
        version: Some(Version(1)),
    };
    assert_eq!(
        journal.settle(&Chain::new(), settle).await,
        SettleOutcome::Settled
    );
    // And the executor goes on from what is there.
    let outcome = process.run("bad", ShelfCommand::PutOneByOne(2)).await;
    assert!(matches!(
        outcome,
        Err(ExecuteError::Unavailable(Unavailable::Store(_)))
    ));
    assert_eq!(
        process.run("bad", ShelfCommand::Put(1)).await.unwrap().version,
        Version(2)
    );
}

/// On one thread, so that a task that was given something to do has done it after a yield.
#[tokio::test]
async fn a_commit_that_fails_is_told_to_all_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (file, process) = open(dir.path()).await;
    file.write(|conn| {
        conn.execute_batch(
            "CREATE TABLE parents (id INTEGER PRIMARY KEY);
             CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
        )?;
        Ok::<_, SqliteError>(())
    })
    .await
    .unwrap();
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let journal = process.log.journal();
    let (chain, id) = (Chain::new(), command_id());
    let held = HeldWriter::hold(&file);
    let direct = journal.append(&chain, append("cup", 0, 1));
    let first = process
        .shelves
        .submit("mug", request_as(id, ShelfCommand::Put(1)));
    let chained = process.shelves.submit("mug", request(ShelfCommand::Put(1)));
    let shelves = process.shelves.clone();
    let question = tokio::spawn(async move { shelves.load("mug").await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Breaks the transaction that all of them share.
    let (told, breaks) = mpsc::channel();
    file.submit(
        |conn| {
            conn.execute("INSERT INTO children VALUES (1)", [])?;
            Ok::<_, SqliteError>(())
        },
        move |outcome| told.send(outcome).unwrap(),
    )
    .unwrap();
    held.release();
    assert!(matches!(
        direct.await,
        AppendOutcome::Unavailable(Unavailable::Store(_))
    ));
    assert!(matches!(breaks.recv().unwrap(), Err(SqliteError::Commit { .. })));
    assert_eq!(
        journal.append(&chain, append("cup", 0, 1)).await,
        AppendOutcome::ChainBroken
    );
    for outcome in [first.await, chained.await] {
        assert!(matches!(
            outcome,
            Err(ExecuteError::Unavailable(Unavailable::Store(_)))
        ));
    }
    assert!(matches!(
        question.await.unwrap(),
        Err(AccessError::Unavailable(Unavailable::Store(_)))
    ));
    // Nobody remembers what never was.
    assert_eq!(process.units("mug").await, 1);
    assert_eq!(*process.log.watch().borrow(), Position(1));
    let again = process
        .shelves
        .submit("mug", request_as(id, ShelfCommand::Put(1)))
        .await
        .unwrap();
    assert_eq!(
        (again.version, again.position, again.replayed),
        (Version(2), Position(2), false)
    );
}

#[tokio::test]
async fn a_closed_file_answers_instead_of_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let (file, process) = open(dir.path()).await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    file.close().await.unwrap();
    let closed = Unavailable::Closed;
    let outcome = process.run("mug", ShelfCommand::Put(1)).await;
    assert_eq!(outcome, Err(ExecuteError::Unavailable(closed.clone())));
    let outcome = process
        .log
        .journal()
        .append(&Chain::new(), append("cup", 0, 1))
        .await;
    assert_eq!(outcome, AppendOutcome::Unavailable(closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_in_the_log_once() {
    const LIVES: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for life in 0..LIVES {
        let told = live_and_be_killed(dir.path().to_str().unwrap(), 50 + 60 * life);
        assert!(!told.is_empty(), "a life without work");
        let (file, process) = open(dir.path()).await;
        let raw = process.log.read_raw(Position(0), 1_000_000).await.unwrap();
        let positions = raw.iter().map(|event| event.position.0);
        assert!(positions.eq(1..=raw.len() as u64));
        assert_eq!(process.log.head().await.unwrap(), Position(raw.len() as u64));
        check_acknowledged(&process, &raw, &told).await;
        acknowledged.extend(told);
        if life == LIVES - 1 {
            check_acknowledged(&process, &raw, &acknowledged).await;
        }
        file.close().await.unwrap();
    }
}

#[ignore = "the process that the kill test kills"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_until_killed() {
    if let Some(place) = killed::place() {
        let (_file, process) = open(place.as_ref()).await;
        killed::command(&process).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_cannot_begin_is_answered_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_file, process) = open(dir.path()).await;
    let journal = process.log.journal();
    // Another program, such as a shell, holds the write lock for longer than the busy timeout.
    let other = sqlite_file::rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = tokio::time::timeout(
        Duration::from_secs(60),
        journal.append(&Chain::new(), append("shelf", 0, 1)),
    );
    assert!(matches!(
        refused.await.expect("an answer"),
        AppendOutcome::Unavailable(Unavailable::Store(_))
    ));
    other.execute_batch("ROLLBACK").unwrap();
    let appended = tokio::time::timeout(
        Duration::from_secs(60),
        journal.append(&Chain::new(), append("shelf", 0, 1)),
    );
    assert!(matches!(
        appended.await.expect("an answer"),
        AppendOutcome::Appended(_)
    ));
}
