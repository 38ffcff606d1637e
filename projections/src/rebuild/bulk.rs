//! Folding much of the log at once into a generation that nobody reads yet.
//!
//! Ranges of the log are read and decoded several at a time, and given in order to shards, each of which folds the
//! documents that are its own by the hash of their id. A shard that holds more than its share of memory stores what it has
//! and lets go of what it has not touched for longest; what comes back is loaded again. So memory is bounded however long
//! the log is, and since each document says itself how far it has been folded, a build that was killed goes on from the
//! last place that all shards had stored.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use event_schemas::{Position, RecordedEvent};
use event_store::{Log, LogEntry, ReadError, Slice, UnreadableReason};
use futures_util::{StreamExt as _, stream};
use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::RebuildError;
use crate::document::Document;
use crate::error::ViewError;
use crate::query::KeyValue;
use crate::reader::{Generation, parse};
use crate::store::{DocumentWrite, Table, ViewStore, ViewWrites};
use crate::view::{DocId, View};

/// Positions that are read in one go.
const RANGE: u64 = 1_000;

/// Ranges that wait for a shard.
const QUEUE: usize = 4;

/// Documents that are stored in one go.
const WRITE: usize = 1_000;

/// Bytes of memory that a document and a folded event are taken for until the document is stored and its size is known.
const GUESS_BYTES: usize = 512;

/// Bytes in memory for each of a stored document.
const TIMES_STORED: usize = 4;

/// Bits that remember which documents were let go of; beyond their number more look-ups are in vain, and nothing else.
const SPILLED_BITS: u64 = 1 << 22;

/// What a build may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of documents in memory, about, of all shards together.
    pub(super) memory_bytes: usize,
    /// Ranges that are read, and shards that fold, at the same time.
    pub(super) parallel: NonZeroUsize,
}

/// Why the fast way does not lead on.
#[derive(Debug)]
pub(super) enum Stopped {
    /// An event that cannot be folded: whoever parks such events has to go on from what is stored.
    Poison,
    Failed(RebuildError),
}

impl<E: Into<RebuildError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A build under way.
pub(super) struct Bulk<V: View> {
    log: Log,
    limits: Limits,
    shards: Vec<mpsc::Sender<Work>>,
    threads: Vec<JoinHandle<Result<(), Stopped>>>,
    _view: std::marker::PhantomData<fn() -> V>,
}

enum Work {
    Slice(Arc<Vec<LogEntry>>),
    /// Answered once everything is stored.
    Store(oneshot::Sender<()>),
}

impl<V: View> Bulk<V> {
    /// Begins; `resumed` says that documents may be stored already.
    pub(super) fn start(generation: &Arc<Generation<V>>, log: &Log, limits: Limits, resumed: bool) -> Self {
        let count = limits.parallel.get();
        let (mut shards, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for index in 0..count {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let shard = Shard::<V> {
                store: generation.store.clone(),
                table: Arc::clone(&generation.table),
                runtime: Handle::current(),
                index,
                count,
                documents: LruCache::unbounded(),
                bytes: 0,
                memory_bytes: limits.memory_bytes / count,
                spilled: Spilled::new(resumed),
            };
            shards.push(sender);
            threads.push(tokio::task::spawn_blocking(move || shard.run(receiver)));
        }
        Self {
            log: log.clone(),
            limits,
            shards,
            threads,
            _view: std::marker::PhantomData,
        }
    }

    /// Folds what comes after `after`, up to and with `up_to`; `step` is told how far it has come.
    pub(super) async fn fold(
        &mut self,
        after: Position,
        up_to: Position,
        mut step: impl FnMut(Position),
    ) -> Result<(), Stopped> {
        let begins = (after.0..up_to.0).step_by(RANGE as usize);
        let ranges = begins.map(|begin| (Position(begin), Position(up_to.0.min(begin + RANGE))));
        let log = self.log.clone();
        let reads = stream::iter(ranges).map(|(after, up_to)| {
            let log = log.clone();
            // A task each, so that they are decoded on all cores.
            tokio::spawn(async move { read::<V>(&log, after, up_to).await })
        });
        let mut reads = reads.buffered(self.limits.parallel.get() + 1);
        while let Some(read) = reads.next().await {
            let slices = read.map_err(|_| RebuildError::Panicked)??;
            for slice in slices {
                check(&slice)?;
                let entries = Arc::new(slice.entries);
                for shard in &self.shards {
                    if shard.send(Work::Slice(Arc::clone(&entries))).await.is_err() {
                        return Err(self.failed().await);
                    }
                }
                step(slice.up_to);
            }
        }
        Ok(())
    }

    /// Stores everything that has been folded.
    pub(super) async fn store(&mut self) -> Result<(), Stopped> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, answered) = oneshot::channel();
            // One that is gone answers as little.
            let _ = shard.send(Work::Store(answer)).await;
            answers.push(answered);
        }
        for answered in answers {
            if answered.await.is_err() {
                return Err(self.failed().await);
            }
        }
        Ok(())
    }

    /// Waits for the shards: nothing is stored behind anybody's back afterwards.
    pub(super) async fn end(mut self) {
        self.shards.clear();
        for thread in self.threads.drain(..) {
            // Whatever it met was told of, or does not matter any more.
            let _ = thread.await;
        }
    }

    /// Why a shard has ended.
    async fn failed(&mut self) -> Stopped {
        self.shards.clear();
        let mut stopped = Stopped::Failed(RebuildError::Panicked);
        for thread in self.threads.drain(..) {
            match thread.await {
                // Poison is the lesser evil, and the other the more important news.
                Ok(Err(Stopped::Poison)) => {
                    if matches!(stopped, Stopped::Failed(RebuildError::Panicked)) {
                        stopped = Stopped::Poison;
                    }
                }
                Ok(Err(failed)) => stopped = failed,
                Ok(Ok(())) | Err(_) => {}
            }
        }
        stopped
    }
}

async fn read<V: View>(log: &Log, mut after: Position, up_to: Position) -> Result<Vec<Slice>, ReadError> {
    let mut slices = Vec::with_capacity(1);
    while after < up_to {
        let slice = log.read_slice(after, up_to, V::SOURCES).await?;
        after = slice.up_to;
        slices.push(slice);
    }
    Ok(slices)
}

/// Whether the slice can be folded as far as can be seen without doing it.
fn check(slice: &Slice) -> Result<(), Stopped> {
    for entry in &slice.entries {
        if let LogEntry::Unreadable(event) = entry {
            return Err(match event.reason {
                UnreadableReason::Newer => RebuildError::Upgrade(event.position).into(),
                UnreadableReason::Poison(_) => Stopped::Poison,
            });
        }
    }
    Ok(())
}

/// A document in memory.
struct Held<V: View> {
    document: Document<V::Part>,
    /// As stored; 0 if it is not.
    rev: u64,
    /// Whether it is other than stored.
    changed: bool,
    bytes: usize,
}

/// The documents of one shard, on a thread of its own.
struct Shard<V: View> {
    store: ViewStore,
    table: Arc<Table>,
    runtime: Handle,
    index: usize,
    count: usize,
    documents: LruCache<DocId, Held<V>>,
    bytes: usize,
    memory_bytes: usize,
    spilled: Spilled,
}

impl<V: View> Shard<V> {
    fn run(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), Stopped> {
        while let Some(work) = work.blocking_recv() {
            match work {
                Work::Slice(entries) => self.fold(&entries)?,
                Work::Store(answer) => {
                    self.store()?;
                    // Whoever asked may have given up.
                    let _ = answer.send(());
                }
            }
        }
        Ok(())
    }

    fn fold(&mut self, entries: &[LogEntry]) -> Result<(), Stopped> {
        let mut ours: Vec<(DocId, &RecordedEvent)> = Vec::new();
        for event in entries.iter().filter_map(LogEntry::event) {
            if let Some(id) = V::route(event)
                && hash(&id) % self.count as u64 == self.index as u64
            {
                ours.push((id, event));
            }
        }
        self.load(&ours)?;
        for (id, event) in ours {
            let held = self.documents.get_or_insert_mut(id, || Held {
                document: Document::default(),
                rev: 0,
                changed: false,
                bytes: 0,
            });
            // A fold that panics is poison like one that refuses.
            match catch_unwind(AssertUnwindSafe(|| held.document.fold::<V>(event))) {
                Ok(Ok(changed)) => {
                    held.changed |= changed;
                    held.bytes += GUESS_BYTES;
                    self.bytes += GUESS_BYTES;
                }
                Ok(Err(_)) | Err(_) => return Err(Stopped::Poison),
            }
        }
        if self.bytes > self.memory_bytes {
            self.store()?;
            self.let_go();
        }
        Ok(())
    }

    /// Brings back what is needed and may be stored.
    fn load(&mut self, ours: &[(DocId, &RecordedEvent)]) -> Result<(), Stopped> {
        let mut wanted: Vec<DocId> = ours
            .iter()
            .map(|(id, _)| id)
            .filter(|id| !self.documents.contains(*id) && self.spilled.may_have(id))
            .cloned()
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let loaded = self.runtime.block_on(self.store.load(&self.table, wanted))?;
        for stored in loaded {
            let bytes = stored.body.len() * TIMES_STORED + GUESS_BYTES;
            let held = Held {
                document: parse::<V>(&stored.id, &stored.body)?,
                rev: stored.rev,
                changed: false,
                bytes,
            };
            self.bytes += bytes;
            self.documents.put(stored.id, held);
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), Stopped> {
        loop {
            let mut documents = Vec::with_capacity(WRITE);
            let changed = self.documents.iter_mut().filter(|(_, held)| held.changed);
            for (id, held) in changed.take(WRITE) {
                let body = serde_json::to_string(&held.document).map_err(|error| ViewError::Corrupt {
                    view: V::NAME,
                    id: id.to_string(),
                    message: error.to_string(),
                })?;
                documents.push(DocumentWrite {
                    id: id.clone(),
                    expected: held.rev,
                    keys: Some(
                        V::keys(&held.document).unwrap_or_else(|| vec![KeyValue::Absent; V::KEYS.len()]),
                    ),
                    body: body.into(),
                });
                held.rev += 1;
                held.changed = false;
                let bytes = documents.last().map_or(0, |write| write.body.len()) * TIMES_STORED + GUESS_BYTES;
                self.bytes = self.bytes - held.bytes + bytes;
                held.bytes = bytes;
            }
            if documents.is_empty() {
                return Ok(());
            }
            let writes = ViewWrites {
                table: Arc::clone(&self.table),
                documents,
            };
            let moved = self
                .runtime
                .block_on(self.store.write(Arc::new(vec![writes]), None))?;
            if moved.iter().any(|moved| !moved.is_empty()) {
                return Err(RebuildError::Busy.into());
            }
        }
    }

    /// Forgets half of what is in memory, stored as it is.
    fn let_go(&mut self) {
        while self.bytes > self.memory_bytes / 2 {
            let Some((id, held)) = self.documents.pop_lru() else {
                return;
            };
            self.bytes -= held.bytes;
            self.spilled.add(&id);
        }
    }
}

/// Which documents may be stored and not in memory. Says yes too often, never no in vain.
struct Spilled {
    bits: Vec<u64>,
    all: bool,
}

impl Spilled {
    fn new(all: bool) -> Self {
        Self {
            bits: vec![0; (SPILLED_BITS / 64) as usize],
            all,
        }
    }

    fn place(id: &DocId) -> (usize, u64) {
        // Other bits of the hash than those that say which shard it is.
        let bit = (hash(id) >> 32) % SPILLED_BITS;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn add(&mut self, id: &DocId) {
        let (word, bit) = Self::place(id);
        self.bits[word] |= bit;
    }

    fn may_have(&self, id: &DocId) -> bool {
        let (word, bit) = Self::place(id);
        self.all || self.bits[word] & bit != 0
    }
}

fn hash(id: &DocId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    hasher.finish()
}
