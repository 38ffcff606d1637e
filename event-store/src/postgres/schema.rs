//! Tables of the log. What `postgres-es` reads is among them, so its repository can read streams here.

use database::DatabaseError;
use event_schemas::LogIdentity;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Row as _, query};
use uuid::Uuid;

/// Names and types are those of the SQLite log, so that what reads rows beside the log reads both.
///
/// * `events` is keyed by stream, and its positions are unique: the keys are what makes a journal that was overtaken
///   fail. Identifiers compare as bytes, which is what they are and quicker; ids come before types, since two ids are
///   seldom alike and then nothing else is compared.
/// * `commands` comes with the aggregate first: random command ids alone would touch pages all over.
/// * `unfinished_import` has a row from an import's first transaction to its last.
/// * `log_head` has the one row whose lock makes the order of commits the order of positions.
/// * `postgres-es` reads the view, whose JSON columns make it read-only: the journal is the only writer.
pub(crate) const STEPS: &[&str] = &[
    r#"
    CREATE TABLE events (
        position BIGINT NOT NULL CHECK (position > 0),
        aggregate_type TEXT COLLATE "C" NOT NULL,
        aggregate_id TEXT COLLATE "C" NOT NULL,
        sequence BIGINT NOT NULL CHECK (sequence > 0),
        event_type TEXT NOT NULL,
        event_version TEXT NOT NULL,
        payload TEXT NOT NULL,
        metadata TEXT NOT NULL,
        recorded_at BIGINT NOT NULL, -- microseconds since 1970, UTC
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    );
    CREATE UNIQUE INDEX events_by_position ON events (position);
    CREATE TABLE commands (
        aggregate_type TEXT COLLATE "C" NOT NULL,
        aggregate_id TEXT COLLATE "C" NOT NULL,
        command_id BYTEA NOT NULL,
        fingerprint_key TEXT,
        fingerprint BYTEA,
        first_sequence BIGINT NOT NULL, -- last_sequence + 1 if the command emitted nothing
        last_sequence BIGINT NOT NULL,
        position BIGINT NOT NULL,
        recorded_at BIGINT NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, command_id)
    );
    CREATE VIEW stream_events AS
        SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload::json AS payload,
            metadata::json AS metadata, position, recorded_at
        FROM events;
    CREATE TABLE log_head (
        one BIGINT PRIMARY KEY CHECK (one = 1),
        log_id BYTEA NOT NULL,
        epoch BIGINT NOT NULL,
        position BIGINT NOT NULL
    );
    INSERT INTO log_head (one, log_id, epoch, position) VALUES (1, uuid_send(gen_random_uuid()), 1, 0);
"#,
    "CREATE TABLE unfinished_import (
        only_one BIGINT PRIMARY KEY CHECK (only_one = 1),
        begun_at BIGINT NOT NULL -- microseconds since 1970, UTC
    )",
    "ALTER TABLE events DROP CONSTRAINT events_pkey, ADD PRIMARY KEY (aggregate_id, aggregate_type, sequence);
     ALTER TABLE commands DROP CONSTRAINT commands_pkey,
        ADD PRIMARY KEY (aggregate_id, aggregate_type, command_id)",
];

/// Which log this is.
pub(crate) async fn identity(pool: &PgPool) -> Result<LogIdentity, DatabaseError> {
    let row = query("SELECT log_id, epoch FROM log_head")
        .fetch_one(pool)
        .await?;
    Ok(decode(&row)?)
}

#[cfg(any(test, feature = "conformance"))]
pub(crate) async fn begin_epoch(pool: &PgPool) -> Result<LogIdentity, DatabaseError> {
    let row = query("UPDATE log_head SET epoch = epoch + 1 RETURNING log_id, epoch")
        .fetch_all(pool)
        .await?;
    let row = row.first().ok_or_else(|| database::PostgresError::Sql {
        code: String::new(),
        message: "the log has no head".to_owned(),
    })?;
    Ok(decode(row)?)
}

fn decode(row: &PgRow) -> Result<LogIdentity, sqlx::Error> {
    let log_id: &[u8] = row.try_get(0)?;
    let epoch: i64 = row.try_get(1)?;
    Ok(LogIdentity {
        log_id: Uuid::from_slice(log_id).map_err(|error| sqlx::Error::Decode(error.into()))?,
        epoch: u64::try_from(epoch).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}
