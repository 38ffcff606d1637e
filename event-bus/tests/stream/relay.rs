//! The relay beside servers that fail: its database, its broker, and another relay.

use std::path::Path;
use std::time::Duration;

use crate::conformance::{DEADLINE, Stream as _, sequences, take};
use crate::support::gauges::Gauges;
use crate::support::kafka::{Cluster, Topics, caught_up, is_there};
use database::testing::TestDatabase;
use database::{Database, params};
use event_bus::{Checkpoints, Relay, RelayOptions, RelayState};
use event_schemas::{Clock, Version};
use event_store::{Log, LogOptions};
use tokio_util::sync::CancellationToken;

/// Far beyond what starting a broker takes.
const SERVER_DEADLINE: Duration = Duration::from_secs(60);

async fn becomes(relay: &Relay, what: &str, is: impl Fn(&RelayState) -> bool) {
    let reached = async {
        while !is(&relay.state()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(SERVER_DEADLINE, reached).await;
    assert!(reached.is_ok(), "{what} in time: {:?}", relay.state());
}

/// A relay of a process of its own.
async fn process(url: &str, topics: &Topics) -> (Relay, Log, Database) {
    let options = database::PostgresOptions {
        url: url.to_owned(),
        max_connections: 4,
        migrate: true,
    };
    let database = Database::from(database::Postgres::connect(&options).await.expect("connected"));
    let log = Log::open(&database, LogOptions::default()).await.expect("opened");
    let relay = Relay::start(
        &log,
        &database,
        &topics.kafka,
        RelayOptions::default(),
        CancellationToken::new(),
    );
    (relay.await.expect("started"), log, database)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_relays_is_active_and_another_takes_over() {
    if !is_there() {
        return;
    }
    let test = TestDatabase::postgres().await.expect("PostgreSQL");
    let topics = Topics::new();
    let (first, log, database) = process(test.url(), &topics).await;
    becomes(&first, "active", |state| *state == RelayState::Running).await;
    let (second, ..) = process(test.url(), &topics).await;
    crate::support::append_to(&log, "A", 3).await;
    caught_up(&first, log.head().await.expect("read")).await;
    assert_eq!((second.state(), second.status().lag), (RelayState::Standby, 0));

    // The server ends the connection that holds the lock: one of the two goes on.
    let killed = database.write(|session| {
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &params![],
        )
    });
    let killed: Result<usize, database::DatabaseError> = killed.await;
    assert_eq!(killed, Ok(1));
    crate::support::append_to(&log, "A", 3).await;
    let checkpoints = Checkpoints::open(&database).await.expect("opened");
    let head = log.head().await.expect("read");
    let relayed = async {
        while checkpoints
            .load(&"relay".into())
            .await
            .expect("read")
            .expect("saved")
            .position()
            < head
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, relayed).await.expect("in time");

    first.stop().await;
    becomes(&second, "active", |state| *state == RelayState::Running).await;
    crate::support::append_to(&log, "A", 3).await;
    caught_up(&second, log.head().await.expect("read")).await;
    second.stop().await;
}

/// A broker of the test's own.
struct Broker {
    folder: tempfile::TempDir,
    ports: [u16; 2],
}

impl Broker {
    fn start() -> Self {
        let held = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = held
            .each_ref()
            .map(|held| held.local_addr().expect("a port").port());
        drop(held);
        let folder = tempfile::TempDir::new().expect("a folder");
        let broker = Self { folder, ports };
        assert!(broker.run("start"), "the broker starts");
        broker
    }

    fn run(&self, command: &str) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/infra");
        let output = std::process::Command::new(script)
            .args([command, "kafka"])
            .env("OMISYS_INFRA_DIR", self.folder.path().join("servers"))
            .env("OMISYS_INFRA_KAFKA_PORT", self.ports[0].to_string())
            .env("OMISYS_INFRA_KAFKA_CONTROLLER_PORT", self.ports[1].to_string())
            .output()
            .expect("scripts/infra runs");
        output.status.success()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.run("down") {
            eprintln!("a broker was left behind in {}", self.folder.path().display());
        }
    }
}

#[tokio::test]
async fn the_backlog_drains_when_kafka_comes_back() {
    if !is_there() {
        return;
    }
    let gauges = Gauges::default();
    // Of this thread, on which everything runs.
    let _recording = metrics::set_default_local_recorder(&gauges);
    let broker = tokio::task::spawn_blocking(Broker::start).await.expect("started");
    let stream = Cluster::on(Topics::on(format!("127.0.0.1:{}", broker.ports[0]))).await;
    stream.append("A", 5).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    take(&mut subscription, 5).await;
    stream.stop_relay().await;
    let relay = stream.relay().await;
    becomes(&relay, "active", |state| *state == RelayState::Running).await;

    let broker = tokio::task::spawn_blocking(move || {
        assert!(broker.run("kill"));
        broker
    });
    let broker = broker.await.expect("killed");
    for _ in 0..50 {
        stream.append("A", 10).await;
    }
    becomes(&relay, "retrying", |state| {
        matches!(state, RelayState::Retrying(_))
    })
    .await;
    assert_eq!(relay.status().lag, 500);
    // What waits gets older, whatever the relay is doing, and the subscriber knows that there is something.
    let mut seconds = Vec::new();
    let grows = async {
        while seconds.len() < 3 {
            let now = gauges.get("omisys_relay_lag_seconds");
            if now > seconds.last().copied().unwrap_or(0.5) {
                seconds.push(now);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, grows).await.expect("in time");
    assert_eq!(
        gauges.get("omisys_relay_lag_positions").to_bits(),
        500_f64.to_bits()
    );
    let lag = subscription.lag(Clock::System.now()).await.expect("measured");
    assert!(lag.positions == 500 && lag.seconds > 0.5, "{lag:?}");
    let nothing = subscription
        .next_batch(7, Duration::from_millis(500))
        .await
        .expect("the subscriber waits");
    assert!(nothing.is_empty());

    let broker = tokio::task::spawn_blocking(move || {
        assert!(broker.run("start"));
        broker
    });
    let broker = broker.await.expect("started");
    becomes(&relay, "active", |state| *state == RelayState::Running).await;
    caught_up(&relay, stream.head().await).await;
    let mut batches = Vec::new();
    while batches
        .iter()
        .map(|batch: &event_bus::Batch| batch.entries.len())
        .sum::<usize>()
        < 500
    {
        batches.extend(take(&mut subscription, 1).await);
    }
    assert_eq!(
        sequences(&batches)["A"],
        (6..=505).map(Version).collect::<Vec<_>>()
    );
    relay.stop().await;
    subscription.close().await;
    drop(stream);
    tokio::task::spawn_blocking(move || drop(broker))
        .await
        .expect("stopped");
}
