//! What every view cache does; both run it.
#![cfg_attr(
    not(feature = "cluster"),
    allow(clippy::unused_async, reason = "only Redis is waited for")
)]

use std::sync::Arc;

use event_schemas::{AggregateType, RecordedEvent};

use super::*;
use crate::document::Document;
use crate::served::Served;
#[cfg(feature = "cluster")]
use crate::store::{StoredDocument, Table, ViewSchema};
use crate::view::FoldError;

/// A view of nothing: only revisions matter here.
#[derive(Debug)]
struct Notes;

impl View for Notes {
    const NAME: &'static str = "notes";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[];
    type Part = ();
    type Doc = ();

    fn route(_: &RecordedEvent) -> Option<DocId> {
        None
    }

    fn apply(_: Option<()>, _: &RecordedEvent) -> Result<(), FoldError> {
        Ok(())
    }

    fn combine(_: &DocId, _: &Document<()>) -> Option<()> {
        Some(())
    }
}

#[cfg(feature = "cluster")]
fn table(generation: u32) -> Table {
    Table::new(ViewSchema::of::<Notes>(), generation)
}

fn served(id: &DocId, rev: u64) -> Served<()> {
    Served::new(id.clone(), 1, rev, Vec::new(), 1, ())
}

#[cfg(feature = "cluster")]
fn stored(id: &DocId, rev: u64) -> StoredDocument {
    StoredDocument {
        id: id.clone(),
        rev,
        body: format!("body {rev}"),
    }
}

/// The cached revision, or a ticket for what will be loaded.
async fn look(cache: &ViewCache<Notes>, id: &DocId) -> Result<u64, Option<Ticket>> {
    match cache {
        ViewCache::InProcess(cache) => cache
            .get(id)
            .map(|served| served.rev)
            .ok_or_else(|| Some(cache.ticket(id))),
        #[cfg(feature = "cluster")]
        ViewCache::Redis(cache) => match cache.redis.look_up(&[(id, 0)]).await.pop().unwrap() {
            Lookup::Hit(found) => {
                assert_eq!(found, stored(id, found.rev));
                Ok(found.rev)
            }
            Lookup::Known => unreachable!("nothing is known"),
            Lookup::Miss(ticket) => Err(ticket),
        },
    }
}

async fn miss(cache: &ViewCache<Notes>, id: &DocId) -> Ticket {
    look(cache, id).await.unwrap_err().unwrap()
}

async fn fill(cache: &ViewCache<Notes>, ticket: Ticket, rev: u64) {
    match cache {
        ViewCache::InProcess(cache) => cache.fill(&ticket, &Arc::new(served(&ticket.id, rev))),
        #[cfg(feature = "cluster")]
        ViewCache::Redis(cache) => {
            let stored = stored(&ticket.id, rev);
            cache.redis.fill(ticket, &stored).await;
        }
    }
}

async fn written(cache: &ViewCache<Notes>, id: &DocId, rev: u64) {
    match cache {
        ViewCache::InProcess(cache) => cache.written(id, rev, false, || Some(served(id, rev))),
        #[cfg(feature = "cluster")]
        ViewCache::Redis(cache) => {
            let write = CacheWrite {
                id: id.clone(),
                rev,
                body: Some(stored(id, rev).body.into()),
            };
            cache.redis.written(vec![write]).await;
        }
    }
}

/// The caches of two generations.
type Two = [ViewCache<Notes>; 2];

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test]
            async fn $case() {
                let cache = || super::ViewCache::InProcess(super::InProcess::new());
                super::$case([cache(), cache()]).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let Some(redis) = crate::testing::redis() else { return };
                let cache = |generation| {
                    let redis = super::RedisCache::new(redis.clone(), &super::table(generation));
                    super::ViewCache::Redis(super::Shared::new(redis))
                };
                super::$case([cache(1), cache(2)]).await;
            })*
        }
    };
}

conformance!(
    what_is_loaded_is_kept,
    a_load_that_began_before_a_write_is_not_kept,
    a_write_replaces_what_is_older,
    what_nobody_reads_is_not_kept,
    generations_do_not_meet,
);

async fn what_is_loaded_is_kept([cache, _]: Two) {
    let (id, other) = (DocId::from("a"), DocId::from("b"));
    let ticket = miss(&cache, &id).await;
    fill(&cache, ticket, 3).await;
    assert_eq!(look(&cache, &id).await.unwrap(), 3);
    assert!(look(&cache, &other).await.is_err());
}

async fn a_load_that_began_before_a_write_is_not_kept([cache, _]: Two) {
    let id = DocId::from("a");
    let ticket = miss(&cache, &id).await;
    written(&cache, &id, 4).await;
    fill(&cache, ticket, 3).await;
    let ticket = miss(&cache, &id).await;
    fill(&cache, ticket, 4).await;
    assert_eq!(look(&cache, &id).await.unwrap(), 4);
}

async fn a_write_replaces_what_is_older([cache, _]: Two) {
    let id = DocId::from("a");
    let ticket = miss(&cache, &id).await;
    fill(&cache, ticket, 9).await;
    written(&cache, &id, 10).await;
    assert_eq!(look(&cache, &id).await.unwrap(), 10);
    for older in [10, 9, 2] {
        written(&cache, &id, older).await;
        assert_eq!(look(&cache, &id).await.unwrap(), 10);
    }
}

async fn what_nobody_reads_is_not_kept([cache, _]: Two) {
    let id = DocId::from("a");
    written(&cache, &id, 1).await;
    assert!(look(&cache, &id).await.is_err());
}

/// Race 19.
async fn generations_do_not_meet([old, new]: Two) {
    let id = DocId::from("a");
    let ticket = miss(&old, &id).await;
    fill(&old, ticket, 57).await;
    let ticket = miss(&new, &id).await;
    fill(&new, ticket, 1).await;
    written(&new, &id, 2).await;
    assert_eq!(look(&new, &id).await.unwrap(), 2);
    assert_eq!(look(&old, &id).await.unwrap(), 57);
}

#[cfg(feature = "cluster")]
mod shared {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::testing::{Wire, address, redis_options};

    /// A process of its own: another connection, another memory.
    fn process(options: &RedisOptions) -> ViewCache<Notes> {
        let redis = Redis::open(options.clone()).unwrap();
        ViewCache::Redis(Shared::new(RedisCache::new(redis, &table(1))))
    }

    fn cache(cache: &ViewCache<Notes>) -> &RedisCache {
        match cache {
            ViewCache::Redis(cache) => &cache.redis,
            ViewCache::InProcess(_) => unreachable!(),
        }
    }

    #[tokio::test]
    async fn processes_see_what_the_other_cached_and_wrote() {
        let Some(options) = redis_options() else { return };
        let (one, two, id) = (process(&options), process(&options), DocId::from("a"));
        let ticket = miss(&one, &id).await;
        // The other may load meanwhile, but not fill.
        assert!(look(&two, &id).await.unwrap_err().is_none());
        fill(&one, ticket, 1).await;
        assert_eq!(look(&two, &id).await.unwrap(), 1);
        // What one has already is not sent again.
        let known = cache(&two).look_up(&[(&id, 1), (&DocId::from("b"), 1)]).await;
        assert!(
            matches!(known[..], [Lookup::Known, Lookup::Miss(Some(_))]),
            "{known:?}"
        );
        written(&two, &id, 2).await;
        let known = cache(&two).look_up(&[(&id, 1)]).await;
        assert!(
            matches!(&known[..], [Lookup::Hit(found)] if found.rev == 2),
            "{known:?}"
        );
        assert_eq!(look(&one, &id).await.unwrap(), 2);
        // Without a body, what is older goes.
        let write = CacheWrite {
            id: id.clone(),
            rev: 3,
            body: None,
        };
        cache(&two).written(vec![write]).await;
        assert!(look(&one, &id).await.is_err());
    }

    /// An entry that is older than what this process has shown is none, and is mended.
    #[tokio::test]
    async fn nobody_sees_a_document_go_back() {
        let Some(options) = redis_options() else { return };
        let (one, two, id) = (process(&options), process(&options), DocId::from("a"));
        let ticket = miss(&two, &id).await;
        fill(&two, ticket, 1).await;
        // Read from the store, or polled.
        cache(&one).saw(&id, 2);
        let ticket = miss(&one, &id).await;
        assert_eq!(look(&two, &id).await.unwrap(), 1);
        fill(&one, ticket, 2).await;
        assert_eq!(look(&two, &id).await.unwrap(), 2);
    }

    /// Redis that does not answer costs its time-out once per pause, and is told later what it missed.
    #[tokio::test]
    async fn a_redis_that_is_away_is_left_alone_and_told_later() {
        let Some(options) = redis_options() else { return };
        let wire = Wire::to(address(&options.url)).await;
        let slow = RedisOptions {
            url: format!("redis://127.0.0.1:{}", wire.port),
            pause: Duration::from_millis(300),
            ..options.clone()
        };
        let (here, there, id) = (process(&slow), process(&options), DocId::from("a"));
        let ticket = miss(&here, &id).await;
        fill(&here, ticket, 1).await;
        assert_eq!(cache(&here).state(), CacheState::Up);

        wire.cut_after(0);
        assert!(look(&here, &id).await.unwrap_err().is_none());
        assert_eq!(cache(&here).state(), CacheState::Down);
        let begun = Instant::now();
        for _ in 0..1_000 {
            let _ = look(&here, &id).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "each look-up waits");
        // It does not learn of this, and others see what is old until it does.
        written(&here, &id, 2).await;
        assert_eq!(look(&there, &id).await.unwrap(), 1);
        wire.mend();
        let deadline = Instant::now() + Duration::from_secs(30);
        while look(&there, &id).await.is_ok() {
            assert!(Instant::now() < deadline, "it is never told");
            cache(&here).settle().await;
            tokio::task::yield_now().await;
        }
        assert_eq!(cache(&here).state(), CacheState::Up);
    }

    /// Entries vanish at every moment, readers and writers never rest: nobody reads less than was written before.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn flushed_in_a_loop_it_never_shows_less_than_was_written() {
        const WRITES: u64 = 400;
        let Some(mut options) = redis_options() else {
            return;
        };
        // A database that nobody else uses, so that it can be flushed.
        options.url = format!("redis://{}/9", address(&options.url));
        let client = ::redis::Client::open(options.url.as_str()).unwrap();
        let mut flusher = client.get_multiplexed_async_connection().await.unwrap();
        let id = DocId::from("a");
        // What the store has, and what the cache was told of.
        let (in_store, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let done = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for _ in 0..3 {
            let (cache, id) = (process(&options), id.clone());
            let (in_store, told, done) = (in_store.clone(), told.clone(), done.clone());
            readers.push(tokio::spawn(async move {
                let mut hits = 0_u64;
                while !done.load(Ordering::SeqCst) {
                    let before = told.load(Ordering::SeqCst);
                    match look(&cache, &id).await {
                        Ok(rev) => {
                            hits += 1;
                            assert!(rev >= before, "read {rev} after {before} was written");
                        }
                        Err(ticket) => {
                            let loaded = in_store.load(Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            if let Some(ticket) = ticket {
                                fill(&cache, ticket, loaded).await;
                            }
                        }
                    }
                }
                hits
            }));
        }
        let flushing = {
            let done = done.clone();
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let () = ::redis::cmd("FLUSHDB").query_async(&mut flusher).await.unwrap();
                    tokio::task::yield_now().await;
                    let () = ::redis::cmd("PING").exec_async(&mut flusher).await.unwrap();
                }
            })
        };
        let writer = process(&options);
        for rev in 1..=WRITES {
            in_store.store(rev, Ordering::SeqCst);
            written(&writer, &id, rev).await;
            told.store(rev, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        flushing.await.unwrap();
        let mut hits = 0;
        for reader in readers {
            hits += reader.await.unwrap();
        }
        assert!(hits > 0, "the cache was of no use");
    }
}
