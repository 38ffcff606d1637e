//! How far each subscriber has come, durably.

use std::sync::Arc;

use event_schemas::{LogIdentity, Position};
use sqlite_file::rusqlite::{OptionalExtension as _, Row};
use sqlite_file::{Connection, SqliteError, SqliteFile};
use uuid::Uuid;

const STEPS: &[&str] = &["CREATE TABLE checkpoints (
     subscriber TEXT NOT NULL PRIMARY KEY,
     log_id TEXT NOT NULL,
     epoch INTEGER NOT NULL,
     position INTEGER NOT NULL
 ) STRICT, WITHOUT ROWID"];

/// Everything of `log` up to and including `position` has been handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: LogIdentity,
    pub position: Position,
}

/// The table `checkpoints` of one file.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    file: SqliteFile,
}

impl Checkpoints {
    /// Makes the table in `file` if it is not there. Blocks; meant for start-up.
    pub fn open(file: &SqliteFile) -> Result<Self, SqliteError> {
        file.migrate("checkpoints", STEPS)?;
        Ok(Self { file: file.clone() })
    }

    /// Where `subscriber` stands; none before its first acknowledgement.
    pub async fn load(&self, subscriber: &Arc<str>) -> Result<Option<Checkpoint>, SqliteError> {
        let subscriber = Arc::clone(subscriber);
        self.file
            .read(move |conn| {
                let mut select = conn.prepare_cached(
                    "SELECT log_id, epoch, position FROM checkpoints WHERE subscriber = ?1",
                )?;
                Ok(select.query_row([&*subscriber], from_row).optional()?)
            })
            .await
    }

    /// Saves where `subscriber` stands; durable once it resolves.
    pub async fn save(&self, subscriber: &Arc<str>, checkpoint: Checkpoint) -> Result<(), SqliteError> {
        let subscriber = Arc::clone(subscriber);
        self.file
            .write(move |conn| Self::save_in(conn, &subscriber, checkpoint))
            .await
    }

    /// As [`Checkpoints::save`], inside a write of the caller's, so that the checkpoint and what it stands for become
    /// durable together.
    pub fn save_in(conn: &Connection, subscriber: &str, checkpoint: Checkpoint) -> Result<(), SqliteError> {
        let mut upsert = conn.prepare_cached(
            "INSERT INTO checkpoints (subscriber, log_id, epoch, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (subscriber)
             DO UPDATE SET log_id = excluded.log_id, epoch = excluded.epoch, position = excluded.position",
        )?;
        let Checkpoint { log, position } = checkpoint;
        upsert.execute((
            subscriber,
            log.log_id.to_string(),
            log.epoch.cast_signed(),
            position.0.cast_signed(),
        ))?;
        Ok(())
    }
}

fn from_row(row: &Row<'_>) -> Result<Checkpoint, sqlite_file::rusqlite::Error> {
    let log_id: String = row.get(0)?;
    let log_id = Uuid::try_parse(&log_id).map_err(|error| {
        sqlite_file::rusqlite::Error::FromSqlConversionFailure(
            0,
            sqlite_file::rusqlite::types::Type::Text,
            Box::new(error),
        )
    })?;
    let log = LogIdentity {
        log_id,
        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
    };
    Ok(Checkpoint {
        log,
        position: Position(row.get::<_, i64>(2)?.cast_unsigned()),
    })
}
