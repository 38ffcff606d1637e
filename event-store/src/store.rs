//! The log's rows, in either database.

use std::collections::HashMap;
use std::sync::Arc;

use database::{Database, DatabaseError};
use event_schemas::{
    AggregateType, CommandId, LogIdentity, Position, RecordedEvent, StreamId, Upcasters, Version,
};
use sqlite_file::{Connection, SqliteError};

use crate::journal::StoredReceipt;
#[cfg(feature = "cluster")]
use crate::postgres;
use crate::sqlite;
use crate::transfer::unfinished;
use crate::{LogEntry, RawEvent, ReadError, Slice};

/// One page of the log.
pub(crate) struct Page {
    pub(crate) entries: Vec<LogEntry>,
    /// A position that the log is known to have reached, seen no earlier than the entries.
    pub(crate) head: Position,
}

/// What reads of the log are made of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store(Database);

impl Store {
    /// Creates the tables, and reads which log this is.
    pub(crate) async fn open(database: Database) -> Result<(Self, LogIdentity), ReadError> {
        let identity = Self::make_tables(&database).await?;
        if database.read(unfinished).await? {
            return Err(ReadError::Unfinished);
        }
        Ok((Self(database), identity))
    }

    /// Creates the tables if they are not there, and reads which log this is.
    pub(crate) async fn make_tables(database: &Database) -> Result<LogIdentity, DatabaseError> {
        match database {
            Database::Sqlite(file) => {
                database.migrate("event-store", sqlite::STEPS).await?;
                Ok(file.write(sqlite::create_head).await?)
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                database.migrate("event-store", postgres::STEPS).await?;
                postgres::identity(postgres.pool()).await
            }
        }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0
    }

    /// Whether other processes are expected to write.
    pub(crate) fn is_shared(&self) -> bool {
        match &self.0 {
            Database::Sqlite(_) => false,
            #[cfg(feature = "cluster")]
            Database::Postgres(_) => true,
        }
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) async fn begin_epoch(&self) -> Result<LogIdentity, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => Ok(file.write(sqlite::begin_epoch).await?),
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => postgres::begin_epoch(postgres.pool()).await,
        }
    }

    pub(crate) async fn head(&self) -> Result<Position, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => Ok(file.read(sqlite::read_head).await?),
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => postgres::read_head(postgres.pool()).await,
        }
    }

    pub(crate) async fn page(
        &self,
        upcasters: &Arc<Upcasters>,
        after: Position,
        max: usize,
    ) -> Result<Page, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => {
                let upcasters = Arc::clone(upcasters);
                let read = move |conn: &Connection| sqlite::read_page(conn, &upcasters, after, max);
                Ok(file.read(read).await?)
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => postgres::read_page(postgres.pool(), upcasters, after, max).await,
        }
    }

    pub(crate) async fn slice(
        &self,
        upcasters: &Arc<Upcasters>,
        after: Position,
        up_to: Position,
        types: &'static [AggregateType],
    ) -> Result<Slice, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => {
                let upcasters = Arc::clone(upcasters);
                let read = move |conn: &Connection| sqlite::read_slice(conn, &upcasters, after, up_to, types);
                Ok(file.read(read).await?)
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                postgres::read_slice(postgres.pool(), upcasters, after, up_to, types).await
            }
        }
    }

    pub(crate) async fn stream(
        &self,
        upcasters: &Arc<Upcasters>,
        stream: &StreamId,
        after: Version,
        up_to: Option<Version>,
    ) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
        match &self.0 {
            Database::Sqlite(file) => {
                let (stream, upcasters) = (stream.clone(), Arc::clone(upcasters));
                file.read(move |conn| sqlite::read_stream(conn, &upcasters, &stream, after, up_to))
                    .await
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                postgres::read_stream(postgres.pool(), upcasters, stream, after, up_to).await
            }
        }
    }

    pub(crate) async fn raw_page(&self, after: Position, max: usize) -> Result<Vec<RawEvent>, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => {
                let read = move |conn: &Connection| sqlite::read_raw_page(conn, after, max);
                Ok(file.read(read).await?)
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => postgres::read_raw_page(postgres.pool(), after, max).await,
        }
    }

    pub(crate) async fn raw_stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: Version,
        max: usize,
    ) -> Result<Vec<RawEvent>, DatabaseError> {
        match &self.0 {
            Database::Sqlite(file) => {
                let (kind, id) = (aggregate_type.to_owned(), aggregate_id.to_owned());
                let read = move |conn: &Connection| sqlite::read_raw_stream(conn, &kind, &id, after, max);
                Ok(file.read(read).await?)
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                postgres::read_raw_stream(postgres.pool(), aggregate_type, aggregate_id, after, max).await
            }
        }
    }

    /// The receipts that there are under `ids`.
    pub(crate) async fn receipts(
        &self,
        stream: StreamId,
        ids: Vec<CommandId>,
    ) -> Result<HashMap<CommandId, StoredReceipt>, DatabaseError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        match &self.0 {
            Database::Sqlite(file) => {
                let read = move |conn: &Connection| sqlite::read_receipts(conn, &stream, &ids);
                file.read(read).await.map_err(|error: SqliteError| error.into())
            }
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => postgres::read_receipts(postgres.pool(), &stream, &ids).await,
        }
    }
}
