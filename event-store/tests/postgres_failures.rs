//! What only PostgreSQL can do to a log: be in the middle of another commit, refuse at the last moment, end a session,
//! fall silent. Needs the servers of `scripts/infra`.
#![cfg(feature = "cluster")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::future::Future;
use std::time::Duration;

use cqrs_es::CqrsFramework;
use cqrs_es::persist::{PersistedEventRepository as _, PersistedEventStore};
use event_schemas::{Position, Version};
use event_store::conformance::{
    Fixture as _, Process, Shelf, ShelfCommand, append, append_as, check_log, command_id, eventually,
    request, request_as,
};
use event_store::{
    AppendOutcome, Chain, ExecuteError, Fingerprints, Log, LogEntry, LogOptions, Receipt, StoredReceipt,
    Unavailable,
};
use postgres_es::PostgresEventRepository;
use sqlx::{Connection as _, Executor as _};
use support::proxy::{Cut, Proxy};
use support::{PostgresLog, killed};

/// Part of every stored event, and of nothing that is asked.
const STORES: &[u8] = b"\"actor_kind\"";

macro_rules! cluster {
    () => {
        match PostgresLog::new().await {
            Some(log) => log,
            None => return,
        }
    };
}

fn appended(outcome: AppendOutcome) -> Receipt {
    match outcome {
        AppendOutcome::Appended(receipt) => receipt,
        other => panic!("not appended: {other:?}"),
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("an answer")
}

/// The positions that a subscriber sees, following the head, up to `last`.
fn follow(log: Log, last: u64) -> tokio::task::JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut head = log.watch();
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let after = Position(seen.last().copied().unwrap_or(0));
            head.wait_for(|head| *head > after).await.unwrap();
            let entries = log.read(after, 10).await.unwrap();
            seen.extend(entries.iter().map(|entry| entry.position().0));
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_skips_what_is_being_committed_between_two_others() {
    let server = cluster!();
    let (before, after) = (server.process().await, server.process().await);
    let reader = follow(server.open().await, 4);
    before.run("a", ShelfCommand::Put(1)).await.unwrap();
    let mut between = server.hold_head(Some(("b", 1))).await;
    let shelves = after.shelves.clone();
    let pending = tokio::spawn(async move { shelves.submit("c", request(ShelfCommand::Put(1))).await });
    server.waiting_for_lock(1).await;
    // The one in the middle has its position, so what comes behind it is not there yet.
    let log = server.open().await;
    assert_eq!(log.head().await.unwrap(), Position(1));
    assert_eq!(log.read(Position(0), 10).await.unwrap().len(), 1);
    assert_eq!(log.read_raw(Position(0), 10).await.unwrap().len(), 1);
    assert!(!pending.is_finished());
    between.execute("COMMIT").await.unwrap();
    assert_eq!(soon(pending).await.unwrap().unwrap().position, Position(3));
    // And one that gives up leaves its position to the next.
    let mut between = server.hold_head(Some(("b", 2))).await;
    let shelves = after.shelves.clone();
    let pending = tokio::spawn(async move { shelves.submit("c", request(ShelfCommand::Put(1))).await });
    server.waiting_for_lock(1).await;
    between.execute("ROLLBACK").await.unwrap();
    assert_eq!(soon(pending).await.unwrap().unwrap().position, Position(4));
    assert_eq!(soon(reader).await.unwrap(), [1, 2, 3, 4]);
    check_log(&server).await;
}

/// On one thread, so that what is handed in at once is one batch.
#[tokio::test]
async fn what_was_overtaken_between_the_look_and_the_commit_is_taken_out_with_its_chain() {
    let server = cluster!();
    let journal = server.open().await.journal();
    let mut other = server.hold_head(Some(("mug", 1))).await;
    let (mug, cup) = (Chain::new(), Chain::new());
    let [overtaken, chained] = [0, 1].map(|expected| journal.append(&mug, append("mug", expected, 1)));
    let [first, second] = [0, 1].map(|expected| journal.append(&cup, append("cup", expected, 1)));
    server.waiting_for_lock(1).await;
    other.execute("COMMIT").await.unwrap();
    assert_eq!(
        soon(overtaken).await,
        AppendOutcome::Conflict { actual: Version(1) }
    );
    // Its version is free, and is not taken by what was decided on a state that never was.
    assert_eq!(chained.await, AppendOutcome::ChainBroken);
    assert_eq!(appended(first.await).position, Position(2));
    assert_eq!(appended(second.await).position, Position(3));
    check_log(&server).await;
}

/// Also what refuses only when the transaction ends, after the server has sent the statement's rows.
#[tokio::test]
async fn a_commit_that_is_refused_costs_only_what_is_at_fault() {
    let server = cluster!();
    let process = server.process().await;
    server
        .execute(
            "CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'boom'; END $$;
             CREATE CONSTRAINT TRIGGER boom AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN (NEW.aggregate_id = 'bad' AND NEW.sequence = 3) EXECUTE FUNCTION boom()",
        )
        .await;
    let journal = process.log.journal();
    let (bad, id) = (Chain::new(), command_id());
    let before = journal.append(&Chain::new(), append("good", 0, 2));
    let first = journal.append(&bad, append("bad", 0, 1));
    let fails = journal.append(&bad, append_as(id, "bad", 1, 3));
    let chained = journal.append(&bad, append("bad", 1, 1));
    let after = journal.append(&Chain::new(), append("other", 0, 2));
    assert_eq!(appended(soon(before).await).position, Position(2));
    assert_eq!(appended(first.await).position, Position(3));
    assert!(matches!(
        fails.await,
        AppendOutcome::Unavailable(Unavailable::Store(_))
    ));
    assert_eq!(chained.await, AppendOutcome::ChainBroken);
    assert_eq!(appended(after.await).position, Position(5));
    let found = process
        .shelves
        .find_receipt("bad", id, &Fingerprints::none())
        .await;
    assert_eq!(found, Ok(None));
    assert_eq!(check_log(&server).await.len(), 5);
    // And the executor goes on from what is there.
    let outcome = process.run("bad", ShelfCommand::PutOneByOne(2)).await;
    assert!(matches!(
        outcome,
        Err(ExecuteError::Unavailable(Unavailable::Store(_)))
    ));
    let next = process.run("bad", ShelfCommand::Put(1)).await.unwrap();
    assert_eq!((next.version, next.position), (Version(2), Position(6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_ended_in_the_middle_of_a_batch_costs_nothing() {
    let server = cluster!();
    let process = server.process().await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let other = server.hold_head(None).await;
    let pending: Vec<_> = (0..50)
        .map(|_| process.shelves.submit("mug", request(ShelfCommand::Put(1))))
        .collect();
    for _ in 0..2 {
        let waiting = server.waiting_for_lock(1).await;
        let sql = format!("SELECT pg_terminate_backend({}, 5000)", waiting[0]);
        server.execute(&sql).await;
    }
    other.close().await.unwrap();
    for (pending, version) in pending.into_iter().zip(2..) {
        let receipt = soon(pending).await.unwrap();
        assert_eq!((receipt.version, receipt.replayed), (Version(version), false));
    }
    assert_eq!(process.units("mug").await, 51);
    assert_eq!(check_log(&server).await.len(), 51);
}

/// A log behind a proxy, with one event on it.
async fn behind_a_proxy(server: &PostgresLog) -> (Proxy, Process) {
    let (address, _) = server.url_through("");
    let proxy = Proxy::start(address).await;
    let (_, url) = server.url_through(&proxy.address);
    let process = PostgresLog::process_at(&url).await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    (proxy, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let server = cluster!();
    let (proxy, process) = behind_a_proxy(&server).await;
    proxy.cut(Cut::AfterTheAnswer, STORES);
    let put = request(ShelfCommand::Put(1));
    let receipt = soon(process.shelves.submit("mug", put.clone())).await.unwrap();
    proxy.is_cut().await;
    // Stored, so it is found and not stored a second time.
    assert_eq!(
        (receipt.version, receipt.position, receipt.replayed),
        (Version(2), Position(2), true)
    );
    assert_eq!(process.shelves.submit("mug", put).await, Ok(receipt));
    assert_eq!(process.units("mug").await, 2);
    let next = process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    assert_eq!((next.version, next.position), (Version(3), Position(3)));
    assert_eq!(check_log(&server).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_sent_again() {
    let server = cluster!();
    let (proxy, process) = behind_a_proxy(&server).await;
    proxy.cut(Cut::Before, STORES);
    let receipt = soon(process.run("mug", ShelfCommand::Put(1))).await.unwrap();
    proxy.is_cut().await;
    assert_eq!(
        (receipt.version, receipt.position, receipt.replayed),
        (Version(2), Position(2), false)
    );
    assert_eq!(check_log(&server).await.len(), 2);
}

/// The server does not notice that its client has gone, and commits after the client has looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_happens_after_it_was_looked_up_happens_once() {
    // After a rollback the head goes to the one that has waited longest, so the old commit is first; after a commit to
    // either of them.
    for release in ["ROLLBACK", "COMMIT"] {
        let server = cluster!();
        let (proxy, process) = behind_a_proxy(&server).await;
        let mut other = server.hold_head(None).await;
        proxy.cut(Cut::Behind, STORES);
        let journal = process.log.journal();
        let (chain, id) = (Chain::new(), command_id());
        let first = journal.append(&chain, append_as(id, "mug", 1, 2));
        proxy.is_cut().await;
        let chained = journal.append(&chain, append("mug", 3, 1));
        // The old commit and the new one.
        server.waiting_for_lock(2).await;
        other.execute(release).await.unwrap();
        let (first, chained) = (soon(first).await, chained.await);
        if let (AppendOutcome::Appended(receipt), "COMMIT") = (&first, release) {
            assert_eq!((receipt.version, receipt.position), (Version(3), Position(3)));
            assert_eq!(appended(chained).version, Version(4));
            assert_eq!(check_log(&server).await.len(), 4);
        } else {
            let stored = StoredReceipt {
                version: Version(3),
                position: Position(3),
                fingerprint: None,
            };
            assert_eq!(first, AppendOutcome::Duplicate(stored));
            assert_eq!(chained, AppendOutcome::ChainBroken);
            assert_eq!(check_log(&server).await.len(), 3);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_told_and_welcomed_back() {
    let server = cluster!();
    let (proxy, process) = behind_a_proxy(&server).await;
    let mut head = process.log.watch();
    proxy.take_down();
    let id = command_id();
    let put = || request_as(id, ShelfCommand::Put(1));
    // Known or not: whatever needs the log says that it cannot be used.
    for shelf in ["mug", "cup"] {
        let outcome = soon(process.shelves.submit(shelf, put())).await;
        let Err(ExecuteError::Unavailable(error @ Unavailable::Store(_))) = outcome else {
            panic!("nothing can be promised: {outcome:?}");
        };
        assert!(error.retryable());
    }
    assert!(process.log.head().await.is_err());
    proxy.bring_up();
    eventually("the log can be used again", async || {
        process.shelves.submit("mug", put()).await.is_ok()
    })
    .await;
    assert_eq!(process.units("mug").await, 2);
    // Its readers hear of others' commits again, too.
    server
        .process()
        .await
        .run("cup", ShelfCommand::Put(1))
        .await
        .unwrap();
    soon(head.wait_for(|head| *head == Position(3))).await.unwrap();
    let entries = process.log.read(Position(2), 10).await.unwrap();
    let positions: Vec<_> = entries.iter().map(LogEntry::position).collect();
    assert_eq!(positions, [Position(3)]);
}

/// Put back to an earlier state below a process that goes on, it has no gap afterwards.
#[tokio::test]
async fn a_log_that_has_lost_events_is_looked_at_anew() {
    let server = cluster!();
    let journal = server.open().await.journal();
    let other = server.open().await.journal();
    for version in 0..3 {
        appended(journal.append(&Chain::new(), append("mug", version, 1)).await);
    }
    server
        .execute(
            "DELETE FROM commands WHERE position > 1;
             DELETE FROM events WHERE position > 1;
             UPDATE log_head SET position = 1",
        )
        .await;
    // It may have grown beyond what it was.
    appended(other.append(&Chain::new(), append("cup", 0, 4)).await);
    assert_eq!(
        soon(journal.append(&Chain::new(), append("mug", 3, 1))).await,
        AppendOutcome::Conflict { actual: Version(1) }
    );
    let receipt = appended(journal.append(&Chain::new(), append("mug", 1, 1)).await);
    assert_eq!((receipt.version, receipt.position), (Version(2), Position(6)));
    check_log(&server).await;
}

#[tokio::test]
async fn a_commit_is_durable_whatever_the_server_is_set_to() {
    let server = cluster!();
    let process = server.process().await;
    server
        .execute(
            "CREATE FUNCTION durable() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF current_setting('synchronous_commit') <> 'on' THEN RAISE 'not durable'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER durable BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION durable();
             DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
             END $$",
        )
        .await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
}

#[tokio::test]
async fn a_closed_database_answers_instead_of_hanging() {
    let server = cluster!();
    let database = PostgresLog::connect(server.url()).await;
    let log = Log::open(&database, LogOptions::default()).await.unwrap();
    let journal = log.journal();
    appended(journal.append(&Chain::new(), append("mug", 0, 1)).await);
    database.close().await.unwrap();
    let outcome = soon(journal.append(&Chain::new(), append("mug", 1, 1))).await;
    assert_eq!(outcome, AppendOutcome::Unavailable(Unavailable::Closed));
    assert!(log.head().await.is_err());
}

#[tokio::test]
async fn a_journal_whose_runtime_has_ended_answers_instead_of_hanging() {
    let server = cluster!();
    let (sender, journal) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let log = server.open().await;
                appended(log.journal().append(&Chain::new(), append("mug", 0, 1)).await);
                sender.send(log.journal()).unwrap();
            });
        });
    });
    let journal = journal.recv().unwrap();
    let outcome = soon(journal.append(&Chain::new(), append("mug", 1, 1))).await;
    assert_eq!(outcome, AppendOutcome::Unavailable(Unavailable::Closed));
}

#[tokio::test]
async fn stock_postgres_es_reads_the_log_and_cannot_write_past_the_journal() {
    let server = cluster!();
    let process = server.process().await;
    process.run("mug", ShelfCommand::PutOneByOne(2)).await.unwrap();
    let pool = sqlx::PgPool::connect(server.url()).await.unwrap();
    let repository = PostgresEventRepository::new(pool).with_tables("stream_events", "snapshots");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_in_the_log_once() {
    let server = cluster!();
    let mut acknowledged = Vec::new();
    for life in 0..3 {
        let told = killed::live_and_be_killed(server.url(), 50 + 100 * life);
        assert!(!told.is_empty(), "a life without work");
        acknowledged.extend(told);
        // The server may still be at the last batch, so only what was told has to be there.
        let raw = check_log(&server).await;
        killed::check_acknowledged(&server.process().await, &raw, &acknowledged).await;
    }
    check_log(&server).await;
}

#[ignore = "the process that the kill test kills"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_until_killed() {
    if let Some(place) = killed::place() {
        killed::command(&PostgresLog::process_at(&place).await).await;
    }
}
