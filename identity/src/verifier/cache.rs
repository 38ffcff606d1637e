//! Tokens whose signature has been checked, so that every further hop costs a hash.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use event_schemas::Timestamp;
use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::Caller;

const SHARDS: usize = 16;

/// Per shard: at about 200 bytes an entry, all shards together stay under 4 MiB.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// What a good token said.
#[derive(Clone, Copy)]
pub(super) struct Verified {
    pub caller: Caller,
    pub epoch: u64,
    /// With leeway.
    pub usable_until: Timestamp,
}

/// Keyed by the hash of the whole token; holds no token.
pub(super) struct Cache([Mutex<LruCache<[u8; 32], Verified>>; SHARDS]);

impl Default for Cache {
    fn default() -> Self {
        // `unbounded` allocates nothing up front; `put` keeps the bound.
        Self(std::array::from_fn(|_| Mutex::new(LruCache::unbounded())))
    }
}

impl Cache {
    pub(super) fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token).into()
    }

    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Verified> {
        self.shard(digest)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .copied()
    }

    pub(super) fn put(&self, digest: [u8; 32], verified: Verified) {
        let mut shard = self.shard(&digest).lock().unwrap_or_else(PoisonError::into_inner);
        shard.put(digest, verified);
        if shard.len() > ENTRIES.get() {
            shard.pop_lru();
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.0 {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn shard(&self, digest: &[u8; 32]) -> &Mutex<LruCache<[u8; 32], Verified>> {
        &self.0[usize::from(digest[0]) % SHARDS]
    }
}
