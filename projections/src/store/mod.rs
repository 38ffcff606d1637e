//! Where documents are kept: SQLite in the embedded profile, MongoDB in the cluster.

#[cfg(feature = "cluster")]
mod mongo;
mod row;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position, Timestamp};
#[cfg(feature = "cluster")]
pub(crate) use mongo::MongoViewStore;
#[cfg(feature = "cluster")]
pub use mongo::{Mongo, MongoError, MongoOptions};
pub(crate) use row::{GenerationRow, Lease, Stage, begun, choose};
pub(crate) use sqlite::SqliteViewStore;

use crate::error::ViewError;
use crate::query::{After, Key, KeyValue, Query};
use crate::view::{DocId, View};

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDocument {
    pub(crate) id: DocId,
    pub(crate) rev: u64,
    /// JSON.
    pub(crate) body: String,
}

/// A page of stored documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPage {
    pub(crate) documents: Vec<StoredDocument>,
    pub(crate) next: Option<After>,
}

/// What a store has to know of a view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ViewSchema {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) keys: &'static [Key],
    pub(crate) indexes: &'static [&'static [&'static str]],
}

impl ViewSchema {
    pub(crate) const fn of<V: View>() -> Self {
        Self {
            name: V::NAME,
            version: V::VERSION,
            keys: V::KEYS,
            indexes: V::INDEXES,
        }
    }
}

/// One generation of a view: where its documents are.
#[derive(Debug)]
pub struct Table {
    pub(crate) schema: ViewSchema,
    pub(crate) generation: u32,
    /// Folded by another version of the view than this binary's: read as far as that goes, and never written.
    pub(crate) outdated: bool,
    name: String,
    statements: sql::Statements,
}

impl Table {
    pub(crate) fn new(schema: ViewSchema, generation: u32) -> Self {
        let statements = sql::Statements::new(&schema, generation);
        Self {
            schema,
            generation,
            outdated: false,
            name: statements.table.clone(),
            statements,
        }
    }

    /// The one that `row` is of.
    pub(crate) fn of(schema: ViewSchema, row: &GenerationRow) -> Self {
        let table = match &row.incarnation {
            None => Self::new(schema, row.generation),
            #[cfg(feature = "cluster")]
            Some(incarnation) => Self::incarnation(schema, row.generation, incarnation),
            #[cfg(not(feature = "cluster"))]
            Some(_) => Self::new(schema, row.generation),
        };
        Self {
            outdated: row.version != schema.version,
            ..table
        }
    }

    /// One that somebody may drop, and another process make again, while this process runs: `incarnation` tells the two
    /// apart.
    #[cfg(feature = "cluster")]
    pub(crate) fn incarnation(schema: ViewSchema, generation: u32, incarnation: &str) -> Self {
        let table = Self::new(schema, generation);
        let name = format!("{}_{incarnation}", table.name);
        Self { name, ..table }
    }

    /// Of the table, `<view>_g<N>`, or of the collection, `<view>_g<N>_<incarnation>`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A document to store, if it is still the one that was folded on.
#[derive(Debug)]
pub(crate) struct DocumentWrite {
    pub(crate) id: DocId,
    /// The revision that was folded on; 0 for a document that was not there.
    pub(crate) expected: u64,
    /// None if they have not changed.
    pub(crate) keys: Option<Vec<KeyValue>>,
    pub(crate) body: Arc<str>,
}

/// What a batch of events made of one view.
#[derive(Debug)]
pub(crate) struct ViewWrites {
    pub(crate) table: Arc<Table>,
    pub(crate) documents: Vec<DocumentWrite>,
}

/// The documents that had moved, so were not written: for each view of the write, their places in its list.
pub(crate) type Moved = Vec<Vec<usize>>;

/// How far a view's documents have come, to be stored with them.
pub(crate) type Progress = Option<Checkpoint>;

/// The documents of all views. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) enum ViewStore {
    Sqlite(SqliteViewStore),
    #[cfg(feature = "cluster")]
    Mongo(MongoViewStore),
}

impl ViewStore {
    /// All generations of all views, whatever their log and version.
    pub(crate) async fn generations(&self) -> Result<Vec<GenerationRow>, ViewError> {
        match self {
            Self::Sqlite(store) => store.generations().await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.generations().await,
        }
    }

    /// The generation that this version of the view reads: see [`choose`]. If there is none, a new one, empty, which serves
    /// at once. Processes that start at the same time agree on it.
    pub(crate) async fn serving(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
    ) -> Result<GenerationRow, ViewError> {
        match self {
            Self::Sqlite(store) => store.serving(schema, log).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.serving(schema, log).await,
        }
    }

    /// The generation that was begun and is not read yet; if there is none, a new one, empty and without its indexes. Numbers
    /// are never given twice.
    pub(crate) async fn begin(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
        stage: Stage,
        lease: Option<Lease>,
    ) -> Result<GenerationRow, ViewError> {
        match self {
            Self::Sqlite(store) => store.begin(schema, log, stage, lease).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.begin(schema, log, stage, lease).await,
        }
    }

    /// Takes or renews the lease on `row`, and notes how far it has been built, of `target`. False if somebody else has it,
    /// or the generation is gone.
    pub(crate) async fn build(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        now: Timestamp,
        built: Position,
        target: Position,
    ) -> Result<bool, ViewError> {
        match self {
            Self::Sqlite(store) => store.build(row, lease, now, built, target).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.build(row, lease, now, built, target).await,
        }
    }

    /// The generation is built: makes its indexes, and has projectors feed it from now on. The lease stays.
    pub(crate) async fn follow(&self, table: &Arc<Table>, lease: &Lease) -> Result<bool, ViewError> {
        match self {
            Self::Sqlite(store) => store.follow(table, lease).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.follow(table, lease).await,
        }
    }

    /// Gives the lease on `row` back; `stage` says what comes of it, if that is known.
    pub(crate) async fn release(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        stage: Option<Stage>,
    ) -> Result<(), ViewError> {
        match self {
            Self::Sqlite(store) => store.release(row, lease, stage).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.release(row, lease, stage).await,
        }
    }

    /// A generation that differs from what is read is to be looked at again.
    pub(crate) async fn unblock(&self, row: &GenerationRow) -> Result<(), ViewError> {
        match self {
            Self::Sqlite(store) => store.unblock(row).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.unblock(row).await,
        }
    }

    /// This generation is the one to be read from now on, by processes of its version and later ones. False if it is gone,
    /// or a newer one of its version is read already.
    pub(crate) async fn promote(&self, row: &GenerationRow, now: Timestamp) -> Result<bool, ViewError> {
        match self {
            Self::Sqlite(store) => store.promote(row, now).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.promote(row, now).await,
        }
    }

    /// Deletes a generation with its documents; false if it was not there, or is read by now.
    pub(crate) async fn drop_generation(&self, row: &GenerationRow) -> Result<bool, ViewError> {
        match self {
            Self::Sqlite(store) => store.drop_generation(row).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.drop_generation(row).await,
        }
    }

    /// The documents that are there, of those asked for, in any order.
    pub(crate) async fn load(
        &self,
        table: &Arc<Table>,
        ids: Vec<DocId>,
    ) -> Result<Vec<StoredDocument>, ViewError> {
        let found = self.load_all(vec![(Arc::clone(table), ids)]).await?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// As [`Self::load`], for several views.
    pub(crate) async fn load_all(
        &self,
        wanted: Vec<(Arc<Table>, Vec<DocId>)>,
    ) -> Result<Vec<Vec<StoredDocument>>, ViewError> {
        match self {
            Self::Sqlite(store) => store.load_all(wanted).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.load_all(wanted).await,
        }
    }

    /// A page of a list.
    pub(crate) async fn find(&self, table: &Arc<Table>, query: &Query) -> Result<StoredPage, ViewError> {
        match self {
            Self::Sqlite(store) => store.find(table, query).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.find(table, query).await,
        }
    }

    /// Up to `limit` documents after the id `after`, by id, with their keys.
    pub(crate) async fn scan(
        &self,
        table: &Arc<Table>,
        after: String,
        limit: usize,
    ) -> Result<Vec<(StoredDocument, Vec<KeyValue>)>, ViewError> {
        match self {
            Self::Sqlite(store) => store.scan(table, after, limit).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.scan(table, &after, limit).await,
        }
    }

    /// How many documents there are.
    pub(crate) async fn count(&self, table: &Arc<Table>) -> Result<u64, ViewError> {
        match self {
            Self::Sqlite(store) => store.count(table).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => Ok(store.count(table).await?),
        }
    }

    /// Stores documents of several views, each if it has not moved since it was read, and says which have moved.
    ///
    /// Where the store has transactions, `progress` becomes durable with them if none has moved. Where it has not,
    /// [`Self::advance`] stores it, and has to be called after this has stored everything.
    pub(crate) async fn write(
        &self,
        writes: Arc<Vec<ViewWrites>>,
        progress: Progress,
    ) -> Result<Moved, ViewError> {
        match self {
            Self::Sqlite(store) => Ok(store.write(writes, progress).await?),
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => Ok(store.write(&writes).await?),
        }
    }

    /// Stores how far the documents of these views have come, where [`Self::write`] could not.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, reason = "only servers are waited for")
    )]
    pub(crate) async fn advance(
        &self,
        tables: &[Arc<Table>],
        progress: &Checkpoint,
    ) -> Result<(), ViewError> {
        match self {
            // Stored with the documents.
            Self::Sqlite(_) => {
                let _ = (tables, progress);
                Ok(())
            }
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => Ok(store.advance(tables, progress).await?),
        }
    }

    /// Fails if one of these generations is gone: somebody dropped it, and whatever is in memory of it is worth nothing.
    pub(crate) async fn still_there(&self, tables: &[Arc<Table>]) -> Result<(), ViewError> {
        match self {
            Self::Sqlite(store) => store.still_there(tables).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => Ok(store.still_there(tables).await?),
        }
    }

    /// How far the documents have come, as stored.
    pub(crate) async fn reached(
        &self,
        table: &Arc<Table>,
        log: LogIdentity,
    ) -> Result<Checkpoint, ViewError> {
        match self {
            Self::Sqlite(store) => store.reached(table, log).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => Ok(store.reached(table, log).await?),
        }
    }
}
