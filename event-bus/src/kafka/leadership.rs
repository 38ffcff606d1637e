//! One relay at a time, where several processes run one.

use std::time::Duration;

use database::{Database, DatabaseError};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::Kafka;

/// Between two tries to become the one.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at the connection that holds the lock, and how long each may take.
const HEARTBEAT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);

/// How this process becomes the one that relays.
pub(super) enum Leadership {
    /// A database in a file has one process.
    Alone,
    /// By a lock of a connection of its own.
    Postgres {
        postgres: database::Postgres,
        lock: String,
    },
}

/// The right to relay, while it lasts.
pub(super) enum Term {
    Endless,
    Held(PgConnection),
}

impl Leadership {
    pub(super) fn new(database: &Database, kafka: &Kafka) -> Self {
        match database {
            Database::Sqlite(_) => Self::Alone,
            Database::Postgres(postgres) => Self::Postgres {
                postgres: postgres.clone(),
                lock: format!("omisys/relay/{}", kafka.options().topic_prefix),
            },
        }
    }

    /// Waits until this process is the one; none if cancelled. `tell` hears what stands in the way.
    pub(super) async fn acquire(
        &self,
        cancel: &CancellationToken,
        tell: impl Fn(Result<(), DatabaseError>),
    ) -> Option<Term> {
        loop {
            match self.try_acquire().await {
                Ok(Some(term)) => return Some(term),
                Ok(None) => tell(Ok(())),
                Err(error) => tell(Err(error)),
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn try_acquire(&self) -> Result<Option<Term>, DatabaseError> {
        let (postgres, lock) = match self {
            Self::Alone => return Ok(Some(Term::Endless)),
            Self::Postgres { postgres, lock } => (postgres, lock),
        };
        // Not one of the pool's: the lock lives as long as its connection.
        let mut connection = PgConnection::connect_with(postgres.connect_options()).await?;
        let held: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(lock)
            .fetch_one(&mut connection)
            .await?;
        Ok(held.then_some(Term::Held(connection)))
    }
}

impl Term {
    /// Resolves when the lock may be another's.
    pub(super) async fn lost(&mut self) {
        let Self::Held(connection) = self else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let answered = tokio::time::timeout(ANSWER, connection.ping()).await;
            if !matches!(answered, Ok(Ok(()))) {
                return;
            }
        }
    }
}
