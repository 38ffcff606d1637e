//! Limits per client address and per account, and how they are told to the client.
//!
//! The algorithm is `governor`'s (GCRA). The states are kept here, because memory has to stay bounded when every
//! request comes from another address: each shard is an LRU that forgets whoever was seen least recently. Forgetting
//! gives that key its full quota back, so a flood of new addresses can at worst make the limit lenient, never strict.
//!
//! Headers follow draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "address";q=3000;w=60` names the quota,
//! `RateLimit: "address";r=2999;t=1` what is left of it and the seconds until it is whole again.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;

use crate::config::Rate;

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Independent locks, so that requests of different keys rarely meet.
const SHARDS: usize = 16;

/// When each key's next request is expected, for a bounded number of keys.
struct BoundedStore<K> {
    shards: Vec<Mutex<LruCache<K, Nanos>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq> BoundedStore<K> {
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

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        let mut states = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, next) = measure(states.get(key).copied())?;
        states.put(key.clone(), next);
        Ok(outcome)
    }
}

/// One policy, applied to many keys.
pub(crate) struct Limiter<K: Hash + Eq + Clone> {
    name: &'static str,
    rate: Rate,
    states: RateLimiter<K, BoundedStore<K>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
}

/// What a policy says about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    name: &'static str,
    rate: Rate,
    /// Requests that would be let through right now.
    remaining: u32,
    /// Until the quota is whole again, or, if `refused`, until the next request may be tried.
    pub(crate) reset: Duration,
    pub(crate) refused: bool,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    pub(crate) fn new(name: &'static str, rate: Rate, keys_max: usize) -> Self {
        let requests = NonZeroU32::new(rate.requests).unwrap_or(NonZeroU32::MIN);
        let window = Duration::from_secs(u64::from(rate.window_seconds.max(1)));
        // The interval between two requests, at least a nanosecond.
        let interval = (window / requests.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval)
            .unwrap_or(Quota::per_second(requests))
            .allow_burst(requests);
        let clock = DefaultClock::default();
        let states = RateLimiter::new(quota, BoundedStore::new(keys_max), clock.clone());
        Self {
            name,
            rate,
            states,
            clock,
        }
    }

    /// Counts one request of `key`.
    pub(crate) fn check(&self, key: &K) -> Standing {
        let standing = Standing {
            name: self.name,
            rate: self.rate,
            remaining: 0,
            reset: Duration::ZERO,
            refused: false,
        };
        match self.states.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = self.rate.requests.saturating_sub(remaining);
                let window = Duration::from_secs(u64::from(self.rate.window_seconds));
                let reset = window.mul_f64(f64::from(used) / f64::from(self.rate.requests.max(1)));
                Standing {
                    remaining,
                    reset,
                    ..standing
                }
            }
            Err(not_until) => Standing {
                reset: not_until
                    .earliest_possible()
                    .duration_since(self.clock.now())
                    .into(),
                refused: true,
                ..standing
            },
        }
    }
}

/// Whole seconds, rounded up: a client that waits that long is not too early.
pub(crate) fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Writes both headers for the policies that were applied, in order.
pub(crate) fn write_headers(standings: &[Standing], headers: &mut HeaderMap) {
    if standings.is_empty() {
        return;
    }
    let list = |item: fn(&Standing) -> String| standings.iter().map(item).collect::<Vec<_>>().join(", ");
    let policy = list(|s| format!("\"{}\";q={};w={}", s.name, s.rate.requests, s.rate.window_seconds));
    let state = list(|s| format!("\"{}\";r={};t={}", s.name, s.remaining, seconds_up(s.reset)));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        requests: 3,
        window_seconds: 3_600,
    };

    #[test]
    fn a_key_is_refused_once_its_quota_is_used_and_others_are_not() {
        let limiter = Limiter::new("caller", RATE, 100);
        let remaining: Vec<u32> = (0..3).map(|_| limiter.check(&"a").remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = limiter.check(&"a");
        assert!(refused.refused);
        assert!((1..=1_200).contains(&seconds_up(refused.reset)), "{refused:?}");
        assert!(!limiter.check(&"b").refused);
    }

    #[test]
    fn memory_is_bounded_whatever_number_of_keys_comes() {
        let limiter = Limiter::new("address", RATE, 160);
        for key in 0..10_000_u32 {
            assert!(!limiter.check(&key).refused);
        }
        assert!(limiter.states.into_state_store().len() <= 160);
    }

    #[test]
    fn a_key_that_stays_active_is_not_forgotten_under_a_flood() {
        let limiter = Limiter::new("address", RATE, 1_600);
        for _ in 0..3 {
            limiter.check(&u32::MAX);
        }
        for key in 0..10_000_u32 {
            limiter.check(&key);
            if key % 10 == 0 {
                assert!(limiter.check(&u32::MAX).refused, "forgotten after {key} others");
            }
        }
    }

    #[test]
    fn the_headers_follow_the_draft() {
        let limiter = Limiter::new("address", RATE, 10);
        let mut headers = HeaderMap::new();
        write_headers(&[limiter.check(&1)], &mut headers);
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"address\";q=3;w=3600");
        assert_eq!(headers[RATE_LIMIT], "\"address\";r=2;t=1200");
    }
}
