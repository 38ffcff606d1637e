//! Events that a subscriber could not process, and what came behind them.
//!
//! The first event of a scope that fails parks the scope; later events of that scope are parked behind it unseen, so
//! that they are handled in order once it has been healed. Other scopes go on. A letter refers to its event by
//! position and id; the event itself stays in the log.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use database::{Database, DatabaseError, KeptTable, Row, Session, params};
use event_schemas::{EventId, Position, Timestamp};

use crate::healing;

const STEPS: &[&str] = &[
    "CREATE TABLE dead_letters (
     subscriber TEXT NOT NULL,
     scope TEXT NOT NULL,
     position INTEGER NOT NULL,
     event_id TEXT NOT NULL,
     event_type TEXT NOT NULL,
     reason TEXT,
     attempts INTEGER NOT NULL,
     parked_at INTEGER NOT NULL,
     PRIMARY KEY (subscriber, scope, position)
 ) STRICT, WITHOUT ROWID",
    healing::TABLE,
];

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

/// The dead letters of one subscriber. Clones share what they know of parked scopes.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub(crate) database: Database,
    pub(crate) subscriber: Arc<str>,
    /// The parked scopes, so that the hot path asks no database.
    parked: Arc<RwLock<HashSet<Arc<str>>>>,
}

impl DeadLetters {
    /// Their table, of all subscribers.
    pub const KEPT: KeptTable = KeptTable {
        name: "dead_letters",
        columns: &[
            "subscriber",
            "scope",
            "position",
            "event_id",
            "event_type",
            "reason",
            "attempts",
            "parked_at",
        ],
        key: 3,
        filter: None,
    };

    /// Makes the table in `database` if it is not there and reads which scopes are parked. Meant for start-up.
    pub async fn open(database: impl Into<Database>, subscriber: &str) -> Result<Self, DatabaseError> {
        let database = database.into();
        migrate(&database).await?;
        let letters = Self {
            database,
            subscriber: subscriber.into(),
            parked: Arc::default(),
        };
        letters.reload().await?;
        Ok(letters)
    }

    /// Deletes all letters of a subscriber that is no more, and what it was asked to do about them.
    pub async fn forget(database: &Database, subscriber: &str) -> Result<(), DatabaseError> {
        let subscriber = subscriber.to_owned();
        database
            .write(move |session| {
                for sql in [
                    "DELETE FROM dead_letters WHERE subscriber = ?1",
                    "DELETE FROM dead_letter_requests WHERE subscriber = ?1 AND done_at IS NULL",
                ] {
                    session.execute(sql, &params![&subscriber])?;
                }
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

    /// Whose letters these are.
    pub fn subscriber(&self) -> &Arc<str> {
        &self.subscriber
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

    /// The letters of `scope`, in order; at most [`LIST_LIMIT`].
    pub async fn show(&self, scope: &str) -> Result<Vec<DeadLetter>, DatabaseError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), scope.to_owned());
        let show = self
            .database
            .read(move |session| letters_of(session, &subscriber, &scope, LIST_LIMIT));
        show.await
    }

    /// The letter to retry next: the first of `scope`. Once there is none, the scope goes on with the stream.
    ///
    /// A retry is a loop over this, [`DeadLetters::resolved`] and [`DeadLetters::failed_again`]. It belongs where the
    /// subscriber's own events are handled: an event of the scope that arrives meanwhile has to wait its turn.
    pub async fn first(&self, scope: &str) -> Result<Option<DeadLetter>, DatabaseError> {
        let (subscriber, name) = (Arc::clone(&self.subscriber), scope.to_owned());
        let first = self
            .database
            .read(move |session| first_of(session, &subscriber, &name));
        let first = first.await?;
        if first.is_none() {
            self.change(|parked| {
                parked.remove(scope);
            });
        }
        Ok(first)
    }

    /// The letter's event has been handled: takes it out.
    pub async fn resolved(&self, letter: &DeadLetter) -> Result<(), DatabaseError> {
        let letter = letter.clone();
        self.database
            .write(move |session| remove(session, &letter).map(|_| ()))
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

/// Makes the tables, or brings them up to date.
pub(crate) async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    database.migrate("dead_letters", STEPS).await
}

/// The letters of a scope, in order.
pub(crate) fn letters_of(
    session: &Session<'_>,
    subscriber: &Arc<str>,
    scope: &str,
    limit: usize,
) -> Result<Vec<DeadLetter>, DatabaseError> {
    session.query(
        "SELECT scope, position, event_id, event_type, reason, attempts, parked_at FROM dead_letters
         WHERE subscriber = ?1 AND scope = ?2 ORDER BY position LIMIT ?3",
        &params![subscriber, scope, limit],
        |row| from_row(subscriber, row),
    )
}

/// The letter that the others of its scope wait behind.
pub(crate) fn first_of(
    session: &Session<'_>,
    subscriber: &Arc<str>,
    scope: &str,
) -> Result<Option<DeadLetter>, DatabaseError> {
    Ok(letters_of(session, subscriber, scope, 1)?.into_iter().next())
}

/// Takes one letter out; says how many were there.
pub(crate) fn remove(session: &Session<'_>, letter: &DeadLetter) -> Result<usize, DatabaseError> {
    session.execute(
        "DELETE FROM dead_letters WHERE subscriber = ?1 AND scope = ?2 AND position = ?3",
        &params![&letter.subscriber, &letter.scope, letter.position.0],
    )
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
pub(crate) fn from_row(subscriber: &Arc<str>, row: &Row<'_>) -> Result<DeadLetter, DatabaseError> {
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
