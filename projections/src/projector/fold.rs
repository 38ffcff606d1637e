//! One view's share of a batch: which documents, what becomes of them, what is written.

use std::collections::HashMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{AggregateType, RecordedEvent, StreamId};
use event_store::LogEntry;

use super::hot::{Hot, HotDocuments};
use crate::cache::ViewCache;
#[cfg(feature = "cluster")]
use crate::cache::{CacheWrite, RedisCache};
use crate::error::ViewError;
use crate::query::KeyValue;
use crate::reader::{Generation, parse, serve};
use crate::store::{DocumentWrite, StoredDocument, Table};
use crate::view::{DocId, View};

/// The write side of one view, whatever its parts are.
pub(super) trait Fold: Send + Sync {
    fn name(&self) -> &'static str;
    fn table(&self) -> &Arc<Table>;
    /// What is in the documents.
    fn reached(&self) -> &Checkpoint;
    /// Which aggregates the view reads.
    fn sources(&self) -> &'static [AggregateType];

    /// Whether the event belongs to one of the view's documents.
    fn routes(&self, event: &RecordedEvent) -> bool;
    /// Groups the entries by document; `left_out` says which must not be folded. Returns the documents that have to be
    /// loaded. Planning again loads all of them, whatever was in memory.
    fn plan(&mut self, entries: &[LogEntry], left_out: &dyn Fn(&RecordedEvent) -> bool) -> Vec<DocId>;
    /// Folds what was planned into the loaded documents. What comes back is poison: then nothing may be written.
    fn fold(&mut self, entries: &[LogEntry], loaded: Vec<StoredDocument>) -> Result<Vec<Poison>, ViewError>;
    /// What has to be written.
    fn writes(&mut self) -> Result<Vec<DocumentWrite>, ViewError>;
    /// Forgets the documents at these places of the last [`Fold::writes`], for they had moved, keeps the others as written,
    /// and returns those to be loaded again.
    fn moved(&mut self, moved: &[usize]) -> Vec<DocId>;
    /// What readers in other processes have to be told once all documents are stored.
    #[cfg(feature = "cluster")]
    fn cache_writes(&self) -> Option<(RedisCache, Vec<CacheWrite>)>;
    /// Everything is stored, with this progress: shows it to readers in this process.
    fn stored(&mut self, checkpoint: &Checkpoint);
}

/// An event that does not fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poison {
    /// Its place in the batch.
    pub(super) entry: usize,
    pub(super) reason: String,
}

/// One document of a batch.
struct Work<V: View> {
    id: DocId,
    /// None until loaded.
    hot: Option<Hot<V>>,
    /// Places in the batch.
    events: Vec<usize>,
    /// Whether folding changed it.
    changed: bool,
    /// What was written last, if anything.
    body: Option<Arc<str>>,
}

pub(super) struct ViewFold<V: View> {
    generation: Arc<Generation<V>>,
    reached: Checkpoint,
    hot: HotDocuments<V>,
    work: Vec<Work<V>>,
    /// The work of each place of the last writes.
    written: Vec<usize>,
}

impl<V: View> ViewFold<V> {
    pub(super) fn new(generation: Arc<Generation<V>>) -> Self {
        let reached = generation.reached.borrow().clone();
        Self {
            generation,
            reached,
            hot: HotDocuments::new(),
            work: Vec::new(),
            written: Vec::new(),
        }
    }
}

impl<V: View> Fold for ViewFold<V> {
    fn name(&self) -> &'static str {
        V::NAME
    }

    fn table(&self) -> &Arc<Table> {
        &self.generation.table
    }

    fn reached(&self) -> &Checkpoint {
        &self.reached
    }

    fn sources(&self) -> &'static [AggregateType] {
        V::SOURCES
    }

    fn routes(&self, event: &RecordedEvent) -> bool {
        V::SOURCES.contains(&event.stream.aggregate_type) && V::route(event).is_some()
    }

    fn plan(&mut self, entries: &[LogEntry], left_out: &dyn Fn(&RecordedEvent) -> bool) -> Vec<DocId> {
        self.work.clear();
        let mut places: HashMap<DocId, usize> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let Some(event) = entry.event() else { continue };
            if !V::SOURCES.contains(&event.stream.aggregate_type) {
                continue;
            }
            let Some(id) = V::route(event).filter(|_| !left_out(event)) else {
                continue;
            };
            let place = *places.entry(id).or_insert_with_key(|id| {
                let hot = self.hot.take(id);
                self.work.push(Work {
                    id: id.clone(),
                    hot,
                    events: Vec::new(),
                    changed: false,
                    body: None,
                });
                self.work.len() - 1
            });
            self.work[place].events.push(index);
        }
        self.work
            .iter()
            .filter(|work| work.hot.is_none())
            .map(|work| work.id.clone())
            .collect()
    }

    fn fold(&mut self, entries: &[LogEntry], loaded: Vec<StoredDocument>) -> Result<Vec<Poison>, ViewError> {
        let mut loaded: HashMap<DocId, StoredDocument> = loaded
            .into_iter()
            .map(|stored| (stored.id.clone(), stored))
            .collect();
        let mut poison = Vec::new();
        for work in &mut self.work {
            let mut hot = match work.hot.take() {
                // Folded already, before another document of the batch turned out to have moved.
                Some(hot) if work.changed => {
                    work.hot = Some(hot);
                    continue;
                }
                Some(hot) => hot,
                None => match loaded.remove(&work.id) {
                    Some(stored) => Hot::stored(
                        parse::<V>(&stored.id, &stored.body)?,
                        stored.rev,
                        stored.body.len(),
                    ),
                    None => Hot::absent(),
                },
            };
            let mut bad: Vec<&StreamId> = Vec::new();
            for index in &work.events {
                let Some(event) = entries.get(*index).and_then(LogEntry::event) else {
                    continue;
                };
                if bad.contains(&&event.stream) {
                    continue;
                }
                // A fold that panics is poison like one that refuses; the half-folded document is dropped with the plan.
                let folded = catch_unwind(AssertUnwindSafe(|| hot.document.fold::<V>(event)));
                let reason = match folded {
                    Ok(Ok(changed)) => {
                        work.changed |= changed;
                        continue;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "the fold panicked".to_owned(),
                };
                bad.push(&event.stream);
                poison.push(Poison {
                    entry: *index,
                    reason,
                });
            }
            work.hot = Some(hot);
        }
        Ok(poison)
    }

    fn writes(&mut self) -> Result<Vec<DocumentWrite>, ViewError> {
        self.written.clear();
        let mut writes = Vec::with_capacity(self.work.len());
        for (index, work) in self.work.iter_mut().enumerate() {
            let Some(hot) = work.hot.as_mut().filter(|_| work.changed) else {
                continue;
            };
            let body = serde_json::to_string(&hot.document).map_err(|error| ViewError::Corrupt {
                view: V::NAME,
                id: work.id.to_string(),
                message: error.to_string(),
            })?;
            let body: Arc<str> = body.into();
            let keys = keys_of::<V>(hot);
            hot.bytes = body.len();
            work.body = Some(Arc::clone(&body));
            let keys_changed = hot.keys.as_ref() != Some(&keys);
            writes.push(DocumentWrite {
                id: work.id.clone(),
                expected: hot.rev,
                keys: keys_changed.then(|| keys.clone()),
                body,
            });
            hot.keys = Some(keys);
            self.written.push(index);
        }
        Ok(writes)
    }

    fn moved(&mut self, moved: &[usize]) -> Vec<DocId> {
        let written = mem::take(&mut self.written);
        let mut again = Vec::with_capacity(moved.len());
        for (place, index) in written.into_iter().enumerate() {
            let work = &mut self.work[index];
            if moved.contains(&place) {
                work.hot = None;
                work.changed = false;
                again.push(work.id.clone());
            } else if let Some(hot) = &mut work.hot {
                // Stored: a second write has nothing to add.
                hot.rev += 1;
                work.changed = false;
            }
        }
        again
    }

    #[cfg(feature = "cluster")]
    fn cache_writes(&self) -> Option<(RedisCache, Vec<CacheWrite>)> {
        let ViewCache::Redis(cache) = &self.generation.cache else {
            return None;
        };
        // Also those that have not changed: the process that stored them may have died before it could tell.
        let writes = self.work.iter().filter_map(|work| {
            let hot = work.hot.as_ref().filter(|hot| hot.rev > 0)?;
            Some(CacheWrite {
                id: work.id.clone(),
                rev: hot.rev,
                body: work.body.clone(),
            })
        });
        Some((cache.redis.clone(), writes.collect()))
    }

    fn stored(&mut self, checkpoint: &Checkpoint) {
        self.reached.merge(checkpoint);
        let generation = &self.generation;
        let mut ids = Vec::with_capacity(self.work.len());
        for Work { id, hot, .. } in self.work.drain(..) {
            let Some(hot) = hot else { continue };
            let make = || serve::<V>(&id, generation.number(), hot.rev, hot.bytes, &hot.document);
            match &generation.cache {
                ViewCache::InProcess(cache) => {
                    cache.written(&id, hot.rev, generation.changes.watches(&id), make);
                }
                // Told before: it has to be waited for.
                #[cfg(feature = "cluster")]
                ViewCache::Redis(_) => {}
            }
            ids.push(id.clone());
            self.hot.put(id, hot);
        }
        // In this order: whoever is told of a change, or begins to wait from here on, reads it.
        generation.reached_to(checkpoint);
        generation.changes.notify(&ids);
    }
}

/// The keys as they are stored: all absent for a document that no list shows.
pub(super) fn keys_of<V: View>(hot: &Hot<V>) -> Vec<KeyValue> {
    V::keys(&hot.document).unwrap_or_else(|| vec![KeyValue::Absent; V::KEYS.len()])
}
