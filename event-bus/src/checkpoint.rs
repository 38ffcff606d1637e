//! How far each subscriber has come, durably.

use std::sync::Arc;

use database::{Database, DatabaseError, Session, Value};
use event_schemas::{LogIdentity, Position};

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

/// The table `checkpoints` of one database.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    database: Database,
}

/// The most partitions that one statement saves: it has three parameters and two for each, of SQLite's 32,766.
const SAVED_AT_ONCE: usize = 256;

impl Checkpoints {
    /// Makes the table in `database` if it is not there.
    pub async fn open(database: impl Into<Database>) -> Result<Self, DatabaseError> {
        let database = database.into();
        database.migrate("checkpoints", STEPS).await?;
        Ok(Self { database })
    }

    /// Where `subscriber` stands, in all its partitions; none before its first acknowledgement. Rows of another log or
    /// epoch than the newest are left out: what was handled of them says nothing about this one.
    pub async fn load(&self, subscriber: &Arc<str>) -> Result<Option<Checkpoint>, DatabaseError> {
        let subscriber = Arc::clone(subscriber);
        let load = self
            .database
            .read(move |session| Self::load_in(session, &subscriber));
        load.await
    }

    /// As [`Checkpoints::load`], inside a read of the caller's.
    pub fn load_in(session: &Session<'_>, subscriber: &str) -> Result<Option<Checkpoint>, DatabaseError> {
        let rows = session.query(
            "SELECT partition, log_id, epoch, position FROM checkpoints WHERE subscriber = ?1",
            &[subscriber.into()],
            |row| {
                let log = LogIdentity {
                    log_id: row.parse(1)?,
                    epoch: row.get(2)?,
                };
                Ok::<_, DatabaseError>((row.parse::<PartitionKey>(0)?, log, Position(row.get(3)?)))
            },
        )?;
        let mut checkpoint: Option<Checkpoint> = None;
        for (partition, log, position) in rows {
            let held = match &mut checkpoint {
                Some(held) if held.log == log => held,
                Some(held) if held.log.epoch > log.epoch => continue,
                held => held.insert(Checkpoint::start(log)),
            };
            held.advance(partition, position);
        }
        Ok(checkpoint)
    }

    /// Saves how far `subscriber` has come in the partitions that `checkpoint` names; durable once it resolves.
    pub async fn save(&self, subscriber: &Arc<str>, checkpoint: Checkpoint) -> Result<(), DatabaseError> {
        let subscriber = Arc::clone(subscriber);
        self.database
            .write(move |session| Self::save_in(session, &subscriber, &checkpoint))
            .await
    }

    /// As [`Checkpoints::save`], unless what is kept of the same log is further already: then another process has taken
    /// over, and a late save of this one would set single partitions back behind what the log's position says. Says
    /// whether it was saved.
    #[cfg(feature = "cluster")]
    pub(crate) async fn save_forward(
        &self,
        subscriber: &Arc<str>,
        checkpoint: Checkpoint,
    ) -> Result<bool, DatabaseError> {
        let subscriber = Arc::clone(subscriber);
        self.database
            .write(move |session| {
                session.lock(&format!("checkpoints/{subscriber}"))?;
                let overtaken = session.query_one(
                    "SELECT count(*) FROM checkpoints
                     WHERE subscriber = ?1 AND partition = ?2 AND log_id = ?3 AND epoch = ?4 AND position > ?5",
                    &database::params![
                        &subscriber,
                        PartitionKey::Log.to_string(),
                        checkpoint.log.log_id.to_string(),
                        checkpoint.log.epoch,
                        checkpoint.position().0,
                    ],
                    |row| row.get::<i64>(0),
                )? > 0;
                if !overtaken {
                    Self::save_in(session, &subscriber, &checkpoint)?;
                }
                Ok(!overtaken)
            })
            .await
    }

    /// Forgets where everyone stands, inside a write of the caller's: for a log that is filled from elsewhere.
    pub fn forget_all_in(session: &Session<'_>) -> Result<(), DatabaseError> {
        session.execute("DELETE FROM checkpoints", &[]).map(|_| ())
    }

    /// As [`Checkpoints::save`], inside a write of the caller's, so that the checkpoint and what it stands for become
    /// durable together.
    pub fn save_in(
        session: &Session<'_>,
        subscriber: &str,
        checkpoint: &Checkpoint,
    ) -> Result<(), DatabaseError> {
        let log_id = checkpoint.log.log_id.to_string();
        for positions in checkpoint.positions.chunks(SAVED_AT_ONCE) {
            let mut params: Vec<Value<'_>> = vec![
                subscriber.into(),
                log_id.as_str().into(),
                checkpoint.log.epoch.into(),
            ];
            let mut rows = Vec::with_capacity(positions.len());
            for (partition, position) in positions {
                params.extend([partition.to_string().into(), position.0.into()]);
                rows.push(format!("(?1, ?{}, ?2, ?3, ?{})", params.len() - 1, params.len()));
            }
            let sql = format!(
                "INSERT INTO checkpoints (subscriber, partition, log_id, epoch, position) VALUES {}
                 ON CONFLICT (subscriber, partition)
                 DO UPDATE SET log_id = excluded.log_id, epoch = excluded.epoch, position = excluded.position",
                rows.join(", ")
            );
            session.execute(&sql, &params)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use database::testing::TestDatabase;
    use event_schemas::{AggregateType, derive_uuid};

    use super::*;

    /// Relay A has lost its leadership, and a save that it had begun comes after those of B, which took over.
    #[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    async fn a_late_save_sets_nothing_back(test: TestDatabase) {
        let checkpoints = Checkpoints::open(test.database()).await.unwrap();
        let log = LogIdentity {
            log_id: derive_uuid("test", &[]),
            epoch: 1,
        };
        let key = PartitionKey::Topic {
            aggregate_type: AggregateType::Order,
            index: 0,
            of: 3,
        };
        let at = |position: u64, of_key: u64| {
            let mut checkpoint = Checkpoint::at(log, Position(position));
            checkpoint.advance(key, Position(of_key));
            checkpoint
        };
        let relay: Arc<str> = "relay".into();
        for (checkpoint, saved) in [(at(100, 95), true), (at(60, 58), false), (at(100, 95), true)] {
            assert_eq!(checkpoints.save_forward(&relay, checkpoint).await, Ok(saved));
        }
        let further = Checkpoint::at(log, Position(120));
        assert_eq!(checkpoints.save_forward(&relay, further).await, Ok(true));
        assert_eq!(checkpoints.load(&relay).await, Ok(Some(at(120, 95))));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_save_sets_nothing_back_on_sqlite() {
        a_late_save_sets_nothing_back(TestDatabase::sqlite()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_save_sets_nothing_back_on_postgresql() {
        if let Some(test) = TestDatabase::postgres().await {
            a_late_save_sets_nothing_back(test).await;
        }
    }
}
