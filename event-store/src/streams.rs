//! Aggregates from their streams, through the repositories of the cqrs-es family.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aggregates::Decide;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError, SerializedEvent};
use database::{Database, DatabaseError};
use event_schemas::{AggregateId, CommandId, Position, StreamId, Upcasters, Version, decode_value};
#[cfg(feature = "cluster")]
use postgres_es::PostgresEventRepository;
use sqlite_es::SqliteEventRepository;
use sqlite_file::SqliteError;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
#[cfg(feature = "cluster")]
use tokio::sync::Semaphore;

use crate::entry::UnreadableEvent;
use crate::journal::StoredReceipt;
use crate::row::reason;
use crate::store::Store;
use crate::{Unavailable, UnreadableReason};

/// Streams that are read at once; more wait.
const CONNECTIONS: u32 = 2;

/// Where the repositories find streams, in either database: a view, so that they cannot write past the journal.
const STREAM_EVENTS: &str = "stream_events";

pub(crate) struct Streams {
    repository: Repository,
    store: Store,
    upcasters: Arc<Upcasters>,
}

/// Either database's.
enum Repository {
    Sqlite(SqliteEventRepository),
    #[cfg(feature = "cluster")]
    Postgres {
        repository: PostgresEventRepository,
        /// Half of the connections: where thousands of aggregates are loaded, they wait here, and others find the rest.
        places: Semaphore,
    },
}

impl Repository {
    /// Snapshots are not used: that name is never asked for.
    const SNAPSHOTS: &str = "snapshots";

    async fn events_after<A: Decide>(
        &self,
        id: &AggregateId,
        version: Version,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        match self {
            Self::Sqlite(repository) => events_after::<A>(repository, id, version).await,
            #[cfg(feature = "cluster")]
            Self::Postgres { repository, places } => {
                let place = places.acquire().await;
                let _place = place.map_err(|error| PersistenceError::UnknownError(error.into()))?;
                events_after::<A>(repository, id, version).await
            }
        }
    }
}

async fn events_after<A: Decide>(
    repository: &impl PersistedEventRepository,
    id: &AggregateId,
    version: Version,
) -> Result<Vec<SerializedEvent>, PersistenceError> {
    match usize::try_from(version.0) {
        Ok(0) | Err(_) => repository.get_events::<A>(id.as_str()).await,
        Ok(last) => repository.get_last_events::<A>(id.as_str(), last).await,
    }
}

impl Streams {
    /// Reads the streams in `store`. SQLite connects when first used; needs a Tokio runtime.
    pub(crate) async fn open(store: &Store, upcasters: &Arc<Upcasters>) -> Result<Self, DatabaseError> {
        let repository = match store.database() {
            Database::Sqlite(file) => {
                let path = file
                    .read(|conn| Ok::<_, SqliteError>(conn.path().unwrap_or_default().to_owned()))
                    .await?;
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .busy_timeout(Duration::from_secs(5));
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .test_before_acquire(false)
                    .connect_lazy_with(options);
                let repository = SqliteEventRepository::new(pool);
                Repository::Sqlite(repository.with_tables(STREAM_EVENTS, Repository::SNAPSHOTS))
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                let pool = postgres.pool().clone();
                let places = pool.options().get_max_connections().div_ceil(2);
                Repository::Postgres {
                    places: Semaphore::new(places as usize),
                    repository: PostgresEventRepository::new(pool)
                        .with_tables(STREAM_EVENTS, Repository::SNAPSHOTS),
                }
            }
        };
        Ok(Self {
            repository,
            store: store.clone(),
            upcasters: Arc::clone(upcasters),
        })
    }

    /// The aggregate `id`, from `base` (what an earlier load gave, if that is still true) and the events beyond it.
    pub(crate) async fn load<A: Decide>(
        &self,
        id: &AggregateId,
        base: Option<(A, Version)>,
    ) -> Result<(A, Version), Unavailable> {
        let (mut state, mut version) = base.unwrap_or_default();
        for (sequence, event) in self.events_after::<A>(id, version).await? {
            state.evolve(&event);
            version = sequence;
        }
        Ok((state, version))
    }

    /// The receipts that there are under `ids`.
    pub(crate) async fn receipts(
        &self,
        stream: StreamId,
        ids: Vec<CommandId>,
    ) -> Result<HashMap<CommandId, StoredReceipt>, Unavailable> {
        Ok(self.store.receipts(stream, ids).await?)
    }

    /// The events of aggregate `id` after `version`.
    pub(crate) async fn events_after<A: Decide>(
        &self,
        id: &AggregateId,
        version: Version,
    ) -> Result<Vec<(Version, A::Event)>, Unavailable> {
        self.serialized_after::<A>(id, version)
            .await?
            .into_iter()
            .zip(version.0 + 1..)
            .map(|(event, expected)| {
                if event.sequence as u64 != expected {
                    return Err(Unavailable::Corrupt {
                        after: Version(expected - 1),
                    });
                }
                Ok((Version(expected), self.decode::<A>(id, event)?))
            })
            .collect()
    }

    pub(crate) async fn serialized_after<A: Decide>(
        &self,
        id: &AggregateId,
        version: Version,
    ) -> Result<Vec<SerializedEvent>, Unavailable> {
        let events = self.repository.events_after::<A>(id, version).await;
        events.map_err(|error| match error {
            PersistenceError::OptimisticLockError => Unavailable::Defect("a read met a lock error"),
            PersistenceError::ConnectionError(error)
            | PersistenceError::DeserializationError(error)
            | PersistenceError::UnknownError(error) => Unavailable::Store(error.to_string()),
        })
    }

    pub(crate) fn decode<A: Decide>(
        &self,
        id: &AggregateId,
        event: SerializedEvent,
    ) -> Result<A::Event, Unavailable> {
        let version = Version(event.sequence as u64);
        let unreadable = |reason: UnreadableReason| {
            Unavailable::Unreadable(Box::new(UnreadableEvent {
                // A stream read through the repository does not give it.
                position: Position(0),
                aggregate_type: event.aggregate_type.clone(),
                aggregate_id: id.clone(),
                version,
                event_type: event.event_type.clone(),
                event_version: event.event_version.clone(),
                reason,
            }))
        };
        decode_value(
            A::AGGREGATE_TYPE,
            &event.event_type,
            &event.event_version,
            event.payload,
            &self.upcasters,
        )
        .map_err(|error| unreadable(reason(&error)))
        .and_then(|decoded| {
            A::Event::try_from(decoded).map_err(|_| Unavailable::Corrupt {
                after: Version(version.0 - 1),
            })
        })
    }
}
