//! Reads, as SQL.
//!
//! A page needs no look for gaps: positions are given out under a lock that is held until the commit, so that whatever
//! snapshot sees a position sees all below it.

use std::collections::HashMap;
use std::sync::Arc;

use database::DatabaseError;
use event_schemas::{
    AggregateType, CommandId, Position, RecordedEvent, StreamId, Timestamp, Upcasters, Version,
};
use futures_util::{Stream, TryStreamExt as _};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Row as _, query, query_scalar};

use crate::command::Fingerprint;
use crate::journal::StoredReceipt;
use crate::row::{MAX_PAGE_BYTES, StoredRow, sql_int};
use crate::store::Page;
use crate::{RawEvent, ReadError, Slice};

/// Rows that one statement gives: what it has sent beyond [`MAX_PAGE_BYTES`] is thrown away, and that stays bounded too.
const ROWS_PER_STATEMENT: usize = 1_000;

const BY_POSITION: &str =
    "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM events WHERE position > $1 ORDER BY position LIMIT $2";

const BY_TYPE: &str = "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM events WHERE position > $1 AND position <= $2 AND aggregate_type = ANY($3) ORDER BY position";

const BY_STREAM: &str = "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version,
        payload, metadata, recorded_at
    FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > $3 AND sequence <= $4
    ORDER BY sequence LIMIT $5";

/// The receipts under pairs of a stream and a command id, with the pair's number, from 0.
pub(super) const RECEIPTS: &str =
    "SELECT k.number - 1, c.last_sequence, c.position, c.fingerprint_key, c.fingerprint
    FROM UNNEST($1::text[], $2::text[], $3::bytea[])
        WITH ORDINALITY AS k (aggregate_type, aggregate_id, command_id, number)
    JOIN commands AS c USING (aggregate_type, aggregate_id, command_id)";

pub(crate) async fn read_head(pool: &PgPool) -> Result<Position, DatabaseError> {
    let position: i64 = query_scalar("SELECT position FROM log_head")
        .fetch_one(pool)
        .await?;
    Ok(Position(position.unsigned_abs()))
}

pub(crate) async fn read_page(
    pool: &PgPool,
    upcasters: &Upcasters,
    after: Position,
    max: usize,
) -> Result<Page, DatabaseError> {
    let mut page = Page {
        entries: Vec::new(),
        head: after,
    };
    each_by_position(pool, after, max, |row| {
        page.head = row.position;
        page.entries.push(row.entry(upcasters));
    })
    .await?;
    Ok(page)
}

pub(crate) async fn read_raw_page(
    pool: &PgPool,
    after: Position,
    max: usize,
) -> Result<Vec<RawEvent>, DatabaseError> {
    let mut events = Vec::new();
    each_by_position(pool, after, max, |row| {
        events.push(row.to_raw());
    })
    .await?;
    Ok(events)
}

/// Gives `see` up to `max` rows after `after`, fewer only at the head or after [`MAX_PAGE_BYTES`] of payload.
async fn each_by_position(
    pool: &PgPool,
    mut after: Position,
    max: usize,
    mut see: impl FnMut(&StoredRow<'_>),
) -> Result<(), DatabaseError> {
    let (mut left, mut bytes) = (max, 0);
    while left > 0 {
        let limit = left.min(ROWS_PER_STATEMENT);
        let mut rows = query(BY_POSITION)
            .bind(sql_int(after.0))
            .bind(sql_int(limit as u64))
            .fetch(pool);
        let mut seen = 0;
        while bytes < MAX_PAGE_BYTES
            && let Some(row) = rows.try_next().await?
        {
            let row = columns(&row)?;
            (after, seen) = (row.position, seen + 1);
            bytes += row.payload.len();
            see(&row);
        }
        left -= seen;
        if seen < limit {
            return Ok(());
        }
    }
    Ok(())
}

pub(crate) async fn read_slice(
    pool: &PgPool,
    upcasters: &Upcasters,
    after: Position,
    up_to: Position,
    types: &[AggregateType],
) -> Result<Slice, DatabaseError> {
    let names: Vec<&str> = types.iter().map(|kind| kind.as_str()).collect();
    let mut rows = query(BY_TYPE)
        .bind(sql_int(after.0))
        .bind(sql_int(up_to.0))
        .bind(names)
        .fetch(pool);
    let mut slice = Slice {
        entries: Vec::new(),
        up_to,
    };
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let row = columns(&row)?;
        bytes += row.payload.len();
        slice.entries.push(row.entry(upcasters));
        if bytes >= MAX_PAGE_BYTES {
            slice.up_to = row.position;
            break;
        }
    }
    Ok(slice)
}

pub(crate) async fn read_stream(
    pool: &PgPool,
    upcasters: &Upcasters,
    stream: &StreamId,
    after: Version,
    up_to: Option<Version>,
) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
    let kind = stream.aggregate_type.as_str();
    let mut rows = by_stream(pool, kind, stream.aggregate_id.as_str(), after, up_to, i64::MAX);
    let mut events = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(DatabaseError::from)? {
        let event = columns(&row)
            .map_err(DatabaseError::from)?
            .decode(upcasters)
            .map_err(|unreadable| ReadError::Unreadable(Box::new(unreadable)))?;
        events.push(Arc::new(event));
    }
    Ok(events)
}

pub(crate) async fn read_raw_stream(
    pool: &PgPool,
    aggregate_type: &str,
    aggregate_id: &str,
    after: Version,
    max: usize,
) -> Result<Vec<RawEvent>, DatabaseError> {
    let limit = sql_int(max as u64);
    let mut rows = by_stream(pool, aggregate_type, aggregate_id, after, None, limit);
    let mut events = Vec::new();
    while let Some(row) = rows.try_next().await? {
        events.push(columns(&row)?.to_raw());
    }
    Ok(events)
}

fn by_stream<'q>(
    pool: &'q PgPool,
    aggregate_type: &'q str,
    aggregate_id: &'q str,
    after: Version,
    up_to: Option<Version>,
    limit: i64,
) -> impl Stream<Item = Result<PgRow, sqlx::Error>> + Send + Unpin + 'q {
    query(BY_STREAM)
        .bind(aggregate_type)
        .bind(aggregate_id)
        .bind(sql_int(after.0))
        .bind(up_to.map_or(i64::MAX, |version| sql_int(version.0)))
        .bind(limit)
        .fetch(pool)
}

/// The receipts that there are under `ids`.
pub(crate) async fn read_receipts(
    pool: &PgPool,
    stream: &StreamId,
    ids: &[CommandId],
) -> Result<HashMap<CommandId, StoredReceipt>, DatabaseError> {
    let bytes: Vec<_> = ids.iter().map(|id| id.as_uuid().as_bytes().as_slice()).collect();
    let rows = query(RECEIPTS)
        .bind(vec![stream.aggregate_type.as_str(); ids.len()])
        .bind(vec![stream.aggregate_id.as_str(); ids.len()])
        .bind(bytes)
        .fetch_all(pool)
        .await?;
    let mut receipts = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (number, stored) = receipt(row)?;
        if let Some(id) = ids.get(number) {
            receipts.insert(*id, stored);
        }
    }
    Ok(receipts)
}

/// A row of [`RECEIPTS`].
pub(super) fn receipt(row: &PgRow) -> Result<(usize, StoredReceipt), sqlx::Error> {
    let key_id: Option<&str> = row.try_get(3)?;
    let mac: Option<&[u8]> = row.try_get(4)?;
    let mac: Option<[u8; 32]> = mac
        .map(TryFrom::try_from)
        .transpose()
        .map_err(|_| sqlx::Error::Decode("a fingerprint has 32 bytes".into()))?;
    let stored = StoredReceipt {
        version: Version(unsigned(row, 1)?),
        position: Position(unsigned(row, 2)?),
        fingerprint: key_id.zip(mac).map(|(key_id, mac)| Fingerprint {
            key_id: key_id.into(),
            mac,
        }),
    };
    Ok((unsigned(row, 0)? as usize, stored))
}

/// Nothing is stored below zero.
pub(super) fn unsigned(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    let signed: i64 = row.try_get(column)?;
    u64::try_from(signed).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A row's columns, where the statements above have them.
fn columns(row: &PgRow) -> Result<StoredRow<'_>, sqlx::Error> {
    Ok(StoredRow {
        position: Position(unsigned(row, 0)?),
        aggregate_type: row.try_get(1)?,
        aggregate_id: row.try_get(2)?,
        version: Version(unsigned(row, 3)?),
        event_type: row.try_get(4)?,
        event_version: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
        recorded_at: Timestamp::from_microsecond(row.try_get(8)?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}
