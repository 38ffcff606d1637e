//! Aggregates from their streams, through the repositories of the cqrs-es family.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aggregates::Decide;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError, SerializedEvent};
use event_schemas::{AggregateId, CommandId, Position, StreamId, Upcasters, Version, decode_value};
use sqlite_es::SqliteEventRepository;
use sqlite_file::{Connection, SqliteFile};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::entry::UnreadableEvent;
use crate::journal::StoredReceipt;
use crate::sqlite::{self, reason};
use crate::{Unavailable, UnreadableReason};

/// Streams that are read at once; more wait.
const CONNECTIONS: u32 = 2;

pub(crate) struct Streams {
    /// One adapter so far; a second one makes this an enum.
    repository: SqliteEventRepository,
    file: SqliteFile,
    upcasters: Arc<Upcasters>,
}

impl Streams {
    /// Reads the log in `file`, which lies at `path`. Connects when first used; needs a Tokio runtime.
    pub(crate) fn sqlite(file: SqliteFile, path: &str, upcasters: Arc<Upcasters>) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        // Snapshots are not used: the second name is never asked for.
        let repository = SqliteEventRepository::new(pool).with_tables(sqlite::STREAM_EVENTS, "snapshots");
        Self {
            repository,
            file,
            upcasters,
        }
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
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let read = move |conn: &Connection| sqlite::read_receipts(conn, &stream, &ids);
        Ok(self.file.read(read).await?)
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
        let events = match usize::try_from(version.0) {
            Ok(0) | Err(_) => self.repository.get_events::<A>(id.as_str()).await,
            Ok(last) => self.repository.get_last_events::<A>(id.as_str(), last).await,
        };
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
