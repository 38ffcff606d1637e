//! Where documents are kept.

mod sql;
mod sqlite;

use std::sync::Arc;

use event_bus::Checkpoint;
pub(crate) use sqlite::SqliteViewStore;

use crate::query::{After, Key, KeyValue};
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
    statements: sql::Statements,
}

impl Table {
    pub(crate) fn new(schema: ViewSchema, generation: u32) -> Self {
        Self {
            schema,
            generation,
            statements: sql::Statements::new(&schema, generation),
        }
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
