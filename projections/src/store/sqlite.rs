//! Documents in SQLite: a table per generation of a view, in a file of its own, so that views never block the log.

use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params_from_iter};
use sqlite_file::{SqliteError, SqliteFile};

use super::{DocumentWrite, Moved, Progress, StoredDocument, StoredPage, Table, ViewSchema, ViewWrites, sql};
use crate::error::ViewError;
use crate::query::{After, KeyValue, Query};
use crate::view::DocId;

const STEPS: &[&str] = &["CREATE TABLE generations (
     view TEXT NOT NULL,
     generation INTEGER NOT NULL,
     version INTEGER NOT NULL,
     log_id TEXT NOT NULL,
     epoch INTEGER NOT NULL,
     position INTEGER NOT NULL,
     serving INTEGER NOT NULL,
     PRIMARY KEY (view, generation)
 ) STRICT, WITHOUT ROWID"];

/// Documents in SQLite tables.
#[derive(Debug, Clone)]
pub(crate) struct SqliteViewStore {
    file: SqliteFile,
}

impl SqliteViewStore {
    /// Makes the tables that all views share. Blocks; meant for start-up.
    pub(crate) fn open(file: &SqliteFile) -> Result<Self, SqliteError> {
        file.migrate("views", STEPS)?;
        Ok(Self { file: file.clone() })
    }

    /// As [`super::ViewStore::serving`]. An old generation is dropped: only this process could be using it.
    pub(crate) async fn serving(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
    ) -> Result<(Arc<Table>, Checkpoint), ViewError> {
        let (generation, position) = self.file.write(move |conn| serving(conn, &schema, log)).await?;
        let table = Arc::new(Table::new(schema, generation));
        Ok((table, Checkpoint::at(log, position)))
    }

    /// How far the documents have come.
    pub(crate) async fn reached(&self, table: &Table, log: LogIdentity) -> Result<Checkpoint, ViewError> {
        let (view, generation) = (table.schema.name, table.generation);
        let position = self
            .file
            .read(move |conn| {
                let mut select = conn
                    .prepare_cached("SELECT position FROM generations WHERE view = ?1 AND generation = ?2")?;
                let position = select.query_row((view, generation), |row| row.get::<_, i64>(0));
                Ok::<_, SqliteError>(position.optional()?.unwrap_or_default())
            })
            .await?;
        Ok(Checkpoint::at(log, Position(position.cast_unsigned())))
    }

    /// As [`super::ViewStore::load_all`], in one read.
    pub(crate) async fn load_all(
        &self,
        wanted: Vec<(Arc<Table>, Vec<DocId>)>,
    ) -> Result<Vec<Vec<StoredDocument>>, ViewError> {
        let load = move |conn: &Connection| {
            wanted
                .into_iter()
                .map(|(table, ids)| load(conn, &table, ids))
                .collect::<Result<_, SqliteError>>()
        };
        Ok(self.file.read(load).await?)
    }

    /// A page of a list.
    pub(crate) async fn find(&self, table: &Arc<Table>, query: &Query) -> Result<StoredPage, ViewError> {
        let (sql, parameters) = sql::page(&table.schema, table.name(), query)?;
        let limit = query.limit;
        Ok(self
            .file
            .read(move |conn| find(conn, &sql, &parameters, limit))
            .await?)
    }

    /// Up to `limit` documents after the id `after`, by id, with their keys.
    pub(crate) async fn scan(
        &self,
        table: &Arc<Table>,
        after: String,
        limit: usize,
    ) -> Result<Vec<(StoredDocument, Vec<KeyValue>)>, ViewError> {
        let table = Arc::clone(table);
        Ok(self
            .file
            .read(move |conn| scan(conn, &table, &after, limit))
            .await?)
    }

    /// Stores documents of several views in one transaction, each if it has not moved since it was read. When none has,
    /// `progress` becomes durable with them; otherwise it stays, and says which have moved.
    pub(crate) async fn write(
        &self,
        writes: Arc<Vec<ViewWrites>>,
        progress: Progress,
    ) -> Result<Moved, SqliteError> {
        self.file.write(move |conn| write(conn, &writes, progress)).await
    }
}

fn serving(conn: &Connection, schema: &ViewSchema, log: LogIdentity) -> Result<(u32, Position), SqliteError> {
    let mut select = conn.prepare_cached(
        "SELECT generation, version, log_id, epoch, position FROM generations WHERE view = ?1 AND serving = 1",
    )?;
    let stored = select
        .query_row([schema.name], |row| {
            let generation: u32 = row.get(0)?;
            let version: u32 = row.get(1)?;
            let log_id: String = row.get(2)?;
            let epoch: i64 = row.get(3)?;
            let position: i64 = row.get(4)?;
            let same = version == schema.version
                && log_id == log.log_id.to_string()
                && epoch.cast_unsigned() == log.epoch;
            Ok((generation, same, Position(position.cast_unsigned())))
        })
        .optional()?;
    if let Some((generation, true, position)) = stored {
        return Ok((generation, position));
    }
    if let Some((generation, ..)) = stored {
        tracing::info!(
            view = schema.name,
            generation,
            "folded by another version or from another log: begins anew"
        );
        conn.execute_batch(&Table::new(*schema, generation).statements.drop)?;
    }
    // The old row goes only after the new one has its number.
    let generation: u32 = conn.query_row(
        "SELECT coalesce(max(generation), 0) + 1 FROM generations WHERE view = ?1",
        [schema.name],
        |row| row.get(0),
    )?;
    conn.execute(
        "DELETE FROM generations WHERE view = ?1 AND serving = 1",
        [schema.name],
    )?;
    conn.execute(
        "INSERT INTO generations (view, generation, version, log_id, epoch, position, serving)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 1)",
        (
            schema.name,
            generation,
            schema.version,
            log.log_id.to_string(),
            log.epoch.cast_signed(),
        ),
    )?;
    conn.execute_batch(&Table::new(*schema, generation).statements.create)?;
    Ok((generation, Position(0)))
}

fn load(conn: &Connection, table: &Table, ids: Vec<DocId>) -> Result<Vec<StoredDocument>, SqliteError> {
    let mut found = Vec::with_capacity(ids.len());
    let mut select = conn.prepare_cached(&table.statements.load)?;
    for id in ids {
        let row = select
            .query_row([id.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((rev, body)) = row {
            found.push(StoredDocument {
                id,
                rev: rev.cast_unsigned(),
                body,
            });
        }
    }
    Ok(found)
}

fn find(
    conn: &Connection,
    sql: &str,
    parameters: &[KeyValue],
    limit: usize,
) -> Result<StoredPage, SqliteError> {
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query(params_from_iter(parameters))?;
    let mut documents = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        if documents.len() == limit {
            // One more than asked: there is a next page, and it begins after what we have.
            return Ok(StoredPage {
                documents,
                next: last,
            });
        }
        let id: String = row.get(0)?;
        let key = key(row.get_ref(3)?)?;
        let (rev, body) = (row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?);
        documents.push(StoredDocument {
            id: DocId::from(id.as_str()),
            rev,
            body,
        });
        last = Some(After { key, id });
    }
    Ok(StoredPage {
        documents,
        next: None,
    })
}

fn scan(
    conn: &Connection,
    table: &Table,
    after: &str,
    limit: usize,
) -> Result<Vec<(StoredDocument, Vec<KeyValue>)>, SqliteError> {
    let mut select = conn.prepare_cached(&table.statements.scan)?;
    let rows = select.query_map((after, limit), |row| {
        let id: String = row.get(0)?;
        let stored = StoredDocument {
            id: DocId::from(id.as_str()),
            rev: row.get::<_, i64>(1)?.cast_unsigned(),
            body: row.get(2)?,
        };
        let keys = (0..table.schema.keys.len()).map(|index| key(row.get_ref(index + 3)?));
        Ok((stored, keys.collect::<Result<_, _>>()?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn key(value: ValueRef<'_>) -> Result<KeyValue, rusqlite::Error> {
    Ok(match value {
        ValueRef::Integer(value) => KeyValue::Integer(value),
        ValueRef::Text(_) => KeyValue::Text(value.as_str()?.to_owned()),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => KeyValue::Absent,
    })
}

fn write(conn: &Connection, writes: &[ViewWrites], progress: Progress) -> Result<Moved, SqliteError> {
    let mut moved: Moved = Vec::with_capacity(writes.len());
    for view in writes {
        let mut moved_here = Vec::new();
        for (index, document) in view.documents.iter().enumerate() {
            if !write_document(conn, &view.table, document)? {
                moved_here.push(index);
            }
        }
        moved.push(moved_here);
    }
    if let Some(checkpoint) = progress.filter(|_| moved.iter().all(Vec::is_empty)) {
        let position = checkpoint.position().0.cast_signed();
        let mut update = conn.prepare_cached(
            "UPDATE generations SET position = max(position, ?3) WHERE view = ?1 AND generation = ?2",
        )?;
        for view in writes {
            if update.execute((view.table.schema.name, view.table.generation, position))? == 0 {
                // Somebody dropped the generation; writing on would leave documents that nothing accounts for.
                let message = format!(
                    "{} generation {} is gone",
                    view.table.schema.name, view.table.generation
                );
                return Err(SqliteError::Sql { code: 0, message });
            }
        }
    }
    Ok(moved)
}

/// False if the document has moved.
fn write_document(conn: &Connection, table: &Table, document: &DocumentWrite) -> Result<bool, SqliteError> {
    let statements = &table.statements;
    let expected = document.expected.cast_signed();
    let (id, body) = (document.id.as_str(), &*document.body);
    let rows = match &document.keys {
        None => conn
            .prepare_cached(&statements.update_body)?
            .execute((id, expected, body))?,
        Some(keys) => {
            let sql = if document.expected == 0 {
                &statements.insert
            } else {
                &statements.update
            };
            let mut statement = conn.prepare_cached(sql)?;
            let fixed: [&dyn ToSql; 3] = [&id, &expected, &body];
            let keys = keys.iter().map(|key| key as &dyn ToSql);
            statement.execute(params_from_iter(fixed.into_iter().chain(keys)))?
        }
    };
    Ok(rows == 1)
}

impl ToSql for KeyValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Integer(value) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Absent => ToSqlOutput::Borrowed(ValueRef::Null),
        })
    }
}
