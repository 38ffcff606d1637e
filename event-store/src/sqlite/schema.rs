//! Tables of the log. A superset of what `sqlite-es` reads, so its repository can read streams here.

use event_schemas::LogIdentity;
use sqlite_file::rusqlite::{Connection, OptionalExtension as _};
use sqlite_file::{SqliteError, SqliteFile};
use uuid::Uuid;

/// `position` is the table's own key, so the log is stored in the order in which it is written and read, in one B-tree;
/// the stream's key (the primary key in `sqlite-es`) is the unique index beside it. `sqlite-es` can't write here, since
/// it leaves out `recorded_at`: the journal is the only writer.
///
/// `commands` is keyed by aggregate first: random keys alone would touch another page with every receipt.
const STEPS: &[&str] = &["
    CREATE TABLE events (
        position INTEGER PRIMARY KEY CHECK (position > 0),
        aggregate_type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        event_type TEXT NOT NULL,
        event_version TEXT NOT NULL,
        payload TEXT NOT NULL,
        metadata TEXT NOT NULL,
        recorded_at INTEGER NOT NULL, -- microseconds since 1970, UTC
        UNIQUE (aggregate_type, aggregate_id, sequence)
    ) STRICT;
    CREATE TABLE commands (
        aggregate_type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL,
        command_id BLOB NOT NULL,
        fingerprint_key TEXT,
        fingerprint BLOB,
        first_sequence INTEGER NOT NULL, -- last_sequence + 1 if the command emitted nothing
        last_sequence INTEGER NOT NULL,
        position INTEGER NOT NULL,
        recorded_at INTEGER NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, command_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE log_head (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        log_id BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;
"];

pub(crate) fn migrate(file: &SqliteFile) -> Result<(), SqliteError> {
    file.migrate("event-store", STEPS)
}

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
