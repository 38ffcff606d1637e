//! Stored documents in Redis, for all processes: the cluster.
//!
//! An entry is a hash at `<prefix>:<collection of the generation>:<id>`: `r` and `b`, a document's revision and body, or `l`, the
//! lease of a reader that is loading it. The store is always written first. Then:
//!
//! * A reader that misses leaves a lease, loads, and fills only if its lease is still there.
//! * Whoever has written takes away the lease, whatever was loaded under it, and replaces an older entry. It makes no
//!   entry where there is none: what nobody reads is not kept.
//!
//! So an entry is never older than a write that Redis was told of, also when entries vanish at any moment (`FLUSHALL`):
//! with them go the leases. What Redis could not be told is told later ([`RedisCache::settle`]), and each process
//! remembers which revisions it has seen, takes an older entry for a miss, and mends it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use redis::Script;

use super::flights::Flights;
use super::redis::Redis;
use super::{CacheState, Ticket, count};
use crate::served::Served;
use crate::store::{StoredDocument, Table};
use crate::view::DocId;

/// Gives each document or takes out a lease on it. ARGV: lease, its milliseconds, then for each the revision that is
/// known, whose body need not be sent.
static LOOK_UP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = {}
for i, key in ipairs(KEYS) do
  local entry = redis.call('HMGET', key, 'r', 'b', 'l')
  if entry[1] == ARGV[2 + i] then
    found[i] = {'3', '', ''}
  elseif entry[1] then
    found[i] = {'2', entry[1], entry[2]}
  elseif entry[3] then
    found[i] = {'0', '', ''}
  else
    redis.call('HSET', key, 'l', ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
    found[i] = {'1', '', ''}
  end
end
return found",
    )
});

/// Fills under a lease. ARGV: lease, revision, body, milliseconds.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'r', ARGV[2], 'b', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1",
    )
});

/// Tells of written documents. ARGV, for each: revision, and 1 if the body can be had. Gives the places of those whose
/// body is wanted.
static NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local wanted = {}
for i, key in ipairs(KEYS) do
  local entry = redis.call('HMGET', key, 'r', 'l')
  if entry[2] then
    redis.call('DEL', key)
  elseif entry[1] and tonumber(entry[1]) < tonumber(ARGV[2 * i - 1]) then
    if ARGV[2 * i] == '1' then wanted[#wanted + 1] = i else redis.call('DEL', key) end
  end
end
return wanted",
    )
});

/// Replaces older entries. ARGV: milliseconds, then for each: revision, body.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i, key in ipairs(KEYS) do
  local entry = redis.call('HMGET', key, 'r', 'l')
  if entry[2] then
    redis.call('DEL', key)
  elseif entry[1] and tonumber(entry[1]) < tonumber(ARGV[2 * i]) then
    redis.call('HSET', key, 'r', ARGV[2 * i], 'b', ARGV[2 * i + 1])
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
return 0",
    )
});

/// What [`LOOK_UP`] says of a document; 0: another is loading it.
const LEASED: u8 = 1;
const FOUND: u8 = 2;
const KNOWN: u8 = 3;

/// How long a load may take and still be kept.
const LEASE_MS: u64 = 3_000;

/// Documents that one script looks at; Redis does nothing else meanwhile.
const KEYS_AT_ONCE: usize = 500;

/// Bytes of bodies that one script is given.
const BYTES_AT_ONCE: usize = 1 << 20;

/// Writes that Redis could not be told of and that are remembered. Beyond it, entries are stale until they expire.
const UNTOLD: usize = 20_000;

/// Bytes of stored documents that a process keeps combined, of each view.
const SERVED_BYTES: u64 = 4 << 20;

/// Documents whose revision this process remembers.
const SEEN: u64 = 20_000;

/// A ticket's number when there is an entry that is too old: it is to be replaced, not filled.
const REPLACING: u64 = 0;

/// A document that was written.
#[derive(Debug, Clone)]
pub(crate) struct CacheWrite {
    pub(crate) id: DocId,
    pub(crate) rev: u64,
    /// None if it is not at hand: an older entry then goes.
    pub(crate) body: Option<Arc<str>>,
}

/// What a look-up came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    Hit(StoredDocument),
    /// The revision that was known.
    Known,
    /// With a ticket if what is loaded should be given to the cache.
    Miss(Option<Ticket>),
}

/// The entries of one generation of a view. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct RedisCache {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    view: &'static str,
    /// `<prefix>:<collection>:`
    prefix: String,
    /// Names this process in leases.
    nonce: u64,
    leases: AtomicU64,
    hasher: RandomState,
    /// The newest revision of a document that this process has given out or was told of.
    seen: moka::sync::Cache<DocId, u64>,
    untold: Mutex<HashMap<DocId, u64>>,
}

impl RedisCache {
    pub(crate) fn new(redis: Redis, table: &Table) -> Self {
        let hasher = RandomState::new();
        Self {
            inner: Arc::new(Inner {
                view: table.schema.name,
                prefix: format!("{}:{}:", redis.options().key_prefix, table.name()),
                redis,
                nonce: hasher.hash_one("process"),
                leases: AtomicU64::new(REPLACING),
                hasher,
                seen: moka::sync::Cache::new(SEEN),
                untold: Mutex::default(),
            }),
        }
    }

    pub(crate) fn state(&self) -> CacheState {
        self.inner.redis.state()
    }

    /// Looks up documents, in their order; each with the revision that the caller has of it, 0 if none.
    pub(crate) async fn look_up(&self, wanted: &[(&DocId, u64)]) -> Vec<Lookup> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut outcomes = Outcomes::default();
        for wanted in wanted.chunks(KEYS_AT_ONCE) {
            let number = self.inner.leases.fetch_add(1, Ordering::Relaxed) + 1;
            let mut script = LOOK_UP.prepare_invoke();
            script.arg(self.lease(number)).arg(LEASE_MS);
            for (id, known) in wanted {
                script.key(self.key(id)).arg(*known);
            }
            let mut connection = self.inner.redis.connection();
            let rows: Option<Vec<(u8, String, String)>> =
                self.inner.redis.ask(script.invoke_async(&mut connection)).await;
            let Some(rows) = rows.filter(|rows| rows.len() == wanted.len()) else {
                outcomes.error += wanted.len() as u64;
                found.extend(wanted.iter().map(|_| Lookup::Miss(None)));
                continue;
            };
            for ((id, known), (state, rev, body)) in wanted.iter().zip(rows) {
                let rev = if state == KNOWN {
                    Some(*known)
                } else {
                    rev.parse().ok()
                };
                found.push(self.looked_up(id, state, rev, body, number, &mut outcomes));
            }
        }
        outcomes.report(self.inner.view);
        found
    }

    fn looked_up(
        &self,
        id: &DocId,
        state: u8,
        rev: Option<u64>,
        body: String,
        number: u64,
        outcomes: &mut Outcomes,
    ) -> Lookup {
        let ticket = |number| {
            Some(Ticket {
                id: id.clone(),
                number,
            })
        };
        if let (FOUND | KNOWN, Some(rev)) = (state, rev) {
            if self.seen(id) > rev {
                outcomes.stale += 1;
                return Lookup::Miss(ticket(REPLACING));
            }
            outcomes.hit += 1;
            self.saw(id, rev);
            if state == KNOWN {
                return Lookup::Known;
            }
            return Lookup::Hit(StoredDocument {
                id: id.clone(),
                rev,
                body,
            });
        }
        outcomes.miss += 1;
        Lookup::Miss((state == LEASED).then_some(number).and_then(ticket))
    }

    /// Caches what was loaded under `ticket`, unless the document may have been written since.
    pub(crate) async fn fill(&self, ticket: Ticket, stored: &StoredDocument) {
        self.saw(&stored.id, stored.rev);
        if ticket.number == REPLACING {
            let body = Arc::from(stored.body.as_str());
            self.replace(&[(&ticket.id, stored.rev, body)]).await;
            return;
        }
        let mut script = FILL.key(self.key(&ticket.id));
        script
            .arg(self.lease(ticket.number))
            .arg(stored.rev)
            .arg(stored.body.as_str())
            .arg(self.expiry_ms(&ticket.id));
        let mut connection = self.inner.redis.connection();
        // Not cached then; no more.
        let _: Option<u8> = self.inner.redis.ask(script.invoke_async(&mut connection)).await;
    }

    /// Takes note of documents that have been stored, and of those it could not take note of before.
    pub(crate) async fn written(&self, writes: Vec<CacheWrite>) {
        for write in &writes {
            self.saw(&write.id, write.rev);
        }
        let earlier = mem::take(&mut *self.untold());
        let earlier = earlier
            .into_iter()
            .map(|(id, rev)| CacheWrite { id, rev, body: None });
        // The newer ones come last, so that they win.
        let writes: Vec<CacheWrite> = earlier.chain(writes).collect();
        for (index, chunk) in writes.chunks(KEYS_AT_ONCE).enumerate() {
            if !self.note(chunk).await {
                self.remember(&writes[index * KEYS_AT_ONCE..]);
                return;
            }
        }
    }

    /// Tells Redis what it could not be told before. Call it from time to time when nothing is written.
    pub(crate) async fn settle(&self) {
        if !self.untold().is_empty() {
            self.written(Vec::new()).await;
        }
    }

    /// The newest revision of `id` that this process knows of; 0 if of none.
    pub(crate) fn seen(&self, id: &DocId) -> u64 {
        self.inner.seen.get(id).unwrap_or(0)
    }

    /// From here on this process shows nothing older of `id`.
    pub(crate) fn saw(&self, id: &DocId, rev: u64) {
        let known = self.inner.seen.get(id);
        if known.is_none_or(|known| known < rev) {
            let newer = |entry: Option<moka::Entry<DocId, u64>>| {
                entry.map_or(rev, |entry| entry.into_value().max(rev))
            };
            self.inner.seen.entry_by_ref(id).and_upsert_with(newer);
        }
    }

    /// False if Redis was not told of all of them.
    async fn note(&self, writes: &[CacheWrite]) -> bool {
        let mut script = NOTE.prepare_invoke();
        for write in writes {
            script.key(self.key(&write.id));
        }
        for write in writes {
            script.arg(write.rev).arg(u8::from(write.body.is_some()));
        }
        let mut connection = self.inner.redis.connection();
        let wanted: Option<Vec<usize>> = self.inner.redis.ask(script.invoke_async(&mut connection)).await;
        let Some(wanted) = wanted else { return false };
        let wanted = wanted
            .into_iter()
            .filter_map(|place| writes.get(place.checked_sub(1)?));
        let mut batch: Vec<(&DocId, u64, Arc<str>)> = Vec::new();
        let mut bytes = 0;
        for write in wanted {
            let Some(body) = &write.body else { continue };
            bytes += body.len();
            batch.push((&write.id, write.rev, Arc::clone(body)));
            if bytes > BYTES_AT_ONCE {
                if !self.replace(&batch).await {
                    return false;
                }
                batch.clear();
                bytes = 0;
            }
        }
        batch.is_empty() || self.replace(&batch).await
    }

    /// Replaces older entries; false if Redis is away.
    async fn replace(&self, entries: &[(&DocId, u64, Arc<str>)]) -> bool {
        let Some((first, ..)) = entries.first() else {
            return true;
        };
        let mut script = REPLACE.prepare_invoke();
        script.arg(self.expiry_ms(first));
        for (id, rev, body) in entries {
            script.key(self.key(id)).arg(*rev).arg(&**body);
        }
        let mut connection = self.inner.redis.connection();
        let done: Option<u8> = self.inner.redis.ask(script.invoke_async(&mut connection)).await;
        done.is_some()
    }

    fn remember(&self, writes: &[CacheWrite]) {
        let mut untold = self.untold();
        for write in writes {
            if untold.len() >= UNTOLD && !untold.contains_key(&write.id) {
                tracing::warn!(
                    view = self.inner.view,
                    "Redis has been away for long: it may show old documents until they expire"
                );
                return;
            }
            let rev = untold.entry(write.id.clone()).or_default();
            *rev = write.rev.max(*rev);
        }
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, HashMap<DocId, u64>> {
        self.inner.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, id: &DocId) -> String {
        format!("{}{}", self.inner.prefix, id.as_str())
    }

    fn lease(&self, number: u64) -> String {
        format!("{:x}.{number:x}", self.inner.nonce)
    }

    /// Give or take a fifth.
    fn expiry_ms(&self, id: &DocId) -> u64 {
        let expiry_ms = self.inner.redis.options().expiry.as_millis() as u64;
        let luck = self
            .inner
            .hasher
            .hash_one((id, self.inner.leases.load(Ordering::Relaxed)));
        (expiry_ms * 4 / 5 + luck % (expiry_ms * 2 / 5).max(1)).max(1)
    }
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache")
            .field("prefix", &self.inner.prefix)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What became of the look-ups of one call.
#[derive(Default)]
struct Outcomes {
    hit: u64,
    miss: u64,
    stale: u64,
    error: u64,
}

impl Outcomes {
    fn report(&self, view: &'static str) {
        count(view, "hit", self.hit);
        count(view, "miss", self.miss);
        count(view, "stale", self.stale);
        count(view, "error", self.error);
    }
}

/// The entries in Redis, and what this process has of them: its loads of what is not there, and combined documents. The
/// latter are served only when Redis says that they are what it has.
pub(crate) struct Shared<D> {
    pub(crate) redis: RedisCache,
    pub(crate) flights: Flights<Option<Arc<Served<D>>>>,
    served: moka::sync::Cache<DocId, Arc<Served<D>>>,
}

impl<D: Send + Sync + 'static> Shared<D> {
    pub(crate) fn new(redis: RedisCache) -> Self {
        Self {
            redis,
            flights: Flights::new(),
            served: moka::sync::Cache::builder()
                .max_capacity(SERVED_BYTES)
                .weigher(|_, served: &Arc<Served<D>>| served.weight)
                .build(),
        }
    }

    /// The last that this process has combined of `id`, whatever Redis has by now.
    pub(crate) fn last(&self, id: &DocId) -> Option<Arc<Served<D>>> {
        self.served.get(id)
    }

    /// Keeps what was combined.
    pub(crate) fn keep(&self, served: &Arc<Served<D>>) {
        self.served.insert(served.id.clone(), Arc::clone(served));
    }
}

impl<D> Clone for Shared<D> {
    fn clone(&self) -> Self {
        Self {
            redis: self.redis.clone(),
            flights: self.flights.clone(),
            served: self.served.clone(),
        }
    }
}

impl<D> std::fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redis.fmt(f)
    }
}
