//! Reading what projectors in other processes write: through Redis, and from the store where that does not do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_bus::{Checkpoint, Partitioning};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Generation;
use crate::cache::{Lookup, RedisCache, Shared, ViewCache};
use crate::changes::Changes;
use crate::error::{ViewError, WaitError};
use crate::served::{ConsistencyPoint, Served};
use crate::store::{StoredDocument, Table, ViewStore};
use crate::view::{DocId, View};

/// Between two looks at the store by a read that waits; doubles up to the latter.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MOST: Duration = Duration::from_millis(50);

/// Between two looks at the documents that are watched; all of a view's in one read.
const POLL: Duration = Duration::from_millis(200);

type Found<V> = Option<Arc<Served<<V as View>::Doc>>>;

impl<V: View> Generation<V> {
    /// Reads what projectors elsewhere write.
    pub(crate) fn shared(
        store: ViewStore,
        table: Arc<Table>,
        reached: Checkpoint,
        changes: Changes,
        redis: RedisCache,
        partitioning: Partitioning,
    ) -> Self {
        Self {
            store,
            table,
            cache: ViewCache::Redis(Shared::new(redis)),
            changes,
            reached: watch::channel(reached).0,
            partitioning,
        }
    }

    pub(super) async fn get_shared(&self, cache: &Shared<V::Doc>, id: &DocId) -> Result<Found<V>, ViewError> {
        let last = cache.last(id);
        let known = last.as_ref().map_or(0, |last| last.rev);
        let ticket = match cache.redis.look_up(&[(id, known)]).await.pop() {
            Some(Lookup::Hit(stored)) => return self.combine(cache, &stored),
            Some(Lookup::Known) => return Ok(last),
            Some(Lookup::Miss(ticket)) => ticket,
            None => None,
        };
        let load = async {
            let Some(stored) = self.store.load(&self.table, vec![id.clone()]).await?.pop() else {
                return Ok(None);
            };
            let served = self.serve(&stored)?;
            match ticket {
                Some(ticket) if served.is_some() => cache.redis.fill(ticket, &stored).await,
                _ => cache.redis.saw(id, stored.rev),
            }
            Ok::<_, ViewError>(served.map(Arc::new))
        };
        let shared = cache.flights.share(id, load).await?;
        // A load that was under way when we came may have begun before we were told of something newer.
        if shared.as_ref().map_or(0, |served| served.rev) < cache.redis.seen(id) {
            return self.load_shared(cache, id).await;
        }
        Ok(shared)
    }

    pub(super) async fn get_many_shared(
        &self,
        cache: &Shared<V::Doc>,
        ids: &[DocId],
    ) -> Result<Vec<Found<V>>, ViewError> {
        let mut found: Vec<Found<V>> = Vec::with_capacity(ids.len());
        let mut missing = HashMap::new();
        let last: Vec<Found<V>> = ids.iter().map(|id| cache.last(id)).collect();
        let known = last.iter().map(|last| last.as_ref().map_or(0, |last| last.rev));
        let wanted: Vec<(&DocId, u64)> = ids.iter().zip(known).collect();
        let lookups = cache.redis.look_up(&wanted).await;
        for ((id, last), lookup) in ids.iter().zip(last).zip(lookups) {
            found.push(match lookup {
                Lookup::Hit(stored) => self.combine(cache, &stored)?,
                Lookup::Known => last,
                Lookup::Miss(ticket) => {
                    // The same id twice: the first has the lease.
                    let ticket_of_id = missing.entry(id.clone()).or_insert(None);
                    *ticket_of_id = ticket_of_id.take().or(ticket);
                    None
                }
            });
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let mut loaded = HashMap::new();
        for stored in self
            .store
            .load(&self.table, missing.keys().cloned().collect())
            .await?
        {
            let Some(served) = self.serve(&stored)? else {
                continue;
            };
            match missing.remove(&stored.id).flatten() {
                Some(ticket) => cache.redis.fill(ticket, &stored).await,
                None => cache.redis.saw(&stored.id, stored.rev),
            }
            loaded.insert(stored.id, Arc::new(served));
        }
        for (id, found) in ids.iter().zip(&mut found) {
            if found.is_none() {
                *found = loaded.get(id).cloned();
            }
        }
        Ok(found)
    }

    fn combine(&self, cache: &Shared<V::Doc>, stored: &StoredDocument) -> Result<Found<V>, ViewError> {
        let served = self.serve(stored)?.map(Arc::new);
        if let Some(served) = &served {
            cache.keep(served);
        }
        Ok(served)
    }

    /// The document as the store has it now.
    async fn load_shared(&self, cache: &Shared<V::Doc>, id: &DocId) -> Result<Found<V>, ViewError> {
        let Some(stored) = self.store.load(&self.table, vec![id.clone()]).await?.pop() else {
            return Ok(None);
        };
        cache.redis.saw(id, stored.rev);
        Ok(self.serve(&stored)?.map(Arc::new))
    }

    pub(super) async fn get_at_least_shared(
        &self,
        cache: &Shared<V::Doc>,
        id: &DocId,
        point: &ConsistencyPoint,
        deadline: Instant,
    ) -> Result<Found<V>, WaitError> {
        let served = self.get_shared(cache, id).await?;
        if served.as_ref().is_some_and(|served| served.reached(point)) {
            return Ok(served);
        }
        let mut pause = LOOK_FIRST;
        loop {
            // Asked before the document is read: what the view had passed by then is in it.
            let passed = self.passed(point).await?;
            let served = self.load_shared(cache, id).await?;
            if passed || served.as_ref().is_some_and(|served| served.reached(point)) {
                return Ok(served);
            }
            Self::pause(&mut pause, deadline).await?;
        }
    }

    pub(super) async fn reach_shared(
        &self,
        point: &ConsistencyPoint,
        deadline: Instant,
    ) -> Result<(), WaitError> {
        let mut pause = LOOK_FIRST;
        while !self.passed(point).await? {
            Self::pause(&mut pause, deadline).await?;
        }
        Ok(())
    }

    /// Whether the partition of the point's stream has passed it.
    async fn passed(&self, point: &ConsistencyPoint) -> Result<bool, ViewError> {
        let partition = self.partitioning.of(&point.stream);
        let known = || self.reached.borrow().position_of(partition) >= point.position;
        if known() {
            return Ok(true);
        }
        self.refresh().await?;
        Ok(known())
    }

    /// Waits for the next look; an error if the time is over.
    async fn pause(pause: &mut Duration, deadline: Instant) -> Result<(), WaitError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(WaitError::TimedOut { view: V::NAME });
        }
        sleep_until((now + *pause).min(deadline)).await;
        *pause = (*pause * 2).min(LOOK_MOST);
        Ok(())
    }

    /// Whether documents are read that other processes write.
    pub(super) const fn is_shared(&self) -> bool {
        matches!(self.cache, ViewCache::Redis(_))
    }
}

/// Wakes those who watch a document when its revision changes; ends when nobody watches.
pub(super) async fn poll<V: View>(serving: watch::Receiver<Arc<Generation<V>>>, changes: Changes) {
    let mut known: HashMap<DocId, u64> = HashMap::new();
    let mut number = 0;
    while let Some(ids) = changes.polled() {
        let generation = Arc::clone(&serving.borrow());
        let (ViewStore::Mongo(store), ViewCache::Redis(cache)) = (&generation.store, &generation.cache)
        else {
            return;
        };
        if generation.number() != number {
            // Revisions of two generations say nothing about each other.
            number = generation.number();
            known.clear();
        }
        match store.revisions(&generation.table, &ids).await {
            Ok(now) => {
                let now: HashMap<DocId, u64> = now.into_iter().collect();
                let moved: Vec<&DocId> = now
                    .iter()
                    .filter(|(id, rev)| known.get(*id) != Some(*rev))
                    .map(|(id, _)| id)
                    .collect();
                // Before they are woken: what they read then is no older than this.
                for id in &moved {
                    cache.redis.saw(id, now[*id]);
                }
                // A document that was not known is told of too: who watches it may have read it before.
                changes.notify(moved);
                known = now;
            }
            Err(error) => tracing::debug!(view = V::NAME, %error, "no look at what is watched"),
        }
        sleep(POLL).await;
    }
}
