//! Combined documents of one view in this process's memory: the embedded profile, where the projector is in it too.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::Ticket;
use crate::served::Served;
use crate::view::DocId;

/// What one view's cache holds at most, in bytes of stored documents. In memory they take a few times that.
const CAPACITY_BYTES: u64 = 4 << 20;

/// Writes to a document and fills of its entry meet here; many documents share a slot.
const SLOTS: usize = 256;

/// The cache of one view's generation. What is in it is never older than what [`InProcess::written`] was told, so a read
/// after a write that was announced sees that write.
pub(crate) struct InProcess<D> {
    entries: moka::sync::Cache<DocId, Arc<Served<D>>, RandomState>,
    /// Counts the writes to the documents of each slot. Without it, a reader that loaded a document before a write
    /// could put it into the cache after that write had found nothing to replace, and it would stay.
    slots: Arc<[Mutex<u64>]>,
    hasher: RandomState,
}

impl<D> Clone for InProcess<D> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            slots: Arc::clone(&self.slots),
            hasher: self.hasher.clone(),
        }
    }
}

impl<D: Serialize + Send + Sync + 'static> InProcess<D> {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            entries: moka::sync::Cache::builder()
                .max_capacity(CAPACITY_BYTES)
                .weigher(|_, served: &Arc<Served<D>>| served.weight)
                .build_with_hasher(hasher.clone()),
            slots: (0..SLOTS).map(|_| Mutex::new(0)).collect(),
            hasher,
        }
    }

    pub(crate) fn get(&self, id: &DocId) -> Option<Arc<Served<D>>> {
        self.entries.get(id)
    }

    pub(crate) fn ticket(&self, id: &DocId) -> Ticket {
        Ticket {
            id: id.clone(),
            number: *self.slot(id),
        }
    }

    /// Caches what was loaded under `ticket`, unless the document may have been written since.
    pub(crate) fn fill(&self, ticket: &Ticket, served: &Arc<Served<D>>) {
        let writes = self.slot(&ticket.id);
        if *writes == ticket.number {
            self.entries.insert(ticket.id.clone(), served.clone());
        }
    }

    /// Takes note of a committed write; `served` makes the new document, if it is wanted: when the old one is cached or
    /// `watched`.
    pub(crate) fn written(
        &self,
        id: &DocId,
        rev: u64,
        watched: bool,
        served: impl FnOnce() -> Option<Served<D>>,
    ) {
        let mut writes = self.slot(id);
        *writes += 1;
        let cached = self.entries.get(id);
        if cached.as_ref().is_some_and(|cached| cached.rev >= rev) || (cached.is_none() && !watched) {
            return;
        }
        match served() {
            Some(served) => self.entries.insert(id.clone(), Arc::new(served)),
            None => self.entries.invalidate(id),
        }
    }

    #[cfg(test)]
    pub(crate) fn forget(&self, id: &DocId) {
        self.entries.invalidate(id);
    }

    /// Holds up writes to the cached document until dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self, id: &DocId) -> MutexGuard<'_, u64> {
        self.slot(id)
    }

    #[cfg(test)]
    pub(crate) fn share_a_slot(&self, one: &DocId, other: &DocId) -> bool {
        self.slot_of(one) == self.slot_of(other)
    }

    fn slot(&self, id: &DocId) -> MutexGuard<'_, u64> {
        self.slots[self.slot_of(id)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn slot_of(&self, id: &DocId) -> usize {
        self.hasher.hash_one(id) as usize % SLOTS
    }
}

impl<D> std::fmt::Debug for InProcess<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}
