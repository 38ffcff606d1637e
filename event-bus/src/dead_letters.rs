//! Events that a subscriber could not process, and what came behind them.
//!
//! The first event of a scope that fails parks the scope; later events of that scope are parked behind it unseen, so
//! that they are handled in order once it has been healed. Other scopes go on. A letter refers to its event by
//! position and id; the event itself stays in the log.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use event_schemas::{EventId, Position, Timestamp};
use sqlite_file::rusqlite::{self, Row, types::Type};
use sqlite_file::{Connection, SqliteError, SqliteFile};

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
    file: SqliteFile,
    subscriber: Arc<str>,
    /// The parked scopes, so that the hot path asks no database.
    parked: Arc<RwLock<HashSet<Arc<str>>>>,
}

impl DeadLetters {
    /// Makes the table in `file` if it is not there and reads which scopes are parked. Meant for start-up.
    pub async fn open(file: &SqliteFile, subscriber: &str) -> Result<Self, SqliteError> {
        file.migrate("dead_letters", STEPS)?;
        let letters = Self {
            file: file.clone(),
            subscriber: subscriber.into(),
            parked: Arc::default(),
        };
        letters.reload().await?;
        Ok(letters)
    }

    /// Reads again which scopes are parked: for a subscriber whose letters another process may have healed.
    pub async fn reload(&self) -> Result<(), SqliteError> {
        let subscriber = Arc::clone(&self.subscriber);
        let scopes = self
            .file
            .read(move |conn| {
                let mut select =
                    conn.prepare_cached("SELECT DISTINCT scope FROM dead_letters WHERE subscriber = ?1")?;
                let scopes = select.query_map([&*subscriber], |row| row.get::<_, String>(0))?;
                scopes
                    .map(|scope| Ok(scope?.into()))
                    .collect::<Result<_, SqliteError>>()
            })
            .await?;
        *self.parked.write().unwrap_or_else(PoisonError::into_inner) = scopes;
        Ok(())
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
    pub async fn park(&self, letter: NewDeadLetter) -> Result<(), SqliteError> {
        let scope = Arc::clone(&letter.scope);
        let subscriber = Arc::clone(&self.subscriber);
        self.file
            .write(move |conn| insert(conn, &subscriber, &letter))
            .await?;
        self.parked
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(scope);
        Ok(())
    }

    /// The parked scopes, each with its first letter, by scope; at most [`LIST_LIMIT`].
    pub async fn list(&self) -> Result<Vec<ParkedScope>, SqliteError> {
        let subscriber = Arc::clone(&self.subscriber);
        self.file
            .read(move |conn| {
                let mut select = conn.prepare_cached(
                    "SELECT d.scope, d.position, d.event_id, d.event_type, d.reason, d.attempts, d.parked_at, s.letters
                     FROM (SELECT scope, min(position) AS first, count(*) AS letters
                           FROM dead_letters WHERE subscriber = ?1 GROUP BY scope) AS s
                     JOIN dead_letters AS d ON d.subscriber = ?1 AND d.scope = s.scope AND d.position = s.first
                     ORDER BY d.scope LIMIT ?2",
                )?;
                let rows = select.query_map((&*subscriber, LIST_LIMIT), |row| {
                    let first = from_row(&subscriber, row)?;
                    Ok(ParkedScope {
                        subscriber: Arc::clone(&subscriber),
                        scope: Arc::clone(&first.scope),
                        letters: row.get::<_, i64>(7)?.cast_unsigned(),
                        first,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The letters of `scope`, in order; at most [`LIST_LIMIT`].
    pub async fn show(&self, scope: &str) -> Result<Vec<DeadLetter>, SqliteError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), scope.to_owned());
        self.file
            .read(move |conn| {
                let mut select = conn.prepare_cached(
                    "SELECT scope, position, event_id, event_type, reason, attempts, parked_at FROM dead_letters
                     WHERE subscriber = ?1 AND scope = ?2 ORDER BY position LIMIT ?3",
                )?;
                let rows = select.query_map((&*subscriber, scope, LIST_LIMIT), |row| from_row(&subscriber, row))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The letter to retry next: the first of `scope`. Once there is none, the scope goes on with the stream.
    ///
    /// A retry is a loop over this, [`DeadLetters::resolved`] and [`DeadLetters::failed_again`]. It belongs where the
    /// subscriber's own events are handled: an event of the scope that arrives meanwhile has to wait its turn.
    pub async fn first(&self, scope: &str) -> Result<Option<DeadLetter>, SqliteError> {
        let first = self.show(scope).await?.into_iter().next();
        if first.is_none() {
            self.parked
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(scope);
        }
        Ok(first)
    }

    /// The letter's event has been handled: takes it out.
    pub async fn resolved(&self, letter: &DeadLetter) -> Result<(), SqliteError> {
        self.remove(&letter.scope, letter.position).await
    }

    /// Gives up on the first letter of `scope` and returns it; none if the scope is not parked. Those behind it stay
    /// parked until they are retried. As a retry, it belongs where the subscriber's own events are handled.
    pub async fn skip(&self, scope: &str) -> Result<Option<DeadLetter>, SqliteError> {
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

    async fn remove(&self, scope: &str, position: Position) -> Result<(), SqliteError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), scope.to_owned());
        self.file
            .write(move |conn| {
                conn.prepare_cached(
                    "DELETE FROM dead_letters WHERE subscriber = ?1 AND scope = ?2 AND position = ?3",
                )?
                .execute((&*subscriber, scope, position.0.cast_signed()))?;
                Ok(())
            })
            .await
    }

    /// The letter was retried in vain: it stays, with those behind it.
    pub async fn failed_again(&self, letter: &DeadLetter, reason: String) -> Result<(), SqliteError> {
        let (subscriber, scope) = (Arc::clone(&self.subscriber), Arc::clone(&letter.scope));
        let position = letter.position.0.cast_signed();
        self.file
            .write(move |conn| {
                conn.prepare_cached(
                    "UPDATE dead_letters SET reason = ?4, attempts = attempts + 1
                     WHERE subscriber = ?1 AND scope = ?2 AND position = ?3",
                )?
                .execute((&*subscriber, &*scope, position, reason))?;
                Ok(())
            })
            .await
    }
}

fn insert(conn: &Connection, subscriber: &str, letter: &NewDeadLetter) -> Result<(), SqliteError> {
    let mut upsert = conn.prepare_cached(
        "INSERT INTO dead_letters (subscriber, scope, position, event_id, event_type, reason, attempts, parked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (subscriber, scope, position) DO UPDATE
         SET reason = coalesce(excluded.reason, reason), attempts = attempts + excluded.attempts",
    )?;
    upsert.execute((
        subscriber,
        &*letter.scope,
        letter.position.0.cast_signed(),
        letter.event_id.to_string(),
        &letter.event_type,
        &letter.reason,
        i64::from(letter.reason.is_some()),
        letter.parked_at.as_microsecond(),
    ))?;
    Ok(())
}

/// Columns: scope, position, `event_id`, `event_type`, reason, attempts, `parked_at`.
fn from_row(subscriber: &Arc<str>, row: &Row<'_>) -> Result<DeadLetter, rusqlite::Error> {
    let event_id: String = row.get(2)?;
    Ok(DeadLetter {
        subscriber: Arc::clone(subscriber),
        scope: row.get::<_, String>(0)?.into(),
        position: Position(row.get::<_, i64>(1)?.cast_unsigned()),
        event_id: event_id
            .parse()
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, Box::new(error)))?,
        event_type: row.get(3)?,
        reason: row.get(4)?,
        attempts: row.get(5)?,
        parked_at: Timestamp::from_microsecond(row.get(6)?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(6, Type::Integer, Box::new(error)))?,
    })
}
