//! The token that ties appends to the appends they were decided on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use event_schemas::Version;

/// A run of appends to one stream, each decided on the state that the one before leaves. Once one of them fails, the
/// journal refuses all that follow: they were decided on a state that never was. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Chain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    broken: AtomicBool,
    /// Entries handed to the journal and not answered yet.
    in_flight: AtomicUsize,
    /// The version after the chain's last durable append.
    durable: AtomicU64,
}

impl Chain {
    /// A chain whose first append is decided on what the log holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Chain::new`], of a stream that is known to be durable up to `version`.
    pub(crate) fn at(version: Version) -> Self {
        let chain = Self::default();
        chain.0.durable.store(version.0, Ordering::Release);
        chain
    }

    /// Whether an entry of the chain has failed, so that nothing more of it will be committed.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// Tells chains apart, as long as they live.
    #[cfg(feature = "cluster")]
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn break_off(&self) {
        self.0.broken.store(true, Ordering::Release);
    }

    pub(crate) fn enter(&self) {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry has been answered; `durable` is the version it left, if it appended.
    pub(crate) fn leave(&self, durable: Option<Version>) {
        if let Some(version) = durable {
            self.0.durable.fetch_max(version.0, Ordering::Release);
        }
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> Version {
        Version(self.0.durable.load(Ordering::Acquire))
    }
}
