//! Where documents are kept.

mod sqlite;

pub use sqlite::{SqliteViewStore, Table};

use crate::query::After;
use crate::view::DocId;

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    pub id: DocId,
    pub rev: u64,
    /// JSON.
    pub body: String,
}

/// A page of stored documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPage {
    pub documents: Vec<StoredDocument>,
    pub next: Option<After>,
}
