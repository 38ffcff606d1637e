//! Reading one generation of a view.

use std::sync::Arc;

use event_bus::{Checkpoint, Partitioning};
use event_schemas::{LogIdentity, Position};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cache::{InProcess, ViewCache, count};
use crate::changes::Changes;
use crate::document::Document;
use crate::error::{ViewError, WaitError};
use crate::query::Query;
use crate::reader::Found;
use crate::served::{ConsistencyPoint, Served};
use crate::store::{StoredDocument, Table, ViewStore};
use crate::view::{DocId, View};

/// One generation of a view: its documents, the cache in front of them, and how far they have come.
#[derive(Debug)]
pub(crate) struct Generation<V: View> {
    pub(crate) store: ViewStore,
    pub(crate) table: Arc<Table>,
    pub(crate) cache: ViewCache<V>,
    /// Of the view: whoever watches a document does not care which generation it is read from.
    pub(crate) changes: Changes,
    /// What is in the documents, as far as this process knows. In the cluster others may have come further.
    pub(crate) reached: watch::Sender<Checkpoint>,
    pub(crate) partitioning: Partitioning,
}

impl<V: View> Generation<V> {
    /// Reads what a projector in this process writes.
    pub(crate) fn in_process(
        store: ViewStore,
        table: Arc<Table>,
        reached: Checkpoint,
        changes: Changes,
    ) -> Self {
        Self {
            store,
            table,
            cache: ViewCache::InProcess(InProcess::new()),
            changes,
            reached: watch::channel(reached).0,
            partitioning: Partitioning::Log,
        }
    }

    /// The document `id`; none if there is none, or nothing that can be shown yet.
    pub(crate) async fn get(&self, id: &DocId) -> Result<Option<Arc<Served<V::Doc>>>, ViewError> {
        match &self.cache {
            ViewCache::InProcess(cache) => self.get_in_process(cache, id).await,
            #[cfg(feature = "cluster")]
            ViewCache::Redis(cache) => self.get_shared(cache, id).await,
        }
    }

    async fn get_in_process(
        &self,
        cache: &InProcess<V::Doc>,
        id: &DocId,
    ) -> Result<Option<Arc<Served<V::Doc>>>, ViewError> {
        if let Some(cached) = cache.get(id) {
            count(V::NAME, "hit", 1);
            return Ok(Some(cached));
        }
        count(V::NAME, "miss", 1);
        let ticket = cache.ticket(id);
        let served = self.load(id).await?;
        if let Some(served) = &served {
            cache.fill(&ticket, served);
        }
        Ok(served)
    }

    /// The documents `ids`, in their order.
    pub(crate) async fn get_many(
        &self,
        ids: &[DocId],
    ) -> Result<Vec<Option<Arc<Served<V::Doc>>>>, ViewError> {
        match &self.cache {
            ViewCache::InProcess(cache) => self.get_many_in_process(cache, ids).await,
            #[cfg(feature = "cluster")]
            ViewCache::Redis(cache) => self.get_many_shared(cache, ids).await,
        }
    }

    async fn get_many_in_process(
        &self,
        cache: &InProcess<V::Doc>,
        ids: &[DocId],
    ) -> Result<Vec<Option<Arc<Served<V::Doc>>>>, ViewError> {
        let mut found: Vec<_> = ids.iter().map(|id| cache.get(id)).collect();
        let missing: Vec<usize> = (0..ids.len()).filter(|index| found[*index].is_none()).collect();
        count(V::NAME, "hit", (ids.len() - missing.len()) as u64);
        count(V::NAME, "miss", missing.len() as u64);
        if missing.is_empty() {
            return Ok(found);
        }
        let tickets: Vec<_> = missing.iter().map(|index| cache.ticket(&ids[*index])).collect();
        let wanted = missing.iter().map(|index| ids[*index].clone()).collect();
        for stored in self.store.load(&self.table, wanted).await? {
            let Some(served) = self.serve(&stored)?.map(Arc::new) else {
                continue;
            };
            for (index, ticket) in missing.iter().zip(&tickets) {
                if ids[*index] == served.id {
                    cache.fill(ticket, &served);
                    found[*index] = Some(served.clone());
                }
            }
        }
        Ok(found)
    }

    /// The document `id` as the store has it.
    async fn load(&self, id: &DocId) -> Result<Option<Arc<Served<V::Doc>>>, ViewError> {
        match self.store.load(&self.table, vec![id.clone()]).await?.pop() {
            Some(stored) => Ok(self.serve(&stored)?.map(Arc::new)),
            None => Ok(None),
        }
    }

    /// A page of a list. Goes to the store: lists are as fresh as the view, and no cache holds them.
    pub(crate) async fn find(&self, query: &Query) -> Result<Found<V::Doc>, ViewError> {
        let rows = self.store.find(&self.table, query).await?;
        let next = rows.next;
        let mut items = Vec::with_capacity(rows.documents.len());
        for stored in &rows.documents {
            items.extend(self.serve(stored)?.map(Arc::new));
        }
        Ok(Found { items, next })
    }

    /// The document `id`, at least as far as `point`; waits for it until `deadline`.
    ///
    /// None once the view has passed the point and has no such document.
    pub(crate) async fn get_at_least(
        &self,
        id: &DocId,
        point: &ConsistencyPoint,
        deadline: Instant,
    ) -> Result<Option<Arc<Served<V::Doc>>>, WaitError> {
        Self::check_read(point)?;
        #[cfg(feature = "cluster")]
        if let ViewCache::Redis(cache) = &self.cache {
            return self.get_at_least_shared(cache, id, point, deadline).await;
        }
        let mut watch = self.changes.watch(id);
        let mut progress = self.reached.subscribe();
        loop {
            // Asked before the document is read: what the view had passed by then is in it.
            let passed = progress.borrow().position() >= point.position;
            let served = self.get(id).await?;
            if passed || served.as_ref().is_some_and(|served| served.reached(point)) {
                return Ok(served);
            }
            let moved = async {
                tokio::select! {
                    () = watch.changed() => {}
                    _ = progress.wait_for(|reached| reached.position() >= point.position) => {}
                }
            };
            timeout_at(deadline, moved)
                .await
                .map_err(|_| WaitError::TimedOut { view: V::NAME })?;
        }
    }

    /// Waits until everything up to `point` is in the documents: for lists.
    pub(crate) async fn reach(&self, point: &ConsistencyPoint, deadline: Instant) -> Result<(), WaitError> {
        Self::check_read(point)?;
        #[cfg(feature = "cluster")]
        if let ViewCache::Redis(_) = &self.cache {
            return self.reach_shared(point, deadline).await;
        }
        self.reach_position(point.position, deadline).await
    }

    /// Waits until everything up to `position` is in the documents, whatever its partition: where the projector is in this
    /// process and follows the log itself.
    pub(crate) async fn reach_position(
        &self,
        position: Position,
        deadline: Instant,
    ) -> Result<(), WaitError> {
        let mut progress = self.reached.subscribe();
        let reached = progress.wait_for(|now| now.position() >= position);
        match timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender is ours, so only time can run out.
            Ok(Err(_)) | Err(_) => Err(WaitError::TimedOut { view: V::NAME }),
        }
    }

    /// How far the documents have come, as far as this process knows; see [`super::ViewProgress::position`].
    pub(crate) fn position(&self) -> Position {
        furthest(&self.reached.borrow())
    }

    /// Learns how far others have come.
    pub(crate) async fn refresh(&self) -> Result<(), ViewError> {
        if self.partitioning != Partitioning::Log {
            let log = self.log();
            let stored = self.store.reached(&self.table, log).await?;
            self.reached_to(&stored);
        }
        Ok(())
    }

    /// Takes note that the documents have come as far as `checkpoint`.
    pub(crate) fn reached_to(&self, checkpoint: &Checkpoint) {
        self.reached.send_if_modified(|reached| {
            let before = reached.clone();
            reached.merge(checkpoint);
            *reached != before
        });
    }

    /// The log that the view is folded from.
    pub(crate) fn log(&self) -> LogIdentity {
        self.reached.borrow().log
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.table.generation
    }

    fn check_read(point: &ConsistencyPoint) -> Result<(), WaitError> {
        let aggregate_type = point.stream.aggregate_type;
        if V::SOURCES.contains(&aggregate_type) {
            Ok(())
        } else {
            Err(WaitError::NotRead {
                view: V::NAME,
                aggregate_type,
            })
        }
    }

    pub(super) fn serve(&self, stored: &StoredDocument) -> Result<Option<Served<V::Doc>>, ViewError> {
        let document = parse::<V>(&stored.id, &stored.body)?;
        Ok(serve::<V>(
            &stored.id,
            self.table.generation,
            stored.rev,
            stored.body.len(),
            &document,
        ))
    }
}

/// The furthest that any partition has come.
pub(crate) fn furthest(checkpoint: &Checkpoint) -> Position {
    let positions = checkpoint.positions().iter();
    positions.map(|(_, position)| *position).max().unwrap_or_default()
}

/// The stored form of a document, read.
pub(crate) fn parse<V: View>(id: &DocId, body: &str) -> Result<Document<V::Part>, ViewError> {
    serde_json::from_str(body).map_err(|error| ViewError::Corrupt {
        view: V::NAME,
        id: id.to_string(),
        message: error.to_string(),
    })
}

/// The document as it is served; none if nothing of it can be shown yet.
pub(crate) fn serve<V: View>(
    id: &DocId,
    generation: u32,
    rev: u64,
    bytes: usize,
    document: &Document<V::Part>,
) -> Option<Served<V::Doc>> {
    let doc = V::combine(id, document)?;
    Some(Served::new(
        id.clone(),
        generation,
        rev,
        document.versions(),
        bytes,
        doc,
    ))
}
