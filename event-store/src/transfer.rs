//! The log as it leaves one database and comes into another: rows byte for byte, positions and receipts included.

use std::sync::Arc;

use database::{Database, DatabaseError, KeptRow, KeptTable, Row, Session, Value, insert_rows, params};
use event_schemas::{AggregateId, CommandId, LogIdentity, Position, Timestamp, Version};
use uuid::Uuid;

use crate::store::Store;
use crate::{Fingerprint, Log, RawEvent, ReadError};

/// A receipt as it is stored, also of a command that emitted nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReceipt {
    pub aggregate_type: String,
    pub aggregate_id: AggregateId,
    pub command_id: CommandId,
    pub fingerprint: Option<Fingerprint>,
    /// One beyond `last` if the command emitted nothing.
    pub first: Version,
    pub last: Version,
    pub position: Position,
    pub recorded_at: Timestamp,
}

/// All but whose it is.
const RECEIPT_COLUMNS: &str =
    "command_id, fingerprint_key, fingerprint, first_sequence, last_sequence, position, recorded_at";

/// `?1` to `?3` are the key after which the page begins. In SQLite receipts share a tree with the streams: the page begins
/// within its first stream, not at that stream's first receipt.
const RECEIPTS_SQLITE: &str =
    "SELECT aggregate_type, aggregate_id, command_id, fingerprint_key, fingerprint, first_sequence, last_sequence,
        position, recorded_at
    FROM stream_names AS n CROSS JOIN stream_rows AS s USING (stream)
    WHERE (aggregate_type, aggregate_id) >= (?1, ?2) AND sequence = 0 AND position <= ?4
        AND command_id > iif((aggregate_type, aggregate_id) = (?1, ?2), ?3, x'')
    ORDER BY aggregate_type, aggregate_id, command_id LIMIT ?5";

#[cfg(feature = "cluster")]
const RECEIPTS_POSTGRES: &str =
    "SELECT aggregate_type, aggregate_id, command_id, fingerprint_key, fingerprint, first_sequence, last_sequence,
        position, recorded_at
    FROM commands
    WHERE (aggregate_type, aggregate_id, command_id) > (?1, ?2, ?3) AND position <= ?4
    ORDER BY aggregate_type, aggregate_id, command_id LIMIT ?5";

impl Log {
    /// Which log this is and how far it goes, as the caller's transaction sees it.
    pub fn head_in(session: &Session<'_>) -> Result<(LogIdentity, Position), DatabaseError> {
        session.query_one("SELECT log_id, epoch, position FROM log_head", &[], |row| {
            let identity = LogIdentity {
                log_id: Uuid::from_bytes(row.get(0)?),
                epoch: row.get(1)?,
            };
            Ok((identity, Position(row.get(2)?)))
        })
    }

    /// Up to `max` receipts after the receipt `after`, by aggregate and command id, of commands up to position `up_to`.
    pub async fn read_raw_receipts(
        &self,
        after: Option<&RawReceipt>,
        up_to: Position,
        max: usize,
    ) -> Result<Vec<RawReceipt>, ReadError> {
        let database = self.database();
        let sql = match database {
            Database::Sqlite(_) => RECEIPTS_SQLITE,
            #[cfg(feature = "cluster")]
            Database::Postgres(_) => RECEIPTS_POSTGRES,
        };
        let after = after.map(|after| {
            let RawReceipt {
                aggregate_type,
                aggregate_id,
                command_id,
                ..
            } = after;
            (
                aggregate_type.clone(),
                aggregate_id.as_str().to_owned(),
                command_id.as_uuid().as_bytes().to_vec(),
            )
        });
        let (kind, id, command) = after.unwrap_or_default();
        let read = database.read(move |session| {
            let page = params![kind, id, command, up_to.0, max];
            session.query(sql, &page, receipt_from)
        });
        Ok(read.await?)
    }
}

fn receipt_from(row: &Row<'_>) -> Result<RawReceipt, DatabaseError> {
    let (key_id, mac): (Option<String>, Option<[u8; 32]>) = (row.get(3)?, row.get(4)?);
    Ok(RawReceipt {
        aggregate_type: row.get(0)?,
        aggregate_id: AggregateId::from(row.get::<String>(1)?.as_str()),
        command_id: CommandId::from_uuid(Uuid::from_bytes(row.get(2)?)),
        fingerprint: key_id.zip(mac).map(|(key_id, mac)| Fingerprint {
            key_id: Arc::from(key_id),
            mac,
        }),
        first: Version(row.get(5)?),
        last: Version(row.get(6)?),
        position: Position(row.get(7)?),
        recorded_at: Timestamp::from_microsecond(row.get(8)?)
            .map_err(|error| DatabaseError::unexpected("recorded_at", error.to_string()))?,
    })
}

/// Why a log cannot be brought in here.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the store is not empty: {0}")]
    NotEmpty(String),
    /// What came is not what the log should hold.
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// A log on its way into an empty database. Until [`LogImport::finish`], [`Log::open`] refuses it, and another import
/// begins it again: half a log is never served.
#[derive(Debug, Clone)]
pub struct LogImport {
    database: Database,
}

impl LogImport {
    /// Takes the database for an import, if it holds no log and nothing in `tables`. What an earlier import left undone
    /// is thrown away.
    pub async fn begin(
        database: &Database,
        tables: &'static [KeptTable],
        now: Timestamp,
    ) -> Result<Self, ImportError> {
        Store::make_tables(database).await?;
        let begin = database.write(move |session| {
            session.lock("event-store/import")?;
            if unfinished(session)? {
                clear(session, tables)?;
            } else {
                refuse_unless_empty(session, tables)?;
                let begun = "INSERT INTO unfinished_import (only_one, begun_at) VALUES (1, ?1)";
                session.execute(begun, &params![now.as_microsecond()])?;
            }
            Ok::<_, ImportError>(())
        });
        begin.await?;
        Ok(Self {
            database: database.clone(),
        })
    }

    /// Puts events in, at the positions that they name.
    pub async fn events(&self, events: Vec<RawEvent>) -> Result<(), ImportError> {
        let insert = self.database.write(move |session| {
            if session.is_sqlite() {
                let places = events
                    .iter()
                    .map(|event| {
                        let stream = stream_number(session, &event.aggregate_type, &event.aggregate_id)?;
                        Ok(place_of(stream, event))
                    })
                    .collect::<Result<Vec<KeptRow>, DatabaseError>>()?;
                let into = "stream_rows (stream, sequence, command_id, position)";
                insert_rows(session, into, 4, &places)?;
            }
            let rows: Vec<KeptRow> = events.into_iter().map(row_of).collect();
            let into = "events (position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
                payload, metadata, recorded_at)";
            insert_rows(session, into, 9, &rows)
        });
        Ok(insert.await?)
    }

    /// Puts receipts in.
    pub async fn receipts(&self, receipts: Vec<RawReceipt>) -> Result<(), ImportError> {
        let insert = self.database.write(move |session| {
            let mut rows: Vec<KeptRow> = Vec::with_capacity(receipts.len());
            for receipt in receipts {
                let mut row: KeptRow = if session.is_sqlite() {
                    let stream = stream_number(session, &receipt.aggregate_type, &receipt.aggregate_id)?;
                    vec![stream.into(), Value::Integer(0)]
                } else {
                    vec![
                        receipt.aggregate_type.clone().into(),
                        receipt.aggregate_id.as_str().to_owned().into(),
                    ]
                };
                row.extend(receipt_row(receipt));
                rows.push(row);
            }
            let into = if session.is_sqlite() {
                format!("stream_rows (stream, sequence, {RECEIPT_COLUMNS})")
            } else {
                format!("commands (aggregate_type, aggregate_id, {RECEIPT_COLUMNS})")
            };
            insert_rows(session, &into, 9, &rows)
        });
        Ok(insert.await?)
    }

    /// Makes it the log `origin` in a new epoch, complete up to `head`. `also` is run in the same transaction, once it is
    /// certain that every event is there; it is given the log's new identity.
    pub async fn finish<F>(
        self,
        origin: LogIdentity,
        head: Position,
        now: Timestamp,
        also: F,
    ) -> Result<LogIdentity, ImportError>
    where
        F: FnOnce(&Session<'_>, LogIdentity) -> Result<(), DatabaseError> + Send + 'static,
    {
        let finish = self.database.write(move |session| {
            session.lock("event-store/import")?;
            if !unfinished(session)? {
                return Err(ImportError::Wrong(
                    "another import has taken the store".to_owned(),
                ));
            }
            let (count, last): (u64, Option<u64>) =
                session.query_one("SELECT count(*), max(position) FROM events", &[], |row| {
                    Ok::<_, DatabaseError>((row.get(0)?, row.get(1)?))
                })?;
            if count != head.0 || last.unwrap_or(0) != head.0 {
                return Err(ImportError::Wrong(format!(
                    "{count} events up to position {} arrived, {head} should have",
                    last.unwrap_or(0)
                )));
            }
            let identity = LogIdentity {
                epoch: next_epoch(origin.epoch, now),
                ..origin
            };
            session.execute(
                "UPDATE log_head SET log_id = ?1, epoch = ?2, position = ?3",
                &params![identity.log_id.as_bytes(), identity.epoch, head.0],
            )?;
            also(session, identity)?;
            session.execute("DELETE FROM unfinished_import", &[])?;
            Ok(identity)
        });
        finish.await
    }
}

/// The epoch of a log that goes on from a copy. The time makes it another one for every copy: two restores of one backup
/// are two histories, and what is left of the first one must not be taken for the second's.
pub(crate) fn next_epoch(epoch: u64, now: Timestamp) -> u64 {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    now.max(epoch.saturating_add(1))
}

/// Whether an import has begun and not finished.
pub(crate) fn unfinished(session: &Session<'_>) -> Result<bool, DatabaseError> {
    let begun = session.query_opt("SELECT 1 FROM unfinished_import", &[], |_| {
        Ok::<_, DatabaseError>(())
    })?;
    Ok(begun.is_some())
}

fn refuse_unless_empty(session: &Session<'_>, tables: &[KeptTable]) -> Result<(), ImportError> {
    let (identity, head) = Log::head_in(session)?;
    if head.0 > 0 {
        let text = format!("it holds the log {} with {head} events", identity.log_id);
        return Err(ImportError::NotEmpty(text));
    }
    let receipt = session.query_opt("SELECT 1 FROM commands LIMIT 1", &[], |_| {
        Ok::<_, DatabaseError>(())
    })?;
    if receipt.is_some() {
        return Err(ImportError::NotEmpty("it holds receipts of commands".to_owned()));
    }
    for table in tables {
        if !table.is_empty(session)? {
            return Err(ImportError::NotEmpty(format!(
                "it holds {}",
                table.name.replace('_', " ")
            )));
        }
    }
    Ok(())
}

fn clear(session: &Session<'_>, tables: &[KeptTable]) -> Result<(), DatabaseError> {
    session.execute("DELETE FROM events", &[])?;
    // A table in one database, a view in the other.
    if session.is_sqlite() {
        session.execute("DELETE FROM stream_rows", &[])?;
        session.execute("DELETE FROM stream_names", &[])?;
    } else {
        session.execute("DELETE FROM commands", &[])?;
    }
    tables.iter().try_for_each(|table| table.clear(session))
}

/// The number of a stream in SQLite, which it is given if it has none.
fn stream_number(
    session: &Session<'_>,
    aggregate_type: &str,
    aggregate_id: &AggregateId,
) -> Result<u64, DatabaseError> {
    let name = params![aggregate_type, aggregate_id.as_str()];
    let find = "SELECT stream FROM stream_names WHERE aggregate_type = ?1 AND aggregate_id = ?2";
    if let Some(stream) = session.query_opt(find, &name, |row| row.get(0))? {
        return Ok(stream);
    }
    let insert = "INSERT INTO stream_names (aggregate_type, aggregate_id) VALUES (?1, ?2) RETURNING stream";
    session.query_one(insert, &name, |row| row.get(0))
}

fn place_of(stream: u64, event: &RawEvent) -> KeptRow {
    vec![
        stream.into(),
        event.version.0.into(),
        Vec::new().into(),
        event.position.0.into(),
    ]
}

fn row_of(event: RawEvent) -> KeptRow {
    vec![
        event.position.0.into(),
        event.aggregate_type.into(),
        event.aggregate_id.as_str().to_owned().into(),
        event.version.0.into(),
        event.event_type.into(),
        event.event_version.into(),
        event.payload.into(),
        event.metadata.into(),
        event.recorded_at.as_microsecond().into(),
    ]
}

fn receipt_row(receipt: RawReceipt) -> KeptRow {
    let (key_id, mac) = match receipt.fingerprint {
        Some(fingerprint) => (fingerprint.key_id.to_string().into(), fingerprint.mac.into()),
        None => (Value::Null, Value::Null),
    };
    vec![
        receipt.command_id.as_uuid().as_bytes().to_vec().into(),
        key_id,
        mac,
        receipt.first.0.into(),
        receipt.last.0.into(),
        receipt.position.0.into(),
        receipt.recorded_at.as_microsecond().into(),
    ]
}
