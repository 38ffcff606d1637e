//! Who waits for which document to change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::view::DocId;

/// The documents of one view that somebody watches. Holds as many entries as there are watchers, no queue: a watcher
/// that is slow misses steps in between, never the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    documents: HashMap<DocId, watch::Sender<u64>>,
    /// Whether a task asks the store for changes.
    #[cfg(feature = "cluster")]
    polled: bool,
}

impl Changes {
    pub(crate) fn watch(&self, id: &DocId) -> DocWatch {
        let mut watched = self.lock();
        let sender = watched
            .documents
            .entry(id.clone())
            .or_insert_with(|| watch::channel(0).0);
        let receiver = sender.subscribe();
        drop(watched);
        DocWatch {
            id: id.clone(),
            receiver,
            changes: self.clone(),
        }
    }

    /// Wakes those who watch any of `ids`. Call it once the changes can be read everywhere.
    pub(crate) fn notify<'a>(&self, ids: impl IntoIterator<Item = &'a DocId>) {
        let watched = self.lock();
        if watched.documents.is_empty() {
            return;
        }
        for sender in ids.into_iter().filter_map(|id| watched.documents.get(id)) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Wakes everybody: the documents are other ones now.
    pub(crate) fn notify_all(&self) {
        for sender in self.lock().documents.values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Whether anybody watches `id` right now.
    pub(crate) fn watches(&self, id: &DocId) -> bool {
        self.lock().documents.contains_key(id)
    }

    /// Whether the caller has to begin to poll: somebody watches, and nobody polls.
    #[cfg(feature = "cluster")]
    pub(crate) fn begin_polling(&self) -> bool {
        let mut watched = self.lock();
        !watched.documents.is_empty() && !std::mem::replace(&mut watched.polled, true)
    }

    /// What has to be polled; none, and polling has ended, when nobody watches.
    #[cfg(feature = "cluster")]
    pub(crate) fn polled(&self) -> Option<Vec<DocId>> {
        let mut watched = self.lock();
        if watched.documents.is_empty() {
            watched.polled = false;
            return None;
        }
        Some(watched.documents.keys().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells when one document changes. Watch first, then read, then wait: nothing is missed.
#[derive(Debug)]
pub struct DocWatch {
    id: DocId,
    receiver: watch::Receiver<u64>,
    changes: Changes,
}

impl DocWatch {
    /// Resolves once the document has changed since the last call (the first: since it is watched). Several changes
    /// count as one. Can be cancelled without losing anything.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives in `changes` while this does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for DocWatch {
    fn drop(&mut self) {
        let mut watched = self.changes.lock();
        // Our own receiver still counts.
        if watched
            .documents
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            watched.documents.remove(&self.id);
        }
    }
}
