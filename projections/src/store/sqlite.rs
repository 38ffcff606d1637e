//! Documents in SQLite: a table per generation of a view, in a file of its own, so that views never block the log.

use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params_from_iter};
use sqlite_file::{SqliteError, SqliteFile};

use super::{
    DocumentWrite, GenerationRow, Lease, Moved, Progress, Stage, StoredDocument, StoredPage, Table,
    ViewSchema, ViewWrites, begun, choose, sql,
};
use crate::error::ViewError;
use crate::query::{After, KeyValue, Query};
use crate::view::DocId;

const STEPS: &[&str] = &[
    "CREATE TABLE generations (
     view TEXT NOT NULL,
     generation INTEGER NOT NULL,
     version INTEGER NOT NULL,
     log_id TEXT NOT NULL,
     epoch INTEGER NOT NULL,
     position INTEGER NOT NULL,
     serving INTEGER NOT NULL,
     PRIMARY KEY (view, generation)
 ) STRICT, WITHOUT ROWID",
    "ALTER TABLE generations ADD COLUMN stage TEXT NOT NULL DEFAULT 'following';
 ALTER TABLE generations ADD COLUMN target INTEGER NOT NULL DEFAULT 0;
 ALTER TABLE generations ADD COLUMN builder TEXT;
 ALTER TABLE generations ADD COLUMN builder_until INTEGER;
 ALTER TABLE generations ADD COLUMN promoted_at INTEGER;
 CREATE TABLE generation_numbers (
     view TEXT NOT NULL PRIMARY KEY,
     last INTEGER NOT NULL
 ) STRICT, WITHOUT ROWID;
 INSERT INTO generation_numbers SELECT view, max(generation) FROM generations GROUP BY view",
];

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

    /// As [`super::ViewStore::generations`].
    pub(crate) async fn generations(&self) -> Result<Vec<GenerationRow>, ViewError> {
        Ok(self.file.read(generations).await?)
    }

    /// As [`super::ViewStore::serving`]. Generations of another log or epoch are dropped: nobody can read them again.
    pub(crate) async fn serving(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
    ) -> Result<GenerationRow, ViewError> {
        Ok(self.file.write(move |conn| serving(conn, &schema, log)).await?)
    }

    /// As [`super::ViewStore::begin`].
    pub(crate) async fn begin(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
        stage: Stage,
        lease: Option<Lease>,
    ) -> Result<GenerationRow, ViewError> {
        let begin = move |conn: &Connection| {
            if let Some(row) = begun(&generations(conn)?, &schema, log) {
                return Ok(row.clone());
            }
            let row = insert(conn, &schema, log, stage, lease)?;
            conn.execute_batch(&Table::of(schema, &row).statements.create)?;
            Ok::<_, SqliteError>(row)
        };
        Ok(self.file.write(begin).await?)
    }

    /// As [`super::ViewStore::build`].
    pub(crate) async fn build(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        now: Timestamp,
        built: Position,
        target: Position,
    ) -> Result<bool, ViewError> {
        let (view, generation, lease) = (row.view.clone(), row.generation, lease.clone());
        let note = move |conn: &Connection| {
            let mut update = conn.prepare_cached(
                "UPDATE generations SET position = max(position, ?3), target = max(target, ?4),
                     builder = ?5, builder_until = ?6, stage = CASE stage WHEN 'requested' THEN 'building' ELSE stage END
                 WHERE view = ?1 AND generation = ?2
                     AND (builder IS NULL OR builder = ?5 OR builder_until <= ?7)",
            )?;
            let rows = update.execute((
                view,
                generation,
                built.0.cast_signed(),
                target.0.cast_signed(),
                lease.holder,
                lease.until.as_microsecond(),
                now.as_microsecond(),
            ))?;
            Ok::<_, SqliteError>(rows == 1)
        };
        Ok(self.file.write(note).await?)
    }

    /// As [`super::ViewStore::follow`].
    pub(crate) async fn follow(&self, table: &Arc<Table>, lease: &Lease) -> Result<bool, ViewError> {
        let (table, holder) = (Arc::clone(table), lease.holder.clone());
        let follow = move |conn: &Connection| {
            let rows = conn.execute(
                "UPDATE generations SET stage = 'following'
                 WHERE view = ?1 AND generation = ?2 AND stage = 'building' AND builder = ?3",
                (table.schema.name, table.generation, holder),
            )?;
            if rows == 1 {
                conn.execute_batch(&table.statements.index)?;
            }
            Ok::<_, SqliteError>(rows == 1)
        };
        Ok(self.file.write(follow).await?)
    }

    /// As [`super::ViewStore::release`].
    pub(crate) async fn release(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        stage: Option<Stage>,
    ) -> Result<(), ViewError> {
        let (view, generation, holder) = (row.view.clone(), row.generation, lease.holder.clone());
        let release = move |conn: &Connection| {
            let mut update = conn.prepare_cached(
                "UPDATE generations SET stage = coalesce(?4, stage), builder = NULL, builder_until = NULL
                 WHERE view = ?1 AND generation = ?2 AND builder = ?3",
            )?;
            update.execute((view, generation, holder, stage.map(Stage::name)))?;
            Ok::<_, SqliteError>(())
        };
        Ok(self.file.write(release).await?)
    }

    /// As [`super::ViewStore::unblock`].
    pub(crate) async fn unblock(&self, row: &GenerationRow) -> Result<(), ViewError> {
        let (view, generation) = (row.view.clone(), row.generation);
        let unblock = move |conn: &Connection| {
            conn.execute(
                "UPDATE generations SET stage = 'following' WHERE view = ?1 AND generation = ?2 AND stage = 'blocked'",
                (view, generation),
            )?;
            Ok::<_, SqliteError>(())
        };
        Ok(self.file.write(unblock).await?)
    }

    /// As [`super::ViewStore::promote`].
    pub(crate) async fn promote(&self, row: &GenerationRow, now: Timestamp) -> Result<bool, ViewError> {
        let row = row.clone();
        let promote = move |conn: &Connection| {
            let rows = generations(conn)?;
            let ours = |other: &&GenerationRow| other.view == row.view && other.version == row.version;
            let there = rows
                .iter()
                .filter(ours)
                .any(|other| other.generation == row.generation);
            let newer = |other: &GenerationRow| other.serving && other.generation > row.generation;
            if !there || rows.iter().filter(ours).any(newer) {
                return Ok(false);
            }
            let mut update = conn.prepare_cached(
                "UPDATE generations SET serving = (generation = ?2),
                     promoted_at = CASE generation WHEN ?2 THEN ?4 ELSE promoted_at END
                 WHERE view = ?1 AND version = ?3",
            )?;
            update.execute((row.view, row.generation, row.version, now.as_microsecond()))?;
            Ok::<_, SqliteError>(true)
        };
        Ok(self.file.write(promote).await?)
    }

    /// As [`super::ViewStore::drop_generation`].
    pub(crate) async fn drop_generation(&self, row: &GenerationRow) -> Result<bool, ViewError> {
        let row = row.clone();
        let drop = move |conn: &Connection| {
            let rows = generations(conn)?;
            let same = |other: &&GenerationRow| other.view == row.view && other.generation == row.generation;
            match rows.iter().find(same) {
                Some(now) if now.serving == row.serving => drop_generation(conn, &row.view, row.generation),
                Some(_) | None => Ok(false),
            }
        };
        Ok(self.file.write(drop).await?)
    }

    /// As [`super::ViewStore::still_there`].
    pub(crate) async fn still_there(&self, tables: &[Arc<Table>]) -> Result<(), ViewError> {
        let there = self.generations().await?;
        let is_there = |table: &Table| {
            let mut rows = there.iter();
            rows.any(|row| row.view == table.schema.name && row.generation == table.generation)
        };
        match tables.iter().find(|table| !is_there(table)) {
            None => Ok(()),
            Some(gone) => Err(ViewError::Gone {
                view: gone.schema.name,
                generation: gone.generation,
            }),
        }
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

    /// As [`super::ViewStore::count`].
    pub(crate) async fn count(&self, table: &Table) -> Result<u64, ViewError> {
        let sql = format!("SELECT count(*) FROM {}", table.name());
        let count = move |conn: &Connection| {
            Ok::<_, SqliteError>(conn.query_row(&sql, [], |row| row.get::<_, i64>(0))?)
        };
        Ok(self.file.read(count).await?.cast_unsigned())
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

fn generations(conn: &Connection) -> Result<Vec<GenerationRow>, SqliteError> {
    let mut select = conn.prepare_cached(
        "SELECT view, generation, version, log_id, epoch, position, serving, stage, target, builder, builder_until,
             promoted_at
         FROM generations ORDER BY view, generation",
    )?;
    let mut rows = select.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(generation_row(row)?);
    }
    Ok(found)
}

fn generation_row(row: &Row<'_>) -> Result<GenerationRow, SqliteError> {
    let wrong = |message: String| SqliteError::Sql { code: 0, message };
    let log = LogIdentity {
        log_id: row
            .get::<_, String>(3)?
            .parse()
            .map_err(|_| wrong("a generation of a log without a name".to_owned()))?,
        epoch: row.get::<_, i64>(4)?.cast_unsigned(),
    };
    let time = |micros| Timestamp::from_microsecond(micros).map_err(|error| wrong(error.to_string()));
    let lease = match (row.get::<_, Option<String>>(9)?, row.get::<_, Option<i64>>(10)?) {
        (Some(holder), Some(until)) => Some(Lease {
            holder,
            until: time(until)?,
        }),
        _ => None,
    };
    Ok(GenerationRow {
        view: row.get(0)?,
        generation: row.get(1)?,
        version: row.get(2)?,
        reached: Checkpoint::at(log, Position(row.get::<_, i64>(5)?.cast_unsigned())),
        serving: row.get(6)?,
        stage: row.get::<_, String>(7)?.parse().map_err(wrong)?,
        target: Position(row.get::<_, i64>(8)?.cast_unsigned()),
        lease,
        promoted_at: row.get::<_, Option<i64>>(11)?.map(time).transpose()?,
        incarnation: None,
    })
}

fn serving(conn: &Connection, schema: &ViewSchema, log: LogIdentity) -> Result<GenerationRow, SqliteError> {
    let rows = generations(conn)?;
    let foreign = |row: &&GenerationRow| row.view == schema.name && row.reached.log != log;
    for row in rows.iter().filter(foreign) {
        tracing::info!(
            view = row.view,
            generation = row.generation,
            "folded from another log: dropped"
        );
        drop_generation(conn, &row.view, row.generation)?;
    }
    if let Some(row) = choose(&rows, schema, log) {
        return Ok(row.clone());
    }
    let row = insert(conn, schema, log, Stage::Following, None)?;
    conn.execute(
        "UPDATE generations SET serving = 1 WHERE view = ?1 AND generation = ?2",
        (&row.view, row.generation),
    )?;
    let table = Table::of(*schema, &row);
    conn.execute_batch(&table.statements.create)?;
    conn.execute_batch(&table.statements.index)?;
    Ok(GenerationRow { serving: true, ..row })
}

/// A row for a new generation.
fn insert(
    conn: &Connection,
    schema: &ViewSchema,
    log: LogIdentity,
    stage: Stage,
    lease: Option<Lease>,
) -> Result<GenerationRow, SqliteError> {
    // Kept apart from the rows: a number must not come again when its row is gone, or what is cached and parked under it
    // would be taken for the new one's.
    let generation: u32 = conn.query_row(
        "INSERT INTO generation_numbers (view, last) VALUES (?1, 1)
         ON CONFLICT (view) DO UPDATE SET last = last + 1 RETURNING last",
        [schema.name],
        |row| row.get(0),
    )?;
    conn.execute(
        "INSERT INTO generations (view, generation, version, log_id, epoch, position, serving, stage, builder, builder_until)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6, ?7, ?8)",
        (
            schema.name,
            generation,
            schema.version,
            log.log_id.to_string(),
            log.epoch.cast_signed(),
            stage.name(),
            lease.as_ref().map(|lease| &lease.holder),
            lease.as_ref().map(|lease| lease.until.as_microsecond()),
        ),
    )?;
    Ok(GenerationRow {
        view: schema.name.to_owned(),
        generation,
        version: schema.version,
        stage,
        serving: false,
        reached: Checkpoint::at(log, Position(0)),
        target: Position(0),
        lease,
        promoted_at: None,
        incarnation: None,
    })
}

fn drop_generation(conn: &Connection, view: &str, generation: u32) -> Result<bool, SqliteError> {
    conn.execute_batch(&format!("DROP TABLE IF EXISTS {}", sql::table(view, generation)))?;
    let rows = conn.execute(
        "DELETE FROM generations WHERE view = ?1 AND generation = ?2",
        (view, generation),
    )?;
    Ok(rows == 1)
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
