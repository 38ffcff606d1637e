//! Timers and effects: rows beside the log, keyed (aggregate, sequence, kind) by the event that asked for them.
//!
//! A row is there before its event is acknowledged, and goes once what it asks for is recorded. Whoever works on a row
//! holds a lease on it, so that two workers do not call the provider at once; should they all the same (a lease ran
//! out), the provider's idempotency key and the command's id absorb it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use database::{Database, DatabaseError, KeptTable, Row, Session, params, tuples};
use event_schemas::{EventId, Position, RecordedEvent, StreamId, Timestamp, Version};
use event_store::{Log, ReadError};
use sqlite_file::SqliteError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

macro_rules! table_steps {
    ($table:literal) => {
        concat!(
            "CREATE TABLE ",
            $table,
            " (
                 aggregate_type TEXT NOT NULL,
                 aggregate_id TEXT NOT NULL,
                 sequence INTEGER NOT NULL,
                 kind TEXT NOT NULL,
                 position INTEGER NOT NULL,
                 next_attempt_at INTEGER NOT NULL,
                 leased INTEGER NOT NULL,
                 attempts INTEGER NOT NULL,
                 PRIMARY KEY (aggregate_type, aggregate_id, sequence, kind)
             ) STRICT, WITHOUT ROWID;
             CREATE INDEX ",
            $table,
            "_by_time ON ",
            $table,
            " (next_attempt_at)"
        )
    };
}

const STEPS: &[&str] = &[
    table_steps!("timers"),
    table_steps!("effects"),
    crate::reconcile::STEP,
];

const COLUMNS: &[&str] = &[
    "aggregate_type",
    "aggregate_id",
    "sequence",
    "kind",
    "position",
    "next_attempt_at",
    "leased",
    "attempts",
];

pub(crate) const KEPT_TIMERS: KeptTable = KeptTable {
    name: "timers",
    columns: COLUMNS,
    key: 4,
    filter: None,
};

pub(crate) const KEPT_EFFECTS: KeptTable = KeptTable {
    name: "effects",
    ..KEPT_TIMERS
};

/// Held by whoever leases, so that no two workers are given the same row.
const LEASING: &str = "sagas/lease";

/// A row that waits for someone to look at its dead letter. (`revive` spells it out.)
const NEVER: i64 = i64::MAX;

/// Rows of one statement; a power of two.
const ROWS_AT_ONCE: usize = 64;

/// Which of the two tables; they have the same columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Timers,
    Effects,
}

/// The statements on one table.
struct Sql {
    name: &'static str,
    due: &'static str,
    lease: &'static str,
    again: &'static str,
    next: &'static str,
    busy: &'static str,
    release: &'static str,
    revive: &'static str,
}

macro_rules! sql {
    ($table:literal) => {
        Sql {
            name: $table,
            due: concat!(
                "SELECT aggregate_type, aggregate_id, sequence, kind, position, attempts FROM ",
                $table,
                " WHERE next_attempt_at <= ?1 ORDER BY next_attempt_at LIMIT ?2"
            ),
            // A leased row is due again when its lease ends: that is how a dead worker's rows are found.
            lease: concat!(
                "UPDATE ",
                $table,
                " SET next_attempt_at = ?5, leased = 1, attempts = attempts + 1
                 WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence = ?3 AND kind = ?4"
            ),
            again: concat!(
                "UPDATE ",
                $table,
                " SET next_attempt_at = ?5, leased = 0
                 WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence = ?3 AND kind = ?4"
            ),
            next: concat!("SELECT min(next_attempt_at) FROM ", $table),
            busy: concat!(
                "SELECT EXISTS (SELECT 1 FROM ",
                $table,
                " WHERE next_attempt_at <= ?1 OR leased = 1)"
            ),
            release: concat!(
                "UPDATE ",
                $table,
                " SET next_attempt_at = ?1, leased = 0 WHERE leased = 1"
            ),
            revive: concat!(
                "UPDATE ",
                $table,
                " SET next_attempt_at = ?5, leased = 0, attempts = 0
                 WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence = ?3 AND kind = ?4
                     AND next_attempt_at = 9223372036854775807"
            ),
        }
    };
}

const TIMERS: Sql = sql!("timers");
const EFFECTS: Sql = sql!("effects");

impl Table {
    const fn sql(self) -> &'static Sql {
        match self {
            Self::Timers => &TIMERS,
            Self::Effects => &EFFECTS,
        }
    }
}

/// One row, leased.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkItem {
    pub(crate) table: Table,
    /// The event that asked for it.
    pub(crate) event: EventId,
    pub(crate) position: Position,
    pub(crate) kind: String,
    /// Counting this one.
    pub(crate) attempts: u32,
    /// The event itself, if it is at hand.
    pub(crate) recorded: Option<Arc<RecordedEvent>>,
}

/// What a batch of events asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Add {
        table: Table,
        recorded: Arc<RecordedEvent>,
        kind: &'static str,
        due_at: Timestamp,
    },
    /// All timers of the stream of this kind.
    ClearTimers { stream: StreamId, kind: &'static str },
}

impl Change {
    pub(crate) fn add(
        table: Table,
        recorded: &Arc<RecordedEvent>,
        kind: &'static str,
        due_at: Timestamp,
    ) -> Self {
        Self::Add {
            table,
            recorded: Arc::clone(recorded),
            kind,
            due_at,
        }
    }
}

/// What a worker finds when it looks.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) items: Vec<WorkItem>,
    /// When the next row falls due, microseconds since the epoch.
    pub(crate) next_at: Option<i64>,
}

/// The tables `timers` and `effects` of the log's database.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    database: Database,
    /// Rings when rows were added or became due earlier.
    changed: Arc<Notify>,
    done: Arc<Mutex<DoneRows>>,
}

/// Rows that are done, and those who wait until they are taken out.
#[derive(Debug, Default)]
struct DoneRows {
    waiting: Vec<(WorkItem, oneshot::Sender<Result<(), DatabaseError>>)>,
    /// Somebody takes rows out, and will look again.
    at_work: bool,
}

fn lock(done: &Mutex<DoneRows>) -> MutexGuard<'_, DoneRows> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// Makes the tables in `database` if they are not there.
    pub(crate) async fn open(database: &Database) -> Result<Self, DatabaseError> {
        database.migrate("sagas", STEPS).await?;
        Ok(Self {
            database: database.clone(),
            changed: Arc::default(),
            done: Arc::default(),
        })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Resolves after the next change (or at once, if there was one since the last time).
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// To be called after a write that used [`apply`] has become durable.
    pub(crate) fn ring(&self) {
        self.changed.notify_one();
    }

    /// Frees what a worker that is gone had leased. Only where there is one process on this database.
    pub(crate) async fn release_leases(&self, now: Timestamp) -> Result<(), DatabaseError> {
        let now = now.as_microsecond();
        let release = self.database.write(move |session| {
            for table in [Table::Timers, Table::Effects] {
                session.execute(table.sql().release, &params![now])?;
            }
            Ok(())
        });
        release.await
    }

    /// Leases up to `max` due rows until `lease_until`, timers before effects.
    pub(crate) async fn lease(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        max: usize,
    ) -> Result<Due, DatabaseError> {
        let (now, lease_until) = (now.as_microsecond(), lease_until.as_microsecond());
        let lease = self.database.write(move |session| {
            session.lock(LEASING)?;
            let mut due = Due::default();
            for table in [Table::Timers, Table::Effects] {
                let sql = table.sql();
                let left = max - due.items.len();
                let found = session.query(sql.due, &params![now, left], |row| item_from(table, row))?;
                for item in found {
                    // None is changed if its worker has finished it meanwhile.
                    if execute_at(session, sql.lease, &item.event, &item.kind, lease_until)? > 0 {
                        due.items.push(item);
                    }
                }
                let next = session.query_one(sql.next, &[], |row| row.get::<Option<i64>>(0))?;
                due.next_at = [due.next_at, next].into_iter().flatten().min();
            }
            Ok(due)
        });
        lease.await
    }

    /// What the row asked for has been recorded, or is moot. Rows that come while others are taken out go together, next.
    pub(crate) async fn done(&self, item: &WorkItem) -> Result<(), DatabaseError> {
        let (reply, answer) = oneshot::channel();
        let first = {
            let mut done = lock(&self.done);
            done.waiting.push((item.clone(), reply));
            !std::mem::replace(&mut done.at_work, true)
        };
        if first {
            // Not in the caller's future, which may be dropped while others wait.
            tokio::spawn(self.clone().take_out());
        }
        answer.await.unwrap_or(Err(SqliteError::Closed.into()))
    }

    /// Deletes rows that are done until none waits.
    async fn take_out(self) {
        loop {
            let taken = {
                let mut done = lock(&self.done);
                done.at_work = !done.waiting.is_empty();
                std::mem::take(&mut done.waiting)
            };
            if taken.is_empty() {
                return;
            }
            let (items, replies): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let items = Arc::new(items);
            let together = self.delete(&items, 0..items.len()).await;
            for (number, reply) in replies.into_iter().enumerate() {
                let deleted = match &together {
                    // Rows of other writes are in the way of some of them, say: each for itself.
                    Err(error) if error.retryable() && items.len() > 1 => {
                        self.delete(&items, number..number + 1).await
                    }
                    together => together.clone(),
                };
                // Whoever asked may have been cancelled.
                let _ = reply.send(deleted);
            }
        }
    }

    async fn delete(&self, items: &Arc<Vec<WorkItem>>, which: Range<usize>) -> Result<(), DatabaseError> {
        let items = Arc::clone(items);
        let delete = self
            .database
            .write(move |session| delete(session, items.get(which).unwrap_or_default()));
        delete.await
    }

    /// To be tried again at `at`.
    pub(crate) async fn again(&self, item: &WorkItem, at: Timestamp) -> Result<(), DatabaseError> {
        self.set(item, at.as_microsecond()).await
    }

    /// Kept, but not tried again before [`Work::revive`].
    pub(crate) async fn park(&self, item: &WorkItem) -> Result<(), DatabaseError> {
        self.set(item, NEVER).await
    }

    /// A parked row is to be tried at once, as if for the first time: in whichever table it is. One that somebody works
    /// on, or that was revived before, stays as it is.
    pub(crate) async fn revive(
        &self,
        event: &EventId,
        kind: &str,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        let (event, kind, now) = (event.clone(), kind.to_owned(), now.as_microsecond());
        let revive = self.database.write(move |session| {
            for table in [Table::Timers, Table::Effects] {
                execute_at(session, table.sql().revive, &event, &kind, now)?;
            }
            Ok::<_, DatabaseError>(())
        });
        revive.await?;
        self.ring();
        Ok(())
    }

    async fn set(&self, item: &WorkItem, at: i64) -> Result<(), DatabaseError> {
        let item = item.clone();
        let sql = item.table.sql().again;
        let set = self
            .database
            .write(move |session| execute_at(session, sql, &item.event, &item.kind, at));
        set.await?;
        self.ring();
        Ok(())
    }

    /// Whether any row is due at `now` or being worked on.
    pub(crate) async fn busy(&self, now: Timestamp) -> Result<bool, DatabaseError> {
        let now = now.as_microsecond();
        let busy = self.database.read(move |session| {
            for table in [Table::Timers, Table::Effects] {
                if session.query_one(table.sql().busy, &params![now], |row| row.get(0))? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        busy.await
    }
}

/// Writes `changes` within a write of the caller's. With `leased_until`, new effects are leased by the caller from the
/// start; returns those.
pub(crate) fn apply(
    session: &Session<'_>,
    changes: &[Change],
    leased_until: Option<Timestamp>,
) -> Result<Vec<WorkItem>, DatabaseError> {
    // What is cleared takes with it what was added before, in this batch too.
    let mut cleared: BTreeMap<(&StreamId, &str), usize> = BTreeMap::new();
    for (number, change) in changes.iter().enumerate() {
        if let Change::ClearTimers { stream, kind } = change {
            cleared.insert((stream, kind), number);
        }
    }
    let timers: Vec<(&StreamId, &str)> = cleared.keys().copied().collect();
    clear_timers(session, &timers)?;
    let mut leased = Vec::new();
    for table in [Table::Timers, Table::Effects] {
        let lease = leased_until.filter(|_| table == Table::Effects);
        let added = changes
            .iter()
            .enumerate()
            .filter_map(|(number, change)| match change {
                Change::Add {
                    table: to,
                    recorded,
                    kind,
                    due_at,
                } if *to == table => {
                    let cleared = cleared.get(&(&recorded.stream, *kind));
                    let stays = table == Table::Effects || cleared.is_none_or(|at| *at < number);
                    stays.then_some((recorded, *kind, lease.unwrap_or(*due_at)))
                }
                _ => None,
            });
        let added: Vec<_> = added.collect();
        leased.extend(insert(session, table, &added, lease.is_some())?);
    }
    Ok(leased)
}

/// An event, what it asks for, and when that is due.
type Added<'a> = (&'a Arc<RecordedEvent>, &'static str, Timestamp);

/// Adds rows. A repeat of an event finds its row, or makes one that will be found to be moot. Returns what was added, if
/// it is `leased`.
fn insert(
    session: &Session<'_>,
    table: Table,
    rows: &[Added<'_>],
    leased: bool,
) -> Result<Vec<WorkItem>, DatabaseError> {
    let mut items = Vec::new();
    for (chunk, values) in in_statements(rows, 8) {
        let mut params = Vec::with_capacity(chunk.len() * 8);
        for (recorded, kind, due_at) in &chunk {
            params.extend(params![
                recorded.stream.aggregate_type.as_str(),
                recorded.stream.aggregate_id.as_str(),
                recorded.version.0,
                *kind,
                recorded.position.0,
                due_at.as_microsecond(),
                leased,
                leased,
            ]);
        }
        let sql = format!(
            "INSERT INTO {} (aggregate_type, aggregate_id, sequence, kind, position, next_attempt_at, leased, attempts)
             VALUES {values} ON CONFLICT DO NOTHING RETURNING aggregate_type, aggregate_id, sequence, kind",
            table.sql().name
        );
        let added = session.query(&sql, &params, |row| {
            let stream = StreamId::new(row.parse(0)?, &*row.get::<String>(1)?);
            Ok::<_, DatabaseError>((stream, row.get::<u64>(2)?, row.get::<String>(3)?))
        })?;
        if !leased {
            continue;
        }
        for (stream, version, kind) in added {
            let is_it = |(recorded, asked, _): &&Added<'_>| {
                recorded.version.0 == version && *asked == kind && recorded.stream == stream
            };
            if let Some((recorded, _, _)) = chunk.iter().find(is_it) {
                items.push(WorkItem {
                    table,
                    event: recorded.id(),
                    position: recorded.position,
                    kind,
                    attempts: 1,
                    recorded: Some(Arc::clone(recorded)),
                });
            }
        }
    }
    Ok(items)
}

fn delete(session: &Session<'_>, items: &[WorkItem]) -> Result<(), DatabaseError> {
    for table in [Table::Timers, Table::Effects] {
        let mut items: Vec<&WorkItem> = items.iter().filter(|item| item.table == table).collect();
        // Writes that take the same rows mostly take them in the same order, and so do not wait for each other in a circle.
        items.sort_unstable_by(|a, b| (&a.event, &a.kind).cmp(&(&b.event, &b.kind)));
        for (chunk, values) in in_statements(&items, 4) {
            let keys = chunk.iter().flat_map(|item| {
                params![
                    item.event.stream.aggregate_type.as_str(),
                    item.event.stream.aggregate_id.as_str(),
                    item.event.version.0,
                    &item.kind,
                ]
            });
            let sql = delete_by(table, "(aggregate_type, aggregate_id, sequence, kind)", &values);
            session.execute(&sql, &keys.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

fn clear_timers(session: &Session<'_>, timers: &[(&StreamId, &str)]) -> Result<(), DatabaseError> {
    for (chunk, values) in in_statements(timers, 3) {
        let keys = chunk.iter().flat_map(|(stream, kind)| {
            params![
                stream.aggregate_type.as_str(),
                stream.aggregate_id.as_str(),
                *kind
            ]
        });
        let sql = delete_by(Table::Timers, "(aggregate_type, aggregate_id, kind)", &values);
        session.execute(&sql, &keys.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// For a plain list of values, older versions of SQLite read the whole table.
fn delete_by(table: Table, columns: &str, values: &str) -> String {
    let table = table.sql().name;
    format!("DELETE FROM {table} WHERE {columns} IN (SELECT * FROM (VALUES {values}) AS k)")
}

/// `rows` as they go into statements, each with its tuples of so many `columns`. The last row is repeated until there are a
/// power of two, so that few different statements are to be prepared; what is done twice must be as if done once.
fn in_statements<T: Copy>(rows: &[T], columns: usize) -> impl Iterator<Item = (Vec<T>, String)> {
    rows.chunks(ROWS_AT_ONCE).map(move |chunk| {
        let count = chunk.len().next_power_of_two();
        let rows = chunk.iter().chain(chunk.last().into_iter().cycle());
        (rows.take(count).copied().collect(), tuples(count, columns))
    })
}

/// The event that a row or a dead letter is about; an error if it is not in the log or cannot be read.
pub(crate) async fn read_event(log: &Log, id: &EventId) -> Result<Arc<RecordedEvent>, ReadEventError> {
    let before = Version(id.version.0.saturating_sub(1));
    let mut found = log.read_stream(&id.stream, before, Some(id.version)).await?;
    found.pop().ok_or_else(|| ReadEventError::Missing(id.clone()))
}

/// Why [`read_event`] has no event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEventError {
    #[error("the log has no event {0}")]
    Missing(EventId),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The short way from the runner to the worker of the same process, for rows that are leased to it from the start.
/// Bounded: without room the rows are left to whoever looks for due ones.
#[derive(Clone)]
pub(crate) struct Handoff {
    sender: mpsc::UnboundedSender<Handed>,
    room: Arc<Semaphore>,
}

/// A leased row with its place in the worker's queue.
pub(crate) struct Handed {
    pub(crate) item: WorkItem,
    pub(crate) place: OwnedSemaphorePermit,
}

/// Room for some rows at the worker.
pub(crate) struct Room {
    sender: mpsc::UnboundedSender<Handed>,
    places: OwnedSemaphorePermit,
}

impl Handoff {
    /// `room` is how many rows may be at the worker, waiting or under way.
    pub(crate) fn new(room: usize) -> (Self, mpsc::UnboundedReceiver<Handed>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            Self {
                sender,
                room: Arc::new(Semaphore::new(room)),
            },
            receiver,
        )
    }

    /// Room for `rows`, if there is and if there are any.
    pub(crate) fn room_for(&self, rows: usize) -> Option<Room> {
        let rows = u32::try_from(rows).ok().filter(|rows| *rows > 0)?;
        let places = Arc::clone(&self.room).try_acquire_many_owned(rows).ok()?;
        Some(Room {
            sender: self.sender.clone(),
            places,
        })
    }
}

impl Room {
    pub(crate) fn hand_over(mut self, items: Vec<WorkItem>) {
        for item in items {
            let Some(place) = self.places.split(1) else { break };
            // The worker may have ended: the lease will run out.
            let _ = self.sender.send(Handed { item, place });
        }
    }
}

/// Runs a statement of the form (key…, time).
fn execute_at(
    session: &Session<'_>,
    sql: &str,
    event: &EventId,
    kind: &str,
    at: i64,
) -> Result<usize, DatabaseError> {
    let stream = &event.stream;
    let (aggregate_type, id) = (stream.aggregate_type.as_str(), stream.aggregate_id.as_str());
    session.execute(sql, &params![aggregate_type, id, event.version.0, kind, at])
}

/// Columns: `aggregate_type`, `aggregate_id`, sequence, kind, position, attempts before this one.
fn item_from(table: Table, row: &Row<'_>) -> Result<WorkItem, DatabaseError> {
    let stream = StreamId::new(row.parse(0)?, &*row.get::<String>(1)?);
    Ok(WorkItem {
        table,
        event: EventId {
            stream,
            version: Version(row.get(2)?),
        },
        kind: row.get(3)?,
        position: Position(row.get(4)?),
        attempts: row.get::<u32>(5)?.saturating_add(1),
        recorded: None,
    })
}

/// The events whose effects are still to be done: for an audit, which holds them against the log's open intents.
pub async fn open_effects(database: &Database) -> Result<HashSet<EventId>, DatabaseError> {
    Work::open(database).await?;
    let read = database.read(|session| {
        let rows = "SELECT aggregate_type, aggregate_id, sequence FROM effects";
        session.query(rows, &[], |row| {
            let (aggregate_type, id): (String, String) = (row.get(0)?, row.get(1)?);
            // A type that this binary does not know asked for nothing that it could do.
            let Ok(aggregate_type) = aggregate_type.parse() else {
                return Ok(None);
            };
            let version = Version(row.get(2)?);
            let stream = StreamId::new(aggregate_type, id.as_str());
            Ok::<_, DatabaseError>(Some(EventId { stream, version }))
        })
    });
    Ok(read.await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
