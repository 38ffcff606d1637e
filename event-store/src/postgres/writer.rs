//! The journal's writer: one task with a connection of its own, which commits whatever waits by then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use database::{DatabaseError, Postgres, PostgresError};
use event_schemas::{Clock, CommandId, Position, StreamId, Version};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _, query, raw_sql};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::append::{self, Known, Rows, Verdict, judge};
use super::read::{RECEIPTS, receipt, unsigned};
use super::trouble::Trouble;
use crate::Unavailable;
use crate::journal::StoredReceipt;
use crate::queue::{Answers, Batch, JournalEntry, MAX_ENTRIES_PER_COMMIT, Outcome, Queue};
use crate::row::sql_int;
use crate::tail::Tail;

/// How long a batch waits for a server that was lost, before its callers hear of it.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// After which a server that does not answer is given up. Longer than the server's own limits, in [`SESSION`].
const SILENCE: Duration = Duration::from_secs(30);

/// How often a batch is judged again because another process was quicker. Each time takes out what it was quicker with.
const MAX_TRIES: u32 = 32;

/// Whatever the server's or the role's settings are: a commit is durable when it is answered, a lock is not waited for
/// for ever, and keys are looked into by their index, also on tables whose statistics say that they are empty. (Without
/// `jit`, which an estimate gone wrong would set to work for tens of milliseconds on each statement.)
const SESSION: &str = "SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');
    SET default_transaction_isolation = 'read committed';
    SET enable_seqscan = off;
    SET jit = off;
    SET lock_timeout = '10s';
    SET statement_timeout = '20s'";

/// Appends to a PostgreSQL log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PostgresWriter(Arc<Handle>);

/// The last one gone ends the task, after what was handed in.
struct Handle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Queue,
    wake: Notify,
    /// There are no handles any more.
    closing: AtomicBool,
    /// There is no task any more.
    ended: AtomicBool,
}

struct Writer {
    shared: Arc<Shared>,
    postgres: Postgres,
    clock: Clock,
    tail: Arc<Tail>,
    answers: Answers,
    /// Of its own, so that appends never wait for reads.
    connection: Option<PgConnection>,
}

impl PostgresWriter {
    /// Needs a Tokio runtime.
    pub(crate) fn new(postgres: Postgres, clock: Clock, tail: Arc<Tail>) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            shared: Arc::clone(&shared),
            postgres,
            clock,
            tail,
            answers: Answers::start(&shared.queue),
            connection: None,
        };
        tokio::spawn(writer.run());
        Self(Arc::new(Handle(shared)))
    }

    pub(crate) fn submit(&self, entries: &mut Vec<JournalEntry>) {
        let shared = &self.0.0;
        if !entries.is_empty() && shared.queue.push(entries) {
            shared.wake.notify_one();
        }
        if shared.ended.load(Ordering::SeqCst) {
            shared.refuse_waiting();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::SeqCst);
        self.0.wake.notify_one();
    }
}

impl Shared {
    /// Nobody will take them.
    fn refuse_waiting(&self) {
        let mut entries = Vec::new();
        self.queue.take(usize::MAX, &mut entries);
        for entry in entries {
            entry.finish(Outcome::Unavailable(Unavailable::Closed));
        }
    }
}

impl Drop for Writer {
    /// Also when the runtime ends.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.refuse_waiting();
    }
}

impl Writer {
    async fn run(mut self) {
        loop {
            // Before looking: what was handed in before the last handle went is there to be seen.
            let closing = self.shared.closing.load(Ordering::SeqCst);
            let mut entries = Vec::new();
            self.shared.queue.take(MAX_ENTRIES_PER_COMMIT, &mut entries);
            if !entries.is_empty() {
                self.commit_all(entries).await;
            } else if closing {
                return;
            } else {
                self.shared.wake.notified().await;
            }
        }
    }

    /// Commits `entries` in one transaction. If the server refuses a row, in halves, until the entry at fault is alone.
    async fn commit_all(&mut self, entries: Vec<JournalEntry>) {
        let mut parts = vec![entries];
        while let Some(entries) = parts.pop() {
            let mut batch = Batch {
                entries,
                ..Batch::default()
            };
            match self.commit(&mut batch).await {
                Ok(()) => batch.committed(&self.tail),
                Err(Trouble::Refused(_)) if batch.entries.len() > 1 => {
                    parts.push(batch.entries.split_off(batch.entries.len() / 2));
                    parts.push(batch.entries);
                    continue;
                }
                Err(trouble) => {
                    let error = Unavailable::from(trouble);
                    tracing::error!(%error, entries = batch.entries.len(), "a batch could not be stored");
                    batch.fail(&Outcome::Unavailable(error));
                }
            }
            batch.break_chains();
            self.answers.send(batch);
        }
    }

    /// Tries until the entries are stored, or it is certain that they cannot be, or nobody can say within [`PATIENCE`].
    ///
    /// After a try whose outcome is unknown the next one asks for the receipts of all commands. What it finds was
    /// stored; the rest is stored now, unless the server is still at the old try: then one of the two takes the keys
    /// first and the other fails, and asks again.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), Trouble> {
        let (mut deadline, mut pause) = (None, FIRST_PAUSE);
        let (mut tries, mut distrust) = (1, false);
        loop {
            if self.postgres.pool().is_closed() {
                return Err(Trouble::Failed(PostgresError::Closed));
            }
            let silent = || Trouble::Lost(PostgresError::Connection("the server does not answer".to_owned()));
            let attempted = timeout(SILENCE, self.attempt(batch, distrust)).await;
            let trouble = match attempted.unwrap_or_else(|_| Err(silent())) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            distrust = true;
            match &trouble {
                Trouble::Taken if tries < MAX_TRIES => tries += 1,
                Trouble::Contention(error) if tries < MAX_TRIES => {
                    tracing::debug!(%error, "a batch is tried again");
                    tries += 1;
                }
                Trouble::Lost(error) => {
                    let first = deadline.is_none();
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if first {
                        tracing::warn!(%error, "the log's server was lost while a batch was under way");
                    }
                    if Instant::now() + pause > deadline {
                        return Err(trouble);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                _ => return Err(trouble),
            }
        }
    }

    /// Judges the entries and stores those that are to be. With `distrust`, no command is believed to be new.
    async fn attempt(&mut self, batch: &mut Batch, distrust: bool) -> Result<(), Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        batch.recorded_at = self.clock.now();
        let attempted = attempt(&mut connection, batch, distrust).await;
        // Not after a failure of the server's: it may have become the wrong one to ask.
        if !matches!(attempted, Err(Trouble::Lost(_) | Trouble::Failed(_))) {
            self.connection = Some(connection);
        }
        attempted
    }

    async fn connect(&self) -> Result<PgConnection, Trouble> {
        let mut connection = PgConnection::connect_with(self.postgres.connect_options()).await?;
        connection.execute(raw_sql(SESSION)).await?;
        Ok(connection)
    }
}

async fn attempt(connection: &mut PgConnection, batch: &mut Batch, distrust: bool) -> Result<(), Trouble> {
    let entries = &batch.entries;
    let mut known = Known {
        versions: versions(connection, entries).await?,
        receipts: HashMap::new(),
    };
    if distrust {
        let with_command = (0..entries.len()).filter(|number| append::command(&entries[*number]).is_some());
        known.receipts = receipts(connection, entries, with_command.collect()).await?;
    }
    // Mostly none is missing, or those of one look; each round knows more.
    let verdicts = loop {
        match judge(entries, &known) {
            Ok(verdicts) => break verdicts,
            Err(missing) => known
                .receipts
                .extend(receipts(connection, entries, missing).await?),
        }
    };
    let mut before = Position(0);
    if verdicts
        .iter()
        .any(|verdict| matches!(verdict, Verdict::Store { .. }))
    {
        batch.begun = Some(Instant::now());
        let rows = Rows::of(entries, &verdicts);
        before = store(connection, rows, batch.recorded_at.as_microsecond()).await?;
    }
    batch.outcomes = append::outcomes(entries, verdicts, before);
    Ok(())
}

/// Resolves once the rows are durable, with the position before the first of them.
async fn store(connection: &mut PgConnection, rows: Rows<'_>, recorded_at: i64) -> Result<Position, Trouble> {
    let Rows { events, receipts } = rows;
    let stored = query(append::STORE)
        .bind(sql_int(events.sequences.len() as u64))
        .bind(recorded_at)
        .bind(events.aggregate_types)
        .bind(events.aggregate_ids)
        .bind(events.sequences)
        .bind(events.event_types)
        .bind(events.event_versions)
        .bind(events.payloads)
        .bind(events.metadata)
        .bind(receipts.aggregate_types)
        .bind(receipts.aggregate_ids)
        .bind(receipts.command_ids)
        .bind(receipts.fingerprint_keys)
        .bind(receipts.fingerprints)
        .bind(receipts.first_sequences)
        .bind(receipts.last_sequences)
        .bind(receipts.reaches)
        // Reads on behind the row, which the server sends before it commits, until the server says that it is ready for
        // the next statement, and so that the transaction is over.
        .fetch_all(connection)
        .await?;
    let head = stored.first().ok_or_else(|| {
        Trouble::Failed(PostgresError::Sql {
            code: String::new(),
            message: "the log has no head".to_owned(),
        })
    })?;
    Ok(Position(unsigned(head, 0)?))
}

/// The versions of all streams that entries speak of.
async fn versions<'a>(
    connection: &mut PgConnection,
    entries: &'a [JournalEntry],
) -> Result<HashMap<&'a StreamId, Version>, Trouble> {
    let streams: HashSet<&StreamId> = entries
        .iter()
        .filter(|entry| !entry.chain.is_broken())
        .map(append::stream)
        .collect();
    if streams.is_empty() {
        return Ok(HashMap::new());
    }
    let streams: Vec<&StreamId> = streams.into_iter().collect();
    let rows = query(append::VERSIONS)
        .bind(types(streams.iter().copied()))
        .bind(ids(streams.iter().copied()))
        .fetch_all(connection)
        .await?;
    let mut versions = HashMap::with_capacity(rows.len());
    for row in &rows {
        let number = unsigned(row, 0)? as usize;
        versions.insert(streams[number], Version(unsigned(row, 1)?));
    }
    Ok(versions)
}

/// The receipts of the entries with these numbers, or that there are none.
async fn receipts(
    connection: &mut PgConnection,
    entries: &[JournalEntry],
    numbers: Vec<usize>,
) -> Result<HashMap<usize, Option<StoredReceipt>>, Trouble> {
    let commands: Vec<(&StreamId, &CommandId)> = numbers
        .iter()
        .filter_map(|number| append::command(&entries[*number]))
        .collect();
    let command_ids: Vec<&[u8]> = commands
        .iter()
        .map(|(_, id)| id.as_uuid().as_bytes().as_slice())
        .collect();
    let rows = query(RECEIPTS)
        .bind(types(commands.iter().map(|(stream, _)| *stream)))
        .bind(ids(commands.iter().map(|(stream, _)| *stream)))
        .bind(command_ids)
        .fetch_all(connection)
        .await?;
    let mut receipts: HashMap<_, _> = numbers.iter().map(|number| (*number, None)).collect();
    for row in &rows {
        let (ordinal, stored) = receipt(row)?;
        receipts.insert(numbers[ordinal], Some(stored));
    }
    Ok(receipts)
}

fn types<'a>(streams: impl Iterator<Item = &'a StreamId>) -> Vec<&'a str> {
    streams.map(|stream| stream.aggregate_type.as_str()).collect()
}

fn ids<'a>(streams: impl Iterator<Item = &'a StreamId>) -> Vec<&'a str> {
    streams.map(|stream| stream.aggregate_id.as_str()).collect()
}

impl From<Trouble> for Unavailable {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Taken => Self::Store("other processes kept taking the keys of a batch".to_owned()),
            Trouble::Contention(error)
            | Trouble::Lost(error)
            | Trouble::Refused(error)
            | Trouble::Failed(error) => DatabaseError::from(error).into(),
        }
    }
}
