//! A log in a PostgreSQL database of its own, and ways to treat the server and the way to it badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "support of tests; not each of them uses all of it"
)]

pub mod killed;
pub mod proxy;

use database::testing::TestDatabase;
use database::{Database, DatabaseError, Postgres, PostgresOptions, params};
use event_schemas::Position;
use event_store::conformance::{Fixture, Process, eventually};
use event_store::{Executor, ExecutorOptions, Log, LogOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, query, query_scalar};

/// A database, and logs in it as other processes have them.
pub struct PostgresLog(TestDatabase);

impl PostgresLog {
    /// None if the cluster is not to be tested.
    pub async fn new() -> Option<Self> {
        TestDatabase::postgres().await.map(Self)
    }

    /// The server's address, and the URL with another one.
    pub fn url_through(&self, address: &str) -> (String, String) {
        let url = self.0.url();
        let (front, database) = url.rsplit_once('/').unwrap();
        let (user, server) = front.rsplit_once('@').unwrap();
        (server.to_owned(), format!("{user}@{address}/{database}"))
    }

    pub fn url(&self) -> &str {
        self.0.url()
    }

    pub async fn connect(url: &str) -> Database {
        let options = PostgresOptions {
            url: url.to_owned(),
            max_connections: 4,
            migrate: true,
        };
        Postgres::connect(&options).await.unwrap().into()
    }

    /// A process whose way to the server is `url`.
    pub async fn process_at(url: &str) -> Process {
        let log = Log::open(&Self::connect(url).await, LogOptions::default())
            .await
            .unwrap();
        let shelves = Executor::start(&log, &ExecutorOptions::default());
        Process { log, shelves }
    }

    pub async fn process(&self) -> Process {
        Self::process_at(self.0.url()).await
    }

    /// A session beside the logs, as of another program.
    pub async fn session(&self) -> PgConnection {
        PgConnection::connect(self.0.url()).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.session().await.execute(sqlx::raw_sql(sql)).await.unwrap();
    }

    /// Holds the head, as another process's commit does while it is under way; `event` goes to the next position.
    pub async fn hold_head(&self, event: Option<(&str, i64)>) -> PgConnection {
        let mut session = self.session().await;
        session.execute("BEGIN").await.unwrap();
        let positions = i64::from(event.is_some());
        let position: i64 = query_scalar("UPDATE log_head SET position = position + $1 RETURNING position")
            .bind(positions)
            .fetch_one(&mut session)
            .await
            .unwrap();
        if let Some((shelf, sequence)) = event {
            query(
                "INSERT INTO events (position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                     payload, metadata, recorded_at)
                 VALUES ($1, 'inventory', $2, $3, 'StockAdjusted', '1.0',
                     '{\"StockAdjusted\":{\"delta\":-1,\"reason\":\"count\"}}',
                     '{\"actor_kind\":\"system\",\"actor_id\":\"other\",\"command\":\"Adjust\",
                       \"command_id\":\"00000000-0000-8000-8000-000000000001\",
                       \"correlation_id\":\"00000000-0000-8000-8000-000000000001\"}', 0)",
            )
            .bind(position)
            .bind(shelf)
            .bind(sequence)
            .execute(&mut session)
            .await
            .unwrap();
        }
        session
    }

    /// Waits until `many` sessions wait for a lock in this database, and gives their process ids.
    pub async fn waiting_for_lock(&self, many: usize) -> Vec<i32> {
        let mut session = self.session().await;
        let mut waiting = Vec::new();
        eventually("a commit waits for the head", async || {
            waiting = query_scalar(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_all(&mut session)
            .await
            .unwrap();
            waiting.len() == many
        })
        .await;
        waiting
    }
}

impl Fixture for PostgresLog {
    async fn open_with(&self, options: LogOptions) -> Log {
        Log::open(&Self::connect(self.0.url()).await, options)
            .await
            .unwrap()
    }

    async fn tamper(&self, position: Position, event_version: &str, payload: &str) {
        let (event_version, payload) = (event_version.to_owned(), payload.to_owned());
        let changed = self
            .0
            .database()
            .write(move |session| {
                session.execute(
                    "UPDATE events SET event_version = ?2, payload = ?3 WHERE position = ?1",
                    &params![position.0, event_version, payload],
                )
            })
            .await;
        assert_eq!(changed, Ok::<_, DatabaseError>(1));
    }
}
