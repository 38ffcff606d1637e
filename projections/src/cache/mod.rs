//! Documents of one view's generation, kept where they are read faster than from the store.
//!
//! Both kinds keep the same promise: what they give is never older than what they were told was written, and what they
//! have given once. Losing a cache loses nothing.

#[cfg(feature = "cluster")]
mod flights;
mod in_process;
#[cfg(feature = "cluster")]
mod redis;
#[cfg(feature = "cluster")]
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use in_process::InProcess;
#[cfg(feature = "cluster")]
pub use redis::{Redis, RedisError, RedisOptions};
#[cfg(feature = "cluster")]
pub(crate) use shared::{CacheWrite, Lookup, RedisCache, Shared};

use crate::view::{DocId, View};

/// The cache of one view's generation. Cloning is cheap and shares it.
pub(crate) enum ViewCache<V: View> {
    /// Combined documents; the projector is in the same process.
    InProcess(InProcess<V::Doc>),
    /// Stored documents, for all processes.
    #[cfg(feature = "cluster")]
    Redis(Shared<V::Doc>),
}

impl<V: View> Clone for ViewCache<V> {
    fn clone(&self) -> Self {
        match self {
            Self::InProcess(cache) => Self::InProcess(cache.clone()),
            #[cfg(feature = "cluster")]
            Self::Redis(cache) => Self::Redis(cache.clone()),
        }
    }
}

impl<V: View> std::fmt::Debug for ViewCache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InProcess(cache) => cache.fmt(f),
            #[cfg(feature = "cluster")]
            Self::Redis(cache) => cache.fmt(f),
        }
    }
}

/// Taken before loading a document, given back to cache what was loaded: a write in between makes it void.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: DocId,
    number: u64,
}

/// Whether a cache can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheState {
    Up,
    /// Reads go to the store: slower, never wrong.
    Down,
}

/// Counts look-ups of one view.
pub(crate) fn count(view: &'static str, outcome: &'static str, lookups: u64) {
    if lookups > 0 {
        metrics::counter!("omisys_view_cache_total", "view" => view, "outcome" => outcome).increment(lookups);
    }
}
