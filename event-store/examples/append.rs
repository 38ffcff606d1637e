//! Commands per second through the executor, at 1, 64 and 256 concurrent callers in a closed loop.
//!
//! `cargo run --release -p event-store --example append -- [seconds] [directory] [aggregates] [callers]`
//!
//! On SQLite, in a file of its own in the directory; with `--features cluster` and a URL (`postgres://…`) instead of the
//! directory, on PostgreSQL, where the log stays in that database.
//!
//! One command appends one event to one of the aggregates; every one is answered after its commit is durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use database::Database;
#[cfg(feature = "cluster")]
use database::DatabaseError;
use event_schemas::{Actor, ActorKind, AggregateId, CommandId, OrderId};
use event_store::conformance::{Shelf, ShelfCommand};
use event_store::{CommandRequest, Executor, ExecutorOptions, Log, LogOptions};
use sqlite_file::{Options, SqliteFile};
use tempfile::TempDir;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let place = arguments
        .next()
        .unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let aggregates: u64 = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let callers: Vec<usize> = match arguments.next() {
        Some(text) => vec![text.parse()?],
        None => vec![1, 64, 256],
    };
    println!(
        "{:>8} {:>12} {:>10} {:>10} {:>10}",
        "callers", "commands/s", "p50 ms", "p99 ms", "max ms"
    );
    for callers in callers {
        let (database, _dir) = open(&place).await?;
        let log = Log::open(&database, LogOptions::default()).await?;
        let shelves = Executor::<Shelf>::start(&log, &ExecutorOptions::default());
        measure(&shelves, callers, aggregates, Duration::from_secs(1)).await?;
        let begun = Instant::now();
        let mut times = measure(&shelves, callers, aggregates, Duration::from_secs(seconds)).await?;
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!(
            "{callers:>8} {rate:>12.0} {:>10.2} {:>10.2} {:>10.2}",
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}

/// The database at `place`, and its directory for as long as it is needed.
async fn open(place: &str) -> Result<(Database, Option<TempDir>), Box<dyn std::error::Error>> {
    if place.starts_with("postgres") {
        return Ok((connect(place).await?, None));
    }
    let dir = tempfile::tempdir_in(place)?;
    let file = SqliteFile::open(dir.path().join("log.db"), Options::default())?;
    Ok((file.into(), Some(dir)))
}

#[cfg(feature = "cluster")]
async fn connect(url: &str) -> Result<Database, DatabaseError> {
    let options = database::PostgresOptions {
        url: url.to_owned(),
        max_connections: 4,
        migrate: true,
    };
    Ok(database::Postgres::connect(&options).await?.into())
}

#[cfg(not(feature = "cluster"))]
#[expect(clippy::unused_async, reason = "as the other one")]
async fn connect(_url: &str) -> Result<Database, String> {
    Err("built without the feature `cluster`".to_owned())
}

/// Runs commands for `time` and gives how long each took.
async fn measure(
    shelves: &Executor<Shelf>,
    callers: usize,
    aggregates: u64,
    time: Duration,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    static COMMANDS: AtomicU64 = AtomicU64::new(0);
    let all = Arc::new(Mutex::new(Vec::new()));
    let ids: Arc<Vec<AggregateId>> = Arc::new(
        (0..aggregates)
            .map(|number| format!("SKU-{number:08}").as_str().into())
            .collect(),
    );
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (shelves, all, ids) = (shelves.clone(), Arc::clone(&all), Arc::clone(&ids));
            tokio::spawn(async move {
                let mut times = Vec::new();
                let actor = Actor {
                    kind: ActorKind::Customer,
                    id: "0190b3c4-0000-7000-8000-000000000001".into(),
                };
                let order = OrderId::from_uuid(uuid::Uuid::from_u128(7));
                while Instant::now() < end {
                    let number = COMMANDS.fetch_add(1, Ordering::Relaxed);
                    // Spread over the id space, as hashes are.
                    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let id = CommandId::from_uuid(uuid::Uuid::from_u64_pair(mixed, number));
                    let shelf = ids[(mixed >> 32) as usize % ids.len()].clone();
                    let request = CommandRequest::new(id, actor.clone(), ShelfCommand::Reserve(order, 1));
                    let begun = Instant::now();
                    shelves
                        .submit(shelf, request)
                        .await
                        .map_err(|error| error.to_string())?;
                    times.push(begun.elapsed());
                }
                all.lock().map_err(|error| error.to_string())?.extend(times);
                Ok::<_, String>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let times = std::mem::take(&mut *all.lock().map_err(|error| error.to_string())?);
    Ok(times)
}
