use sqlite_file::SqliteFile;

use super::{StoredDocument, StoredPage};
use crate::error::ViewError;
use crate::query::Query;
use crate::view::DocId;

/// Documents in SQLite tables.
#[derive(Debug, Clone)]
pub struct SqliteViewStore {
    file: SqliteFile,
}

/// One generation's table.
#[derive(Debug)]
pub struct Table {
    pub(crate) generation: u32,
}

impl SqliteViewStore {
    pub(crate) async fn load(
        &self,
        _table: &Table,
        _ids: Vec<DocId>,
    ) -> Result<Vec<StoredDocument>, ViewError> {
        let _ = &self.file;
        todo!()
    }

    pub(crate) async fn find(&self, _table: &Table, _query: &Query) -> Result<StoredPage, ViewError> {
        todo!()
    }
}
