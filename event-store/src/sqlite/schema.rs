//! Tables of the log. What `sqlite-es` reads is among them, so its repository can read streams here.

use event_schemas::LogIdentity;
use sqlite_file::SqliteError;
use sqlite_file::rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

/// Its row is there from an import's first transaction to its last.
const UNFINISHED_IMPORT: &str = "CREATE TABLE unfinished_import (
    only_one INTEGER NOT NULL PRIMARY KEY CHECK (only_one = 1),
    begun_at INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT";

/// `events` is the log in the order in which it is written and read: `position` is the table's own key.
///
/// `streams` leads from an aggregate to its events (`sequence` from 1, no command id) and to the receipts of its
/// commands (`sequence` 0). They share one B-tree because each command touches both: beside each other they are mostly
/// one page to write, and pages written are what an append costs (a third less CPU than with an index and a table).
/// It comes with the aggregate first for the same reason: random command ids alone would touch pages all over.
///
/// `sqlite-es` reads `stream_events`, and cannot write to a view: the journal is the only writer.
pub(crate) const STEPS: &[&str] = &["
    CREATE TABLE events (
        position INTEGER PRIMARY KEY CHECK (position > 0),
        aggregate_type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        event_type TEXT NOT NULL,
        event_version TEXT NOT NULL,
        payload TEXT NOT NULL,
        metadata TEXT NOT NULL,
        recorded_at INTEGER NOT NULL -- microseconds since 1970, UTC
    ) STRICT;
    CREATE TABLE streams (
        aggregate_type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        command_id BLOB NOT NULL,
        position INTEGER NOT NULL,
        first_sequence INTEGER, -- last_sequence + 1 if the command emitted nothing
        last_sequence INTEGER,
        fingerprint_key TEXT,
        fingerprint BLOB,
        recorded_at INTEGER,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence, command_id),
        CHECK ((sequence > 0) = (command_id = x''))
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW stream_events AS
        SELECT s.aggregate_type, s.aggregate_id, s.sequence, e.event_type, e.event_version, e.payload, e.metadata,
            e.position, e.recorded_at
        FROM streams AS s CROSS JOIN events AS e ON e.position = s.position
        WHERE s.sequence > 0;
    CREATE VIEW commands AS
        SELECT aggregate_type, aggregate_id, command_id, fingerprint_key, fingerprint, first_sequence, last_sequence,
            position, recorded_at
        FROM streams WHERE sequence = 0;
    CREATE TABLE log_head (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        log_id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;
", UNFINISHED_IMPORT];

/// Reads which log this is; a new one is named by SQLite's own randomness.
pub(crate) fn create_head(conn: &Connection) -> Result<LogIdentity, SqliteError> {
    if let Some(identity) = identity(conn)? {
        return Ok(identity);
    }
    let random: [u8; 16] = conn.query_row("SELECT randomblob(16)", [], |row| row.get(0))?;
    let log_id = uuid::Builder::from_random_bytes(random).into_uuid();
    conn.execute(
        "INSERT INTO log_head (only, log_id, epoch, position) VALUES (1, ?1, 1, 0)",
        [log_id.as_bytes()],
    )?;
    Ok(LogIdentity { log_id, epoch: 1 })
}

#[cfg(any(test, feature = "conformance"))]
pub(crate) fn begin_epoch(conn: &Connection) -> Result<LogIdentity, SqliteError> {
    conn.execute("UPDATE log_head SET epoch = epoch + 1", [])?;
    identity(conn)?.ok_or_else(|| SqliteError::Sql {
        code: 0,
        message: "the log has no head".to_owned(),
    })
}

fn identity(conn: &Connection) -> Result<Option<LogIdentity>, SqliteError> {
    let row = conn
        .query_row("SELECT log_id, epoch FROM log_head", [], |row| {
            Ok(LogIdentity {
                log_id: Uuid::from_bytes(row.get(0)?),
                epoch: row.get(1)?,
            })
        })
        .optional()?;
    Ok(row)
}
