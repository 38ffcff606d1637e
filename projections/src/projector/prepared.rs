//! What a batch came to, before it is written.

use std::sync::Arc;

use event_store::LogEntry;

use super::fold::{Fold, Poison};
use super::poison::Bad;
use crate::error::ViewError;
use crate::store::{StoredDocument, ViewWrites};

/// What a batch came to, before it is written.
pub(super) struct Prepared {
    /// For each view.
    pub(super) poison: Vec<Vec<Poison>>,
    pub(super) writes: Arc<Vec<ViewWrites>>,
}

impl Prepared {
    pub(super) fn fold(
        folds: &mut [Box<dyn Fold>],
        entries: &[LogEntry],
        loaded: Vec<Vec<StoredDocument>>,
    ) -> Result<Self, ViewError> {
        let mut poison = Vec::with_capacity(folds.len());
        for (fold, loaded) in folds.iter_mut().zip(loaded) {
            poison.push(fold.fold(entries, loaded)?);
        }
        let mut writes = Vec::with_capacity(folds.len());
        if poison.iter().all(Vec::is_empty) {
            for fold in folds {
                let documents = fold.writes()?;
                writes.push(ViewWrites {
                    table: Arc::clone(fold.table()),
                    documents,
                });
            }
        }
        Ok(Self {
            poison,
            writes: Arc::new(writes),
        })
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.iter().any(|poison| !poison.is_empty())
    }

    /// Itself, if everything folded; otherwise what did not goes into `bad`.
    pub(super) fn checked(self, entries: &[LogEntry], bad: &mut [Bad]) -> Option<Self> {
        let mut clean = true;
        for (poison, bad) in self.poison.iter().zip(bad) {
            for Poison { entry, reason } in poison {
                let Some(event) = entries.get(*entry).and_then(LogEntry::event) else {
                    continue;
                };
                clean = false;
                let first = bad
                    .entry(event.stream.clone())
                    .or_insert_with(|| (event.version, reason.clone()));
                // One stream may feed several documents, and fail in each.
                if event.version < first.0 {
                    *first = (event.version, reason.clone());
                }
            }
        }
        clean.then_some(self)
    }
}
