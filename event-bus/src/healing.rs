//! Healing from outside: what is parked under any subscriber, and what people ask to be done about it.
//!
//! A retry belongs where the subscriber's own events are handled, and whoever asks for it, a person at a command line or
//! through the API, is in another process. So a request is a row beside the letters: the process that the scope's events
//! go to finds it, carries it out between two batches and writes down what came of it. A request is never lost: without
//! such a process it waits for one. Carried out twice it does no harm: events are handled once whoever hands them in, and
//! to skip names the one letter that is given up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError, Row, Session, params};
use event_schemas::{Position, StreamId, Timestamp};
use tokio::time::Instant;

use crate::dead_letters::{self, DeadLetter, DeadLetters, LIST_LIMIT};

pub(crate) const TABLE: &str = "CREATE TABLE dead_letter_requests (
     id INTEGER NOT NULL PRIMARY KEY,
     subscriber TEXT NOT NULL,
     scope TEXT NOT NULL,
     skip_position INTEGER,
     asked_by TEXT NOT NULL,
     asked_at INTEGER NOT NULL,
     outcome TEXT,
     handled INTEGER,
     detail TEXT,
     done_at INTEGER
 ) STRICT;
 CREATE INDEX dead_letter_requests_open ON dead_letter_requests (id) WHERE done_at IS NULL";

/// Held by whoever asks, so that numbers are given once.
const ASKING: &str = "dead_letter_requests";

/// Requests that may wait to be carried out. More are refused.
const WAITING_MAX: usize = 1_000;

/// Requests that are kept after they were carried out: who asked for what, and what came of it.
const KEPT: u64 = 1_000;

/// Between two looks of one who waits for an outcome.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer than any subscriber's name and scope together.
const ID_BYTES_MAX: usize = 512;

/// What is parked together, and for whom; written `<subscriber>:<scope>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeId {
    pub subscriber: Arc<str>,
    /// Usually the stream, for policies on stock (SKU, order).
    pub scope: Arc<str>,
}

impl ScopeId {
    /// The stream whose events are parked there; none if the scope is not one of events.
    pub fn stream(&self) -> Option<StreamId> {
        let stream = self.scope.split('#').next()?;
        stream.parse().ok()
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.subscriber, self.scope)
    }
}

/// The text names no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected <subscriber>:<scope>, such as orders.g1:order/0190a5d4-ac96-774b-bcce-b302099a8057")]
pub struct ParseScopeIdError;

impl FromStr for ScopeId {
    type Err = ParseScopeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (subscriber, scope) = text.split_once(':').ok_or(ParseScopeIdError)?;
        if subscriber.is_empty() || scope.is_empty() || text.len() > ID_BYTES_MAX {
            return Err(ParseScopeIdError);
        }
        let (subscriber, scope) = (subscriber.into(), scope.into());
        Ok(Self { subscriber, scope })
    }
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

impl ParkedScope {
    /// What it is asked about by.
    pub fn id(&self) -> ScopeId {
        ScopeId {
            subscriber: Arc::clone(&self.subscriber),
            scope: Arc::clone(&self.scope),
        }
    }
}

/// What a retry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// So many letters were handled, and the scope goes on with the stream.
    Healed { handled: u64 },
    /// So many were handled; then one failed again and stays parked with those behind it.
    StillParked { handled: u64, reason: String },
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Handle the letters of the scope again, in order.
    Retry,
    /// Give up on the first letter of the scope, which is this one. Those behind it wait for a retry.
    Skip { position: Position },
}

/// A remedy that someone has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealingRequest {
    pub id: u64,
    pub scope: ScopeId,
    pub remedy: Remedy,
    /// Who asked, for the record.
    pub asked_by: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealingOutcome {
    Retried(Retried),
    /// One letter was given up; the text says which.
    Skipped {
        what: String,
    },
    /// The letter to skip was not the first of its scope any more.
    Moot,
}

/// Why nothing was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("nothing is parked under {0}")]
    NotParked(ScopeId),
    /// The letter to skip is not the one that the others wait behind.
    #[error("the first letter of {scope} is that at position {first}")]
    NotFirst { scope: ScopeId, first: Position },
    #[error("{WAITING_MAX} requests wait to be carried out")]
    TooMany,
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// A request that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Which of the databases it is in.
    place: usize,
    /// Its number there.
    pub id: u64,
}

/// The dead letters of all subscribers, for those who are none of them. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Healing {
    /// Where letters are; those of one subscriber are in one of them.
    databases: Arc<[Database]>,
}

impl Healing {
    /// Of the subscribers that keep their letters in one of `databases`. Makes the tables if they are not there.
    pub async fn open(databases: impl IntoIterator<Item = Database>) -> Result<Self, DatabaseError> {
        let databases: Arc<[Database]> = databases.into_iter().collect();
        for database in databases.iter() {
            dead_letters::migrate(database).await?;
        }
        Ok(Self { databases })
    }

    /// Up to `limit` parked scopes behind `after`, ordered by id, of one subscriber or of all.
    pub async fn list(
        &self,
        subscriber: Option<&str>,
        after: Option<&ScopeId>,
        limit: usize,
    ) -> Result<Vec<ParkedScope>, DatabaseError> {
        let mut listed = Vec::new();
        for database in self.databases.iter() {
            let subscriber = subscriber.unwrap_or_default().to_owned();
            let (after_subscriber, after_scope) = after.map_or_else(Default::default, |after| {
                (after.subscriber.to_string(), after.scope.to_string())
            });
            let params = (after_subscriber, after_scope, subscriber, limit);
            listed.extend(database.read(move |session| list(session, params)).await?);
        }
        if self.databases.len() > 1 {
            listed.sort_by_key(ParkedScope::id);
            listed.truncate(limit);
        }
        Ok(listed)
    }

    /// Up to `limit` letters of one scope, in order.
    pub async fn show(&self, id: &ScopeId, limit: usize) -> Result<Vec<DeadLetter>, DatabaseError> {
        let mut letters = Vec::new();
        for database in self.databases.iter() {
            let id = id.clone();
            let read = move |session: &Session<'_>| {
                dead_letters::letters_of(session, &id.subscriber, &id.scope, limit)
            };
            letters.extend(database.read(read).await?);
        }
        Ok(letters)
    }

    /// Asks for `remedy`. What is asked for already and not carried out yet is not asked for twice.
    pub async fn ask(
        &self,
        scope: &ScopeId,
        remedy: Remedy,
        asked_by: &str,
        now: Timestamp,
    ) -> Result<Asked, AskError> {
        for (place, database) in self.databases.iter().enumerate() {
            let (scope, asked_by) = (scope.clone(), asked_by.to_owned());
            let add = move |session: &Session<'_>| add(session, scope, remedy, &asked_by, now);
            match database.write(add).await {
                Err(AskError::NotParked(_)) => {}
                asked => return asked.map(|id| Asked { place, id }),
            }
        }
        Err(AskError::NotParked(scope.clone()))
    }

    /// What became of a request; none until it has been carried out.
    pub async fn outcome(&self, asked: Asked) -> Result<Option<HealingOutcome>, DatabaseError> {
        let Some(database) = self.databases.get(asked.place) else {
            return Ok(None);
        };
        let outcome = database.read(move |session| {
            session.query_opt(
                "SELECT outcome, handled, detail FROM dead_letter_requests WHERE id = ?1 AND done_at IS NOT NULL",
                &params![asked.id],
                outcome_from,
            )
        });
        outcome.await
    }

    /// As [`Healing::outcome`], and waits for it until `deadline`.
    pub async fn wait(
        &self,
        asked: Asked,
        deadline: Instant,
    ) -> Result<Option<HealingOutcome>, DatabaseError> {
        loop {
            let outcome = self.outcome(asked).await?;
            if outcome.is_some() || Instant::now() >= deadline {
                return Ok(outcome);
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    }
}

impl DeadLetters {
    /// The parked scopes, each with its first letter, by scope; at most [`LIST_LIMIT`].
    pub async fn list(&self) -> Result<Vec<ParkedScope>, DatabaseError> {
        let params = (
            String::new(),
            String::new(),
            self.subscriber.to_string(),
            LIST_LIMIT,
        );
        self.database.read(move |session| list(session, params)).await
    }

    /// What this subscriber has been asked for and has not done yet, in the order in which it was asked.
    pub async fn asked_for(&self) -> Result<Vec<HealingRequest>, DatabaseError> {
        let subscriber = Arc::clone(&self.subscriber);
        let asked = self.database.read(move |session| {
            session.query(
                "SELECT id, scope, skip_position, asked_by FROM dead_letter_requests
                 WHERE done_at IS NULL AND subscriber = ?1 ORDER BY id LIMIT ?2",
                &params![&subscriber, WAITING_MAX],
                |row| {
                    let skip: Option<u64> = row.get(2)?;
                    Ok(HealingRequest {
                        id: row.get(0)?,
                        scope: ScopeId {
                            subscriber: Arc::clone(&subscriber),
                            scope: row.get::<String>(1)?.into(),
                        },
                        remedy: skip.map_or(Remedy::Retry, |position| Remedy::Skip {
                            position: Position(position),
                        }),
                        asked_by: row.get(3)?,
                    })
                },
            )
        });
        asked.await
    }

    /// Writes down what came of a retry that was asked for.
    pub async fn answer(
        &self,
        request: &HealingRequest,
        retried: Retried,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        tracing::warn!(
            request = request.id, scope = %request.scope, asked_by = request.asked_by, ?retried,
            "dead letters were retried"
        );
        let id = request.id;
        let answer = self
            .database
            .write(move |session| conclude(session, id, &HealingOutcome::Retried(retried), now));
        answer.await
    }

    /// Gives up on the letter that `request` names, if it is still the first of its scope, and writes that down with it.
    /// Those behind it stay parked until they are retried. As a retry, it belongs where the subscriber's own events are
    /// handled.
    pub async fn skip(
        &self,
        request: &HealingRequest,
        position: Position,
        now: Timestamp,
    ) -> Result<HealingOutcome, DatabaseError> {
        let asked = request.clone();
        let skip = self.database.write(move |session| {
            let ScopeId { subscriber, scope } = &asked.scope;
            let first = dead_letters::first_of(session, subscriber, scope)?;
            let outcome = match first.filter(|first| first.position == position) {
                // None is there any more if another process was quicker.
                Some(letter) if dead_letters::remove(session, &letter)? == 1 => HealingOutcome::Skipped {
                    what: describe(&letter),
                },
                _ => HealingOutcome::Moot,
            };
            conclude(session, asked.id, &outcome, now)?;
            Ok::<_, DatabaseError>(outcome)
        });
        let outcome = skip.await?;
        tracing::warn!(
            request = request.id, scope = %request.scope, asked_by = request.asked_by, ?outcome,
            "a dead letter was to be given up"
        );
        // Learns whether any is left.
        self.first(&request.scope.scope).await?;
        Ok(outcome)
    }
}

/// `params`: the subscriber and the scope to go on behind, the one subscriber that is asked about or nothing, and how many.
fn list(
    session: &Session<'_>,
    (after_subscriber, after_scope, subscriber, limit): (String, String, String, usize),
) -> Result<Vec<ParkedScope>, DatabaseError> {
    session.query(
        "SELECT d.scope, d.position, d.event_id, d.event_type, d.reason, d.attempts, d.parked_at, s.letters, d.subscriber
         FROM (SELECT subscriber, scope, min(position) AS first, count(*) AS letters FROM dead_letters
               WHERE (subscriber > ?1 OR (subscriber = ?1 AND scope > ?2)) AND (?3 = '' OR subscriber = ?3)
               GROUP BY subscriber, scope ORDER BY subscriber, scope LIMIT ?4) AS s
         JOIN dead_letters AS d ON d.subscriber = s.subscriber AND d.scope = s.scope AND d.position = s.first
         ORDER BY d.subscriber, d.scope",
        &params![after_subscriber, after_scope, subscriber, limit],
        |row| {
            let first = dead_letters::from_row(&row.get::<String>(8)?.into(), row)?;
            Ok(ParkedScope {
                subscriber: Arc::clone(&first.subscriber),
                scope: Arc::clone(&first.scope),
                letters: row.get(7)?,
                first,
            })
        },
    )
}

fn describe(letter: &DeadLetter) -> String {
    format!(
        "{} {} at position {}: {}",
        letter.event_id,
        letter.event_type,
        letter.position,
        letter.reason.as_deref().unwrap_or("it only waited")
    )
}

fn add(
    session: &Session<'_>,
    scope: ScopeId,
    remedy: Remedy,
    asked_by: &str,
    now: Timestamp,
) -> Result<u64, AskError> {
    session.lock(ASKING)?;
    let first = dead_letters::first_of(session, &scope.subscriber, &scope.scope)?;
    let Some(first) = first else {
        return Err(AskError::NotParked(scope));
    };
    let skip = match remedy {
        Remedy::Retry => None,
        Remedy::Skip { position } if position == first.position => Some(position.0),
        Remedy::Skip { .. } => {
            let first = first.position;
            return Err(AskError::NotFirst { scope, first });
        }
    };
    let asked: Option<u64> = session.query_opt(
        "SELECT id FROM dead_letter_requests WHERE subscriber = ?1 AND scope = ?2 AND done_at IS NULL
             AND coalesce(skip_position, 0) = ?3",
        &params![&scope.subscriber, &scope.scope, skip.unwrap_or_default()],
        |row| row.get(0),
    )?;
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let waiting: usize = session.query_one(
        "SELECT count(*) FROM dead_letter_requests WHERE done_at IS NULL",
        &[],
        |row| row.get(0),
    )?;
    if waiting >= WAITING_MAX {
        return Err(AskError::TooMany);
    }
    let last = "SELECT coalesce(max(id), 0) FROM dead_letter_requests";
    let id = session.query_one(last, &[], |row| row.get::<u64>(0))? + 1;
    session.execute(
        "INSERT INTO dead_letter_requests (id, subscriber, scope, skip_position, asked_by, asked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &params![
            id,
            &scope.subscriber,
            &scope.scope,
            skip,
            asked_by,
            now.as_microsecond()
        ],
    )?;
    session.execute(
        "DELETE FROM dead_letter_requests WHERE id <= ?1 AND done_at IS NOT NULL",
        &params![id.saturating_sub(KEPT)],
    )?;
    Ok(id)
}

/// A request that another process has concluded meanwhile stays as it is.
fn conclude(
    session: &Session<'_>,
    id: u64,
    outcome: &HealingOutcome,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let (name, handled, detail) = match outcome {
        HealingOutcome::Retried(Retried::Healed { handled }) => ("healed", Some(*handled), None),
        HealingOutcome::Retried(Retried::StillParked { handled, reason }) => {
            ("still parked", Some(*handled), Some(reason.as_str()))
        }
        HealingOutcome::Skipped { what } => ("skipped", None, Some(what.as_str())),
        HealingOutcome::Moot => ("moot", None, None),
    };
    session.execute(
        "UPDATE dead_letter_requests SET outcome = ?2, handled = ?3, detail = ?4, done_at = ?5
         WHERE id = ?1 AND done_at IS NULL",
        &params![id, name, handled, detail, now.as_microsecond()],
    )?;
    Ok(())
}

/// Columns: outcome, handled, detail.
fn outcome_from(row: &Row<'_>) -> Result<HealingOutcome, DatabaseError> {
    let (name, handled): (String, Option<u64>) = (row.get(0)?, row.get(1)?);
    let (handled, detail) = (
        handled.unwrap_or_default(),
        row.get::<Option<String>>(2)?.unwrap_or_default(),
    );
    Ok(match name.as_str() {
        "healed" => HealingOutcome::Retried(Retried::Healed { handled }),
        "still parked" => HealingOutcome::Retried(Retried::StillParked {
            handled,
            reason: detail,
        }),
        "skipped" => HealingOutcome::Skipped { what: detail },
        _ => HealingOutcome::Moot,
    })
}
