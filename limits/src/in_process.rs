//! Counting in this process. The algorithm is `governor`'s. The states are kept here, because memory has to stay
//! bounded when every attempt comes under another key: each shard is an LRU that forgets whoever was seen least
//! recently. Forgetting gives that key its full quota back, so a flood of new keys can at worst make a limit lenient,
//! never strict.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock as _, DefaultClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use lru::LruCache;

use crate::{Quota, Standing};

/// Independent locks, so that attempts of different keys rarely meet.
const SHARDS: usize = 16;

type Limiter<K> = governor::RateLimiter<K, States<K>, DefaultClock, StateInformationMiddleware>;

/// When each key's next attempt is expected, for a bounded number of keys. A handle: clones share the states.
struct States<K>(Arc<Bounded<K>>);

struct Bounded<K> {
    shards: Vec<Mutex<LruCache<K, Nanos>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq> Bounded<K> {
    fn new(keys_max: usize) -> Self {
        let per_shard = NonZeroUsize::new(keys_max.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        // Unbounded LRU caches allocate as they grow; `new` would reserve for the maximum at once.
        let shard = || {
            let mut cache = LruCache::unbounded();
            cache.resize(per_shard);
            Mutex::new(cache)
        };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }

    fn with<R>(&self, key: &K, act: impl FnOnce(&mut LruCache<K, Nanos>) -> R) -> R {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Hash + Eq + Clone> StateStore for States<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.with(key, |states| {
            let (outcome, next) = measure(states.get(key).copied())?;
            states.put(key.clone(), next);
            Ok(outcome)
        })
    }
}

pub(crate) struct InProcess<K: Hash + Eq + Clone> {
    quota: Quota,
    limiter: Limiter<K>,
    states: Arc<Bounded<K>>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for InProcess<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess")
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> InProcess<K> {
    pub(crate) fn new(quota: Quota, keys_max: usize) -> Self {
        let burst = NonZeroU32::new(quota.burst).unwrap_or(NonZeroU32::MIN);
        let cells = governor::Quota::with_period(quota.interval)
            .unwrap_or(governor::Quota::per_second(burst))
            .allow_burst(burst);
        let clock = DefaultClock::default();
        let states = Arc::new(Bounded::new(keys_max));
        Self {
            quota,
            limiter: governor::RateLimiter::new(cells, States(states.clone()), clock.clone()),
            states,
            clock,
        }
    }

    pub(crate) fn check(&self, key: &K) -> Standing {
        match self.limiter.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = self.quota.burst.saturating_sub(remaining);
                Standing {
                    remaining,
                    reset: self.quota.interval.saturating_mul(used),
                    refused: false,
                }
            }
            Err(not_until) => Standing {
                remaining: 0,
                reset: not_until
                    .earliest_possible()
                    .duration_since(self.clock.now())
                    .into(),
                refused: true,
            },
        }
    }

    pub(crate) fn forgive(&self, key: &K) {
        self.states.with(key, |states| states.pop(key));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limiter(keys_max: usize) -> InProcess<u32> {
        InProcess::new(Quota::new(3, Duration::from_secs(1_200)), keys_max)
    }

    #[test]
    fn memory_is_bounded_whatever_number_of_keys_comes() {
        let limiter = limiter(160);
        for key in 0..10_000 {
            assert!(!limiter.check(&key).refused);
        }
        let remembered: usize = limiter
            .states
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(remembered <= 160, "{remembered}");
    }

    #[test]
    fn a_key_that_stays_active_is_not_forgotten_under_a_flood() {
        let limiter = limiter(1_600);
        for _ in 0..3 {
            limiter.check(&u32::MAX);
        }
        for key in 0..10_000 {
            limiter.check(&key);
            if key % 10 == 0 {
                assert!(limiter.check(&u32::MAX).refused, "forgotten after {key} others");
            }
        }
    }
}
