//! `cqrs_es::CqrsFramework` runs on the log, and stock `sqlite-es` reads its streams.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore};
use cqrs_es::{AggregateError, CqrsFramework, EventStore};
use event_schemas::{ActorKind, Position};
use event_store::conformance::{Process, Shelf, ShelfCommand, TooFew, command_id, order, put};
use event_store::{CqrsStore, Executor, ExecutorOptions, Log, LogEntry, LogOptions};
use sqlite_es::SqliteEventRepository;
use sqlite_file::{Options, SqliteFile};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

async fn start(dir: &tempfile::TempDir) -> Process {
    let file = SqliteFile::open(dir.path().join("log.db"), Options::default()).unwrap();
    let log = Log::open(&file, LogOptions::default()).await.unwrap();
    let shelves = Executor::start(&log, &ExecutorOptions::default());
    Process { log, shelves }
}

#[tokio::test]
async fn the_framework_runs_on_the_log_beside_the_executor() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(&dir).await;
    let framework = CqrsFramework::new(CqrsStore::<Shelf>::new(&process.log), vec![], ());
    framework
        .execute("mug", ShelfCommand::PutOneByOne(3))
        .await
        .unwrap();
    framework.execute("mug", ShelfCommand::Touch).await.unwrap();
    // The executor sees what the framework wrote, and the other way round.
    process.run("mug", ShelfCommand::Take(order(1), 2)).await.unwrap();
    let refused = framework.execute("mug", ShelfCommand::Take(order(2), 2)).await;
    assert!(matches!(
        refused,
        Err(AggregateError::UserError(TooFew { units: 1 }))
    ));

    let metadata = HashMap::from([
        ("actor_kind".to_owned(), "staff".to_owned()),
        ("command_id".to_owned(), command_id().to_string()),
    ]);
    for _ in 0..2 {
        // The second time under the same id: once.
        framework
            .execute_with_metadata("mug", ShelfCommand::Put(1), metadata.clone())
            .await
            .unwrap();
    }
    assert_eq!(process.units("mug").await, 2);

    let entries = process.log.read(Position(0), 10).await.unwrap();
    let actors: Vec<_> = entries
        .iter()
        .filter_map(LogEntry::event)
        .map(|event| event.metadata.actor_kind)
        .collect();
    let system = ActorKind::System;
    assert_eq!(
        actors,
        [system, system, system, ActorKind::Staff, ActorKind::Staff]
    );
    let envelopes = EventStore::<Shelf>::load_events(&CqrsStore::new(&process.log), "mug")
        .await
        .unwrap();
    let sequences: Vec<_> = envelopes.iter().map(|envelope| envelope.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_command_on_a_stale_aggregate_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(&dir).await;
    let store = CqrsStore::<Shelf>::new(&process.log);
    let stale = EventStore::<Shelf>::load_aggregate(&store, "mug").await.unwrap();
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let outcome = EventStore::<Shelf>::commit(&store, vec![put(1)], stale, HashMap::new()).await;
    assert!(matches!(outcome, Err(AggregateError::AggregateConflict)));
}

#[tokio::test]
async fn two_commands_without_ids_at_one_version_are_no_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(&dir).await;
    let store = CqrsStore::<Shelf>::new(&process.log);
    let [first, second] = [
        EventStore::<Shelf>::load_aggregate(&store, "mug").await.unwrap(),
        EventStore::<Shelf>::load_aggregate(&store, "mug").await.unwrap(),
    ];
    EventStore::<Shelf>::commit(&store, vec![put(1)], first, HashMap::new())
        .await
        .unwrap();
    let outcome = EventStore::<Shelf>::commit(&store, vec![put(1)], second, HashMap::new()).await;
    assert!(matches!(outcome, Err(AggregateError::AggregateConflict)));
}

#[tokio::test]
async fn stock_sqlite_es_reads_the_log_and_cannot_write_past_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(&dir).await;
    process.run("mug", ShelfCommand::PutOneByOne(2)).await.unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join("log.db"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let repository = SqliteEventRepository::new(pool).with_tables("stream_events", "snapshots");
    let events = repository.get_last_events::<Shelf>("mug", 1).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].sequence, events[0].event_type.as_str()),
        (2, "StockReceived")
    );
    let stock = CqrsFramework::new(
        PersistedEventStore::<_, Shelf>::new_event_store(repository),
        vec![],
        (),
    );
    assert!(stock.execute("mug", ShelfCommand::Put(1)).await.is_err());
    assert_eq!(process.log.head().await.unwrap(), Position(2));
}
