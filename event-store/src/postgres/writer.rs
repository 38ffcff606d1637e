//! The journal's writer: one task with a connection of its own, which commits whatever waits by then.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use database::{DatabaseError, Postgres, PostgresError};
use event_schemas::{Clock, CommandId, Position, StreamId, Version};
use lru::LruCache;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _, query, raw_sql};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::append::{self, Known, Rows, Verdict, judge};
use super::read::{RECEIPTS, receipt, unsigned};
use super::trouble::Trouble;
use crate::Unavailable;
use crate::journal::StoredReceipt;
use crate::queue::{Answers, Batch, JournalEntry, MAX_ENTRIES_PER_COMMIT, Outcome, Queue, Work};
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

/// Streams whose versions are remembered: about 10 MB.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// How long no version is believed after another process took a key: a batch that fails and is tried again costs more
/// than looking.
const RIVALRY: Duration = Duration::from_secs(1);

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
    session: Option<Session>,
    /// Until then another process writes where this one does, and its versions are looked up.
    rivalled_until: Option<Instant>,
}

/// A connection of its own, so that appends never wait for reads, and what the log said through it.
struct Session {
    connection: PgConnection,
    /// What this process stored last has not to be looked up again. What another process has stored since has taken the
    /// keys of whatever is decided on these.
    versions: LruCache<StreamId, Version>,
    /// The event that was stored last. A log without it has been put back or replaced, and all the above is void.
    last: Last,
}

/// Names an event; at position 0 none.
#[derive(Default)]
struct Last {
    position: i64,
    aggregate_id: String,
    sequence: i64,
    recorded_at: i64,
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
            session: None,
            rivalled_until: None,
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
                Trouble::Taken if tries < MAX_TRIES => {
                    self.rivalled_until = Some(Instant::now() + RIVALRY);
                    tries += 1;
                }
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

    async fn attempt(&mut self, batch: &mut Batch, distrust: bool) -> Result<(), Trouble> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        batch.recorded_at = self.clock.now();
        let rivalled = self.rivalled_until.is_some_and(|end| Instant::now() < end);
        let attempted = session.attempt(batch, distrust, rivalled).await;
        // Not after a failure of the server's: it may have become the wrong one to ask.
        if !matches!(attempted, Err(Trouble::Lost(_) | Trouble::Failed(_))) {
            self.session = Some(session);
        }
        attempted
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let mut connection = PgConnection::connect_with(self.postgres.connect_options()).await?;
        connection.execute(raw_sql(SESSION)).await?;
        Ok(Session {
            connection,
            versions: LruCache::new(REMEMBERED),
            last: Last::default(),
        })
    }
}

impl Session {
    /// Judges the entries and stores those that are to be. With `distrust`, no command is believed to be new; with
    /// either, no version is believed.
    async fn attempt(&mut self, batch: &mut Batch, distrust: bool, rivalled: bool) -> Result<(), Trouble> {
        let entries = &batch.entries;
        let mut trust = !(distrust || rivalled);
        let mut known = Known {
            versions: self.versions(entries, trust).await?,
            receipts: HashMap::new(),
        };
        if distrust {
            let with_command =
                (0..entries.len()).filter(|number| append::command(&entries[*number]).is_some());
            known.receipts = receipts(&mut self.connection, entries, with_command.collect()).await?;
        }
        // Mostly none is missing, or those of one look; each round knows more.
        let verdicts = loop {
            match judge(entries, &known) {
                // Nobody is told of a version that was only remembered.
                Ok(verdicts) if trust && verdicts.iter().any(Verdict::is_behind) => {
                    trust = false;
                    known.versions = self.versions(entries, trust).await?;
                }
                Ok(verdicts) => break verdicts,
                Err(missing) => known
                    .receipts
                    .extend(receipts(&mut self.connection, entries, missing).await?),
            }
        };
        let rows = Rows::of(entries, &verdicts);
        let mut before = Position(0);
        if !rows.receipts.reaches.is_empty() {
            batch.begun = Some(Instant::now());
            before = self.store(rows, batch.recorded_at.as_microsecond()).await?;
        }
        for (entry, verdict) in entries.iter().zip(&verdicts) {
            if let Verdict::Store { version, .. } = verdict {
                self.versions.put(append::stream(entry).clone(), *version);
            }
        }
        batch.outcomes = append::outcomes(entries, verdicts, before);
        Ok(())
    }

    /// The versions of all streams that entries speak of. With `trust`, those are not asked for that the keys vouch for:
    /// of streams believed new or stored last by this process, where nothing is to be done but to store events, each
    /// behind the one before. Had another process been quicker, its event would have the first one's key.
    async fn versions<'a>(
        &mut self,
        entries: &'a [JournalEntry],
        trust: bool,
    ) -> Result<HashMap<&'a StreamId, Version>, Trouble> {
        let mut reckoned: HashMap<&StreamId, Option<Version>> = HashMap::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !entry.chain.is_broken()) {
            let stream = append::stream(entry);
            let version = reckoned
                .entry(stream)
                .or_insert_with(|| trust.then(|| self.versions.get(stream).copied().unwrap_or(Version(0))));
            *version = match &entry.work {
                Work::Append(append) if *version == Some(append.expected) && !append.events.is_empty() => {
                    Some(append.version())
                }
                Work::Append(_) | Work::Settle(_) => None,
            };
        }
        let (remembered, asked): (Vec<_>, Vec<_>) =
            reckoned.into_iter().partition(|(_, version)| version.is_some());
        let remembered = remembered.into_iter().map(|(stream, _)| stream);
        let mut versions: HashMap<_, _> = remembered
            .filter_map(|stream| self.versions.peek(stream).map(|version| (stream, *version)))
            .collect();
        if asked.is_empty() {
            return Ok(versions);
        }
        let asked: Vec<&StreamId> = asked.into_iter().map(|(stream, _)| stream).collect();
        let rows = query(append::VERSIONS)
            .bind(types(asked.iter().copied()))
            .bind(ids(asked.iter().copied()))
            .fetch_all(&mut self.connection)
            .await?;
        for row in &rows {
            let number = unsigned(row, 0)? as usize;
            versions.insert(asked[number], Version(unsigned(row, 1)?));
        }
        Ok(versions)
    }

    /// Resolves once the rows are durable, with the position before the first of them.
    async fn store(&mut self, rows: Rows<'_>, recorded_at: i64) -> Result<Position, Trouble> {
        let Rows { events, receipts } = rows;
        let count = sql_int(events.sequences.len() as u64);
        let last = events
            .aggregate_ids
            .last()
            .zip(events.sequences.last())
            .map(|(id, sequence)| ((*id).to_owned(), *sequence));
        let stored = query(append::STORE)
            .bind(count)
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
            .bind(self.last.position)
            .bind(&self.last.aggregate_id)
            .bind(self.last.sequence)
            .bind(self.last.recorded_at)
            // Reads on behind the row, which the server sends before it commits, until the server says that it is ready for
            // the next statement, and so that the transaction is over.
            .fetch_all(&mut self.connection)
            .await?;
        let Some(head) = stored.first() else {
            // Nothing was stored, and what was remembered goes with the connection.
            return Err(Trouble::Lost(PostgresError::Sql {
                code: String::new(),
                message: "the log has no head, or no longer has the event that was stored last".to_owned(),
            }));
        };
        let before = Position(unsigned(head, 0)?);
        if let Some((aggregate_id, sequence)) = last {
            self.last = Last {
                position: sql_int(before.0) + count,
                aggregate_id,
                sequence,
                recorded_at,
            };
        }
        Ok(before)
    }
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
