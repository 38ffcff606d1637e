//! Where documents are kept: SQLite in the embedded profile, MongoDB in the cluster.

#[cfg(feature = "cluster")]
mod mongo;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::LogIdentity;
#[cfg(feature = "cluster")]
pub(crate) use mongo::MongoViewStore;
#[cfg(feature = "cluster")]
pub use mongo::{Mongo, MongoError, MongoOptions};
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
    name: String,
    statements: sql::Statements,
}

impl Table {
    pub(crate) fn new(schema: ViewSchema, generation: u32) -> Self {
        let statements = sql::Statements::new(&schema, generation);
        Self {
            schema,
            generation,
            name: statements.table.clone(),
            statements,
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
    /// The generation of the view that is read, and how far it has come: the stored one, if it was folded by this
    /// version of the view from this log, else a new one, empty. Generations are never numbered twice.
    pub(crate) async fn serving(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
    ) -> Result<(Arc<Table>, Checkpoint), ViewError> {
        match self {
            Self::Sqlite(store) => store.serving(schema, log).await,
            #[cfg(feature = "cluster")]
            Self::Mongo(store) => store.serving(schema, log).await,
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
    #[cfg(feature = "cluster")]
    pub(crate) async fn still_there(&self, tables: &[Arc<Table>]) -> Result<(), ViewError> {
        match self {
            // A write says so.
            Self::Sqlite(_) => Ok(()),
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
