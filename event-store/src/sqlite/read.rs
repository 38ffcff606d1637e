//! Reads, as SQL.

use std::collections::HashMap;
use std::sync::Arc;

use event_schemas::{
    AggregateType, CommandId, Position, RecordedEvent, StreamId, Timestamp, Upcasters, Version,
};
use sqlite_file::SqliteError;
use sqlite_file::rusqlite::{Connection, Row, params};

use super::append::{RECEIPT, find_receipt};
use crate::journal::StoredReceipt;
use crate::row::{MAX_PAGE_BYTES, StoredRow, sql_int};
use crate::store::Page;
use crate::{RawEvent, ReadError, Slice};

const BY_POSITION: &str =
    "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM events WHERE position > ?1 ORDER BY position LIMIT ?2";

const BY_TYPE: &str = "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM events WHERE position > ?1 AND position <= ?2 AND aggregate_type IN (SELECT value FROM json_each(?3))
    ORDER BY position";

const BY_STREAM: &str = "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM stream_events WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence > ?3 AND sequence <= ?4
    ORDER BY sequence LIMIT ?5";

pub(crate) fn read_head(conn: &Connection) -> Result<Position, SqliteError> {
    let position = conn
        .prepare_cached("SELECT position FROM log_head")?
        .query_row([], |row| row.get(0))?;
    Ok(Position(position))
}

pub(crate) fn read_page(
    conn: &Connection,
    upcasters: &Upcasters,
    after: Position,
    max: usize,
) -> Result<Page, SqliteError> {
    let mut statement = conn.prepare_cached(BY_POSITION)?;
    let mut rows = statement.query((sql_int(after.0), sql_int(max as u64)))?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    while bytes < MAX_PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let row = columns(row)?;
        bytes += row.payload.len();
        entries.push(row.entry(upcasters));
    }
    Ok(Page {
        entries,
        head: read_head(conn)?,
    })
}

pub(crate) fn read_slice(
    conn: &Connection,
    upcasters: &Upcasters,
    after: Position,
    up_to: Position,
    types: &[AggregateType],
) -> Result<Slice, SqliteError> {
    let names: Vec<String> = types
        .iter()
        .map(|kind| format!("\"{}\"", kind.as_str()))
        .collect();
    let names = format!("[{}]", names.join(","));
    let mut statement = conn.prepare_cached(BY_TYPE)?;
    let mut rows = statement.query(params![sql_int(after.0), sql_int(up_to.0), names])?;
    let mut slice = Slice {
        entries: Vec::new(),
        up_to,
    };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let row = columns(row)?;
        bytes += row.payload.len();
        slice.entries.push(row.entry(upcasters));
        if bytes >= MAX_PAGE_BYTES {
            slice.up_to = row.position;
            break;
        }
    }
    Ok(slice)
}

pub(crate) fn read_stream(
    conn: &Connection,
    upcasters: &Upcasters,
    stream: &StreamId,
    after: Version,
    up_to: Option<Version>,
) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
    let mut statement = conn.prepare_cached(BY_STREAM).map_err(SqliteError::from)?;
    let key = params![
        stream.aggregate_type.as_str(),
        stream.aggregate_id.as_str(),
        sql_int(after.0),
        up_to.map_or(i64::MAX, |version| sql_int(version.0)),
        -1,
    ];
    let mut rows = statement.query(key).map_err(SqliteError::from)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(SqliteError::from)? {
        let event = columns(row)?
            .decode(upcasters)
            .map_err(|unreadable| ReadError::Unreadable(Box::new(unreadable)))?;
        events.push(Arc::new(event));
    }
    Ok(events)
}

pub(crate) fn read_raw_page(
    conn: &Connection,
    after: Position,
    max: usize,
) -> Result<Vec<RawEvent>, SqliteError> {
    let mut statement = conn.prepare_cached(BY_POSITION)?;
    let mut rows = statement.query((sql_int(after.0), sql_int(max as u64)))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < MAX_PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let row = columns(row)?;
        bytes += row.payload.len();
        events.push(row.to_raw());
    }
    Ok(events)
}

pub(crate) fn read_raw_stream(
    conn: &Connection,
    aggregate_type: &str,
    aggregate_id: &str,
    after: Version,
    max: usize,
) -> Result<Vec<RawEvent>, SqliteError> {
    let mut statement = conn.prepare_cached(BY_STREAM)?;
    let key = params![
        aggregate_type,
        aggregate_id,
        sql_int(after.0),
        i64::MAX,
        sql_int(max as u64)
    ];
    let mut rows = statement.query(key)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(columns(row)?.to_raw());
    }
    Ok(events)
}

/// The receipts that there are under `ids`.
pub(crate) fn read_receipts(
    conn: &Connection,
    stream: &StreamId,
    ids: &[CommandId],
) -> Result<HashMap<CommandId, StoredReceipt>, SqliteError> {
    let mut statement = conn.prepare_cached(RECEIPT)?;
    let mut receipts = HashMap::new();
    for id in ids {
        if let Some(stored) = find_receipt(&mut statement, stream, *id)? {
            receipts.insert(*id, stored);
        }
    }
    Ok(receipts)
}

/// A row's columns, where SQLite has them.
fn columns<'row>(row: &'row Row<'_>) -> Result<StoredRow<'row>, SqliteError> {
    let text = |column: usize| -> Result<&'row str, SqliteError> {
        let value = row.get_ref(column)?;
        value.as_str().map_err(|error| SqliteError::Sql {
            code: 0,
            message: error.to_string(),
        })
    };
    let micros = row.get(8)?;
    Ok(StoredRow {
        position: Position(row.get(0)?),
        aggregate_type: text(1)?,
        aggregate_id: text(2)?,
        version: Version(row.get(3)?),
        event_type: text(4)?,
        event_version: text(5)?,
        payload: text(6)?,
        metadata: text(7)?,
        recorded_at: Timestamp::from_microsecond(micros).map_err(|error| SqliteError::Sql {
            code: 0,
            message: error.to_string(),
        })?,
    })
}
