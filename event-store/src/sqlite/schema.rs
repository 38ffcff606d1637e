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
/// `stream_rows` leads from an aggregate to its events (`sequence` from 1, no command id) and to the receipts of its
/// commands (`sequence` 0). They share one B-tree because each command touches both: beside each other they are mostly
/// one page to write, and pages written are what an append costs (a third less CPU than with an index and a table).
///
/// Aggregates stand in it by a number, which `stream_names` gives in the order in which they came to be. Most ids are
/// hashes: by them, each step of an order would touch a page of its own, somewhere in the tree. By number, what is under
/// way now is next to each other (half the pages for a checkout), and a row is a third as long.
///
/// `sqlite-es` reads `stream_events`, and cannot write to a view: the journal is the only writer.
pub(crate) const STEPS: &[&str] = &[
    "
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
",
    UNFINISHED_IMPORT,
    "
    CREATE TABLE stream_names (
        stream INTEGER PRIMARY KEY,
        aggregate_type TEXT NOT NULL,
        aggregate_id TEXT NOT NULL,
        UNIQUE (aggregate_type, aggregate_id)
    ) STRICT;
    CREATE TABLE stream_rows (
        stream INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        command_id BLOB NOT NULL,
        position INTEGER NOT NULL,
        first_sequence INTEGER, -- last_sequence + 1 if the command emitted nothing
        last_sequence INTEGER,
        fingerprint_key TEXT,
        fingerprint BLOB,
        recorded_at INTEGER,
        PRIMARY KEY (stream, sequence, command_id),
        CHECK ((sequence > 0) = (command_id = x''))
    ) STRICT, WITHOUT ROWID;
    INSERT INTO stream_names (aggregate_type, aggregate_id)
        SELECT aggregate_type, aggregate_id FROM streams
        GROUP BY aggregate_type, aggregate_id ORDER BY min(position), aggregate_type, aggregate_id;
    INSERT INTO stream_rows
        SELECT n.stream, s.sequence, s.command_id, s.position, s.first_sequence, s.last_sequence, s.fingerprint_key,
            s.fingerprint, s.recorded_at
        FROM stream_names AS n CROSS JOIN streams AS s USING (aggregate_type, aggregate_id)
        ORDER BY n.stream, s.sequence, s.command_id;
    DROP VIEW stream_events;
    DROP VIEW commands;
    DROP TABLE streams;
    CREATE VIEW stream_events AS
        SELECT n.aggregate_type, n.aggregate_id, s.sequence, e.event_type, e.event_version, e.payload, e.metadata,
            e.position, e.recorded_at
        FROM stream_names AS n CROSS JOIN stream_rows AS s USING (stream) CROSS JOIN events AS e USING (position)
        WHERE s.sequence > 0;
    CREATE VIEW commands AS
        SELECT n.aggregate_type, n.aggregate_id, s.command_id, s.fingerprint_key, s.fingerprint, s.first_sequence,
            s.last_sequence, s.position, s.recorded_at
        FROM stream_names AS n CROSS JOIN stream_rows AS s USING (stream)
        WHERE s.sequence = 0;
",
];

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What the two views say, row by row.
    fn views(conn: &Connection) -> Vec<String> {
        let all = |sql: &str| -> Vec<String> {
            let mut statement = conn.prepare(sql).unwrap();
            let columns = statement.column_count();
            let rows = statement
                .query_map([], |row| {
                    let values = (0..columns).map(|column| format!("{:?}", row.get_ref(column)));
                    Ok(values.collect::<Vec<_>>().join(" "))
                })
                .unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut found = all("SELECT * FROM stream_events ORDER BY position");
        found.extend(all(
            "SELECT * FROM commands ORDER BY aggregate_type, aggregate_id, command_id",
        ));
        found
    }

    #[test]
    fn a_log_of_the_first_version_says_the_same_afterwards() {
        let conn = Connection::open_in_memory().unwrap();
        let (numbered, before) = STEPS.split_last().unwrap();
        for step in before {
            conn.execute_batch(step).unwrap();
        }
        // The streams of two aggregates in turns, and a command of a third that emitted nothing.
        for position in 1..=6_u8 {
            let (id, sequence) = (["b", "a"][usize::from(position) % 2], position.div_ceil(2));
            conn.execute(
                "INSERT INTO events VALUES (?1, 'cart', ?2, ?3, 'E', '1', '{}', '{\"n\":1}', 7)",
                (position, id, sequence),
            )
            .unwrap();
            conn.execute(
                "INSERT INTO streams (aggregate_type, aggregate_id, sequence, command_id, position)
                VALUES ('cart', ?1, ?2, x'', ?3)",
                (id, sequence, position),
            )
            .unwrap();
            conn.execute(
                "INSERT INTO streams VALUES ('cart', ?1, 0, ?2, ?3, ?4, ?4, 'key', x'0102', 8)",
                (id, [position; 16], position, sequence),
            )
            .unwrap();
        }
        conn.execute(
            "INSERT INTO streams VALUES ('order', 'c', 0, ?1, 6, 1, 0, NULL, NULL, 9)",
            [[9_u8; 16]],
        )
        .unwrap();
        let then = views(&conn);
        assert_eq!(then.len(), 13);
        conn.execute_batch(numbered).unwrap();
        assert_eq!(views(&conn), then);
    }
}
