//! How far each subscriber has come, durably.

use std::sync::Arc;

use event_schemas::{LogIdentity, Position};
use sqlite_file::rusqlite::{self, types::Type};
use sqlite_file::{Connection, SqliteError, SqliteFile};
use uuid::Uuid;

use crate::PartitionKey;

const STEPS: &[&str] = &[
    "CREATE TABLE checkpoints (
     subscriber TEXT NOT NULL PRIMARY KEY,
     log_id TEXT NOT NULL,
     epoch INTEGER NOT NULL,
     position INTEGER NOT NULL
 ) STRICT, WITHOUT ROWID",
    "ALTER TABLE checkpoints RENAME TO checkpoints_of_the_log;
 CREATE TABLE checkpoints (
     subscriber TEXT NOT NULL,
     partition TEXT NOT NULL,
     log_id TEXT NOT NULL,
     epoch INTEGER NOT NULL,
     position INTEGER NOT NULL,
     PRIMARY KEY (subscriber, partition)
 ) STRICT, WITHOUT ROWID;
 INSERT INTO checkpoints (subscriber, partition, log_id, epoch, position)
     SELECT subscriber, 'log', log_id, epoch, position FROM checkpoints_of_the_log;
 DROP TABLE checkpoints_of_the_log",
];

/// How far someone has come in the stream of one log: one position per partition.
///
/// A position of a partition says that everything that it carries has been handled up to and including there. The
/// position of [`PartitionKey::Log`] says so for every partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: LogIdentity,
    /// By key.
    positions: Vec<(PartitionKey, Position)>,
}

impl Checkpoint {
    /// Nothing handled yet.
    pub fn start(log: LogIdentity) -> Self {
        Self {
            log,
            positions: Vec::new(),
        }
    }

    /// The whole log is handled up to `position`.
    pub fn at(log: LogIdentity, position: Position) -> Self {
        Self {
            log,
            positions: vec![(PartitionKey::Log, position)],
        }
    }

    /// How far the whole log is handled: what a subscriber of the log itself has; 0 for one of partitions only.
    pub fn position(&self) -> Position {
        self.own(PartitionKey::Log)
    }

    /// How far `partition` is handled.
    pub fn position_of(&self, partition: PartitionKey) -> Position {
        self.own(partition).max(self.position())
    }

    /// The partitions that it names, with their positions, by key.
    pub fn positions(&self) -> &[(PartitionKey, Position)] {
        &self.positions
    }

    /// `partition` is handled up to `position`; one that is further already stays there.
    pub fn advance(&mut self, partition: PartitionKey, position: Position) {
        match self.positions.binary_search_by_key(&partition, |(key, _)| *key) {
            Ok(index) => {
                if let Some((_, held)) = self.positions.get_mut(index) {
                    *held = position.max(*held);
                }
            }
            Err(index) => self.positions.insert(index, (partition, position)),
        }
    }

    /// Takes over what `other`, of the same log, says beyond this one.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.log, other.log, "positions of two logs cannot be compared");
        for (partition, position) in &other.positions {
            self.advance(*partition, *position);
        }
    }

    fn own(&self, partition: PartitionKey) -> Position {
        self.positions
            .binary_search_by_key(&partition, |(key, _)| *key)
            .ok()
            .and_then(|index| self.positions.get(index))
            .map_or(Position(0), |(_, position)| *position)
    }
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

    /// Where `subscriber` stands, in all its partitions; none before its first acknowledgement. Rows of another log or
    /// epoch than the newest are left out: what was handled of them says nothing about this one.
    pub async fn load(&self, subscriber: &Arc<str>) -> Result<Option<Checkpoint>, SqliteError> {
        let subscriber = Arc::clone(subscriber);
        self.file
            .read(move |conn| {
                let mut select = conn.prepare_cached(
                    "SELECT partition, log_id, epoch, position FROM checkpoints WHERE subscriber = ?1",
                )?;
                let mut rows = select.query([&*subscriber])?;
                let mut checkpoint: Option<Checkpoint> = None;
                while let Some(row) = rows.next()? {
                    let partition = parsed::<PartitionKey>(row.get(0)?)?;
                    let log = LogIdentity {
                        log_id: parsed::<Uuid>(row.get(1)?)?,
                        epoch: row.get::<_, i64>(2)?.cast_unsigned(),
                    };
                    let position = Position(row.get::<_, i64>(3)?.cast_unsigned());
                    let checkpoint = match &mut checkpoint {
                        Some(held) if held.log == log => held,
                        Some(held) if held.log.epoch > log.epoch => continue,
                        held => held.insert(Checkpoint::start(log)),
                    };
                    checkpoint.advance(partition, position);
                }
                Ok(checkpoint)
            })
            .await
    }

    /// Saves how far `subscriber` has come in the partitions that `checkpoint` names; durable once it resolves.
    pub async fn save(&self, subscriber: &Arc<str>, checkpoint: Checkpoint) -> Result<(), SqliteError> {
        let subscriber = Arc::clone(subscriber);
        self.file
            .write(move |conn| Self::save_in(conn, &subscriber, &checkpoint))
            .await
    }

    /// As [`Checkpoints::save`], inside a write of the caller's, so that the checkpoint and what it stands for become
    /// durable together.
    pub fn save_in(conn: &Connection, subscriber: &str, checkpoint: &Checkpoint) -> Result<(), SqliteError> {
        let mut upsert = conn.prepare_cached(
            "INSERT INTO checkpoints (subscriber, partition, log_id, epoch, position) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (subscriber, partition)
             DO UPDATE SET log_id = excluded.log_id, epoch = excluded.epoch, position = excluded.position",
        )?;
        let log_id = checkpoint.log.log_id.to_string();
        for (partition, position) in &checkpoint.positions {
            upsert.execute((
                subscriber,
                partition.to_string(),
                &log_id,
                checkpoint.log.epoch.cast_signed(),
                position.0.cast_signed(),
            ))?;
        }
        Ok(())
    }
}

fn parsed<T>(text: String) -> Result<T, rusqlite::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}
