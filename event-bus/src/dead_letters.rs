//! Events that a subscriber could not process, and what came behind them.
//!
//! The first event of a scope that fails parks the scope; later events of that scope are parked behind it unseen, so
//! that they are handled in order once it has been healed. Other scopes go on. A letter refers to its event by
//! position and id; the event itself stays in the log.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use database::{Database, DatabaseError, Row, Session, params};
use event_schemas::{EventId, Position, Timestamp};

const STEPS: &[&str] = &["CREATE TABLE dead_letters (
     subscriber TEXT NOT NULL,
     scope TEXT NOT NULL,
     position INTEGER NOT NULL,
     event_id TEXT NOT NULL,
     event_type TEXT NOT NULL,
     reason TEXT,
     attempts INTEGER NOT NULL,
     parked_at INTEGER NOT NULL,
     PRIMARY KEY (subscriber, scope, position)
 ) STRICT, WITHOUT ROWID"];

/// The most letters that one call lists.
pub const LIST_LIMIT: usize = 1_000;

/// One parked event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub subscriber: Arc<str>,
    /// What is parked with it: usually the stream, for policies on stock (SKU, order).
    pub scope: Arc<str>,
    pub position: Position,
    pub event_id: EventId,
    pub event_type: String,
    /// What went wrong; none for an event that only waits behind another.
    pub reason: Option<String>,
    /// How often it was tried; 0 for one that only waits.
    pub attempts: u32,
    pub parked_at: Timestamp,
}

/// An event to park.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDeadLetter {
    pub scope: Arc<str>,
    pub position: Position,
    pub event_id: EventId,
    pub event_type: String,
    /// None if it is parked only because its scope is.
    pub reason: Option<String>,
    pub parked_at: Timestamp,
}

/// A scope that waits for someone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedScope {
    pub subscriber: Arc<str>,
    pub scope: Arc<str>,
    /// How many letters it holds.
    pub letters: u64,
    /// The first one: the one that failed.
    pub first: DeadLetter,
}

/// What a retry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// So many letters were handled, and the scope goes on with the stream.
    Healed { handled: u64 },
    /// So many were handled; then one failed again and stays parked with those behind it.
    StillParked { handled: u64, reason: String },
}

/// The dead letters of one subscriber. Clones share what they know of parked scopes.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    database: Database,
    subscriber: Arc<str>,
    /// The parked scopes, so that the hot path asks no database.
    parked: Arc<RwLock<HashSet<Arc<str>>>>,
}

impl DeadLetters {
    /// Makes the table in `database` if it is not there and reads which scopes are parked. Meant for start-up.
    pub async fn open(database: impl Into<Database>, subscriber: &str) -> Result<Self, DatabaseError> {
        let database = database.into();
        database.migrate("dead_letters", STEPS).await?;
        let letters = Self {
            database,
            subscriber: subscriber.into(),
            parked: Arc::default(),
        };
        letters.reload().await?;
        Ok(letters)
    }

    /// Deletes all letters of a subscriber that is no more.
    pub async fn forget(database: &Database, subscriber: &str) -> Result<(), DatabaseError> {
        let subscriber = subscriber.to_owned();
        database
            .write(move |session| {
                session.execute(
                    "DELETE FROM dead_letters WHERE subscriber = ?1",
                    &params![subscriber],
                )?;
                Ok(())
            })
            .await
    }

    /// Reads again which scopes are parked: for a subscriber whose letters another process may have parked or healed,
    /// as those of a partition that it has just been given.
    pub async fn reload(&self) -> Result<(), DatabaseError> {
        let mut parked = HashSet::new();
        let mut after = String::new();
        loop {
            let subscriber = Arc::clone(&self.subscriber);
            let scopes = self.database.read(move |session| {
                session.query(
                    "SELECT DISTINCT scope FROM dead_letters WHERE subscriber = ?1 AND scope > ?2
                     ORDER BY scope LIMIT ?3",
                    &params![&subscriber, after, LIST_LIMIT],
                    |row| row.get::<String>(0),
                )
            });
            let scopes: Vec<String> = scopes.await?;
            let page = scopes.len();
            after = scopes.last().cloned().unwrap_or_default();
            parked.extend(scopes.into_iter().map(Arc::from));
            if page < LIST_LIMIT {
                break;
            }
        }
        self.change(|held| *held = parked);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Arc<str>>)) {
        let mut parked = self.parked.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut parked);
        metrics::gauge!("omisys_dead_letters", "subscriber" => self.subscriber.to_string())
            .set(parked.len() as f64);
    }

    /// Whether nothing at all is parked: the usual case, and cheaper than naming a scope.
    pub fn none_parked(&self) -> bool {
        self.parked
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether an event of `scope` has to be parked behind another.
    pub fn is_parked(&self, scope: &str) -> bool {
        self.parked
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(scope)
    }

    /// Parks an event, and with it its scope; durable once it resolves. Parking it again updates its reason.
    pub async fn park(&self, letter: NewDeadLetter) -> Result<(), DatabaseError> {
        let scope = Arc::clone(&letter.scope);
        let subscriber = Arc::clone(&self.subscriber);
        self.database
            .write(move |session| insert(session, &subscriber, &letter))
            .await?;
        self.change(|parked| {
            parked.insert(scope);
        });
        Ok(())
    }

    /// The parked scopes, each with its first letter, by scope; at most [`LIST_LIMIT`].
    pub async fn list(&self) -> Result<Vec<ParkedScope>, DatabaseError> {
        let subscriber = Arc::clone(&self.subscriber);
        self.database
            .read(move |session| {
                session.query(
                    "SELECT d.scope, d.position, d.event_id, d.event_type, d.reason, d.attempts, d.parked_at, s.letters
                     FROM (SELECT scope, min(position) AS first, count(*) AS letters
                           FROM dead_letters WHERE subscriber = ?1 GROUP BY scope) AS s
                     JOIN dead_letters AS d ON d.subscriber = ?1 AND d.scope = s.scope AND d.position = s.first
                     ORDER BY d.scope LIMIT ?2",
                    &params![&subscriber, LIST_LIMIT],
                    |row| {
                        let first = from_row(&subscriber, row)?;
                        Ok(ParkedScope {
                            subscriber: Arc::clone(&subscriber),
                            scope: Arc::clone(&first.scope),
                            letters: row.get(7)?,
                            first,
                        })
                    },
                )
            })
            .await
    }

    /// The letters of `scope`, in order; at most [`LIST_LIMIT`].
    pub async fn show(&self, scope: &str) -> Result<Vec<DeadLetter>, DatabaseError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), scope.to_owned());
        self.database
            .read(move |session| {
                session.query(
                    "SELECT scope, position, event_id, event_type, reason, attempts, parked_at FROM dead_letters
                     WHERE subscriber = ?1 AND scope = ?2 ORDER BY position LIMIT ?3",
                    &params![&subscriber, scope, LIST_LIMIT],
                    |row| from_row(&subscriber, row),
                )
            })
            .await
    }

    /// The letter to retry next: the first of `scope`. Once there is none, the scope goes on with the stream.
    ///
    /// A retry is a loop over this, [`DeadLetters::resolved`] and [`DeadLetters::failed_again`]. It belongs where the
    /// subscriber's own events are handled: an event of the scope that arrives meanwhile has to wait its turn.
    pub async fn first(&self, scope: &str) -> Result<Option<DeadLetter>, DatabaseError> {
        let first = self.show(scope).await?.into_iter().next();
        if first.is_none() {
            self.change(|parked| {
                parked.remove(scope);
            });
        }
        Ok(first)
    }

    /// The letter's event has been handled: takes it out.
    pub async fn resolved(&self, letter: &DeadLetter) -> Result<(), DatabaseError> {
        self.remove(&letter.scope, letter.position).await
    }

    /// Gives up on the first letter of `scope` and returns it; none if the scope is not parked. Those behind it stay
    /// parked until they are retried. As a retry, it belongs where the subscriber's own events are handled.
    pub async fn skip(&self, scope: &str) -> Result<Option<DeadLetter>, DatabaseError> {
        let letters = self.show(scope).await?;
        let only = letters.len() == 1;
        let Some(first) = letters.into_iter().next() else {
            return Ok(None);
        };
        self.remove(scope, first.position).await?;
        if only {
            self.reload().await?;
        }
        Ok(Some(first))
    }

    async fn remove(&self, scope: &str, position: Position) -> Result<(), DatabaseError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), scope.to_owned());
        self.database
            .write(move |session| {
                session.execute(
                    "DELETE FROM dead_letters WHERE subscriber = ?1 AND scope = ?2 AND position = ?3",
                    &params![&subscriber, scope, position.0],
                )?;
                Ok(())
            })
            .await
    }

    /// The letter was retried in vain: it stays, with those behind it.
    pub async fn failed_again(&self, letter: &DeadLetter, reason: String) -> Result<(), DatabaseError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), Arc::clone(&letter.scope));
        let position = letter.position;
        self.database
            .write(move |session| {
                session.execute(
                    "UPDATE dead_letters SET reason = ?4, attempts = attempts + 1
                     WHERE subscriber = ?1 AND scope = ?2 AND position = ?3",
                    &params![&subscriber, &scope, position.0, reason],
                )?;
                Ok(())
            })
            .await
    }
}

fn insert(session: &Session<'_>, subscriber: &str, letter: &NewDeadLetter) -> Result<(), DatabaseError> {
    let params = params![
        subscriber,
        &letter.scope,
        letter.position.0,
        letter.event_id.to_string(),
        &letter.event_type,
        &letter.reason,
        letter.reason.is_some(),
        letter.parked_at.as_microsecond(),
    ];
    session.execute(
        "INSERT INTO dead_letters (subscriber, scope, position, event_id, event_type, reason, attempts, parked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (subscriber, scope, position) DO UPDATE
         SET reason = coalesce(excluded.reason, dead_letters.reason),
             attempts = dead_letters.attempts + excluded.attempts",
        &params,
    )?;
    Ok(())
}

/// Columns: scope, position, `event_id`, `event_type`, reason, attempts, `parked_at`.
fn from_row(subscriber: &Arc<str>, row: &Row<'_>) -> Result<DeadLetter, DatabaseError> {
    let parked_at = row.get(6)?;
    Ok(DeadLetter {
        subscriber: Arc::clone(subscriber),
        scope: row.get::<String>(0)?.into(),
        position: Position(row.get(1)?),
        event_id: row.parse(2)?,
        event_type: row.get(3)?,
        reason: row.get(4)?,
        attempts: row.get(5)?,
        parked_at: Timestamp::from_microsecond(parked_at).map_err(|error| DatabaseError::Unexpected {
            column: "parked_at".to_owned(),
            message: error.to_string(),
        })?,
    })
}
