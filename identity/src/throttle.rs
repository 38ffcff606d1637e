//! Bounds on attempts: a generic cell rate per key, counted here in bounded memory, or in Redis for all processes.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use event_schemas::Timestamp;
use limits::Limits;
use lru::LruCache;
use serde::Deserialize;

/// Keys remembered; the least recently seen is forgotten first.
const MAX_KEYS: usize = 65_536;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// On average.
    pub per_minute: u32,
}

/// Counts attempts where this process is told to.
pub(crate) enum Throttle<K: Hash + Eq + Clone> {
    Here(Counter<K>),
    #[cfg(feature = "cluster")]
    Shared(limits::Limiter<K>),
}

#[cfg_attr(
    not(feature = "cluster"),
    expect(clippy::unused_async, reason = "with the feature, the count may be elsewhere")
)]
impl<K: Hash + Eq + Clone + Display> Throttle<K> {
    /// Throttles of one `name` count together where they are shared.
    pub fn new(limits: &Limits, name: &'static str, rate: Rate) -> Self {
        #[cfg(not(feature = "cluster"))]
        let _ = name;
        match limits {
            Limits::InProcess => Self::Here(Counter::new(rate)),
            #[cfg(feature = "cluster")]
            Limits::Redis(_) => {
                let quota = limits::Quota::new(rate.burst, Duration::from_secs(60) / rate.per_minute.max(1));
                Self::Shared(limits.limiter(name, quota, MAX_KEYS))
            }
        }
    }

    /// Counts one attempt, or says after how long one may be made.
    pub async fn take(&self, key: K, now: Timestamp) -> Result<(), Duration> {
        match self {
            Self::Here(counter) => counter.take(key, now),
            #[cfg(feature = "cluster")]
            Self::Shared(limiter) => {
                let standing = limiter.check(&key).await;
                if standing.refused {
                    Err(standing.reset)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Forgets the attempts of a key that has proved itself.
    pub async fn forgive(&self, key: &K) {
        match self {
            Self::Here(counter) => counter.forgive(key),
            #[cfg(feature = "cluster")]
            Self::Shared(limiter) => limiter.forgive(key).await,
        }
    }
}

/// Counts in this process.
pub(crate) struct Counter<K> {
    /// All in microseconds.
    interval: i64,
    burst: i64,
    /// When each key will have its whole burst again, since the epoch.
    full_at: Mutex<LruCache<K, i64>>,
}

impl<K: Hash + Eq> Counter<K> {
    fn new(rate: Rate) -> Self {
        let interval = 60_000_000 / i64::from(rate.per_minute.max(1));
        let burst = interval * i64::from(rate.burst.max(1));
        Self {
            interval,
            burst,
            full_at: Mutex::new(LruCache::unbounded()),
        }
    }

    fn take(&self, key: K, now: Timestamp) -> Result<(), Duration> {
        let now_us = now.as_microsecond();
        let mut keys = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = keys.get(&key).copied().unwrap_or(now_us).max(now_us) + self.interval;
        let wait_us = full_at - now_us - self.burst;
        if wait_us > 0 {
            return Err(Duration::from_micros(wait_us.unsigned_abs()));
        }
        keys.put(key, full_at);
        if keys.len() > MAX_KEYS {
            keys.pop_lru();
        }
        Ok(())
    }

    fn forgive(&self, key: &K) {
        self.full_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the arrivals: no window sees more than its burst and what the rate adds to it, and whoever waits
        /// as long as told gets in.
        #[test]
        fn a_window_never_sees_more_than_it_may(gaps_ms in prop::collection::vec(0_u64..20_000, 1..200)) {
            let rate = Rate { burst: 5, per_minute: 12 };
            let throttle = Counter::new(rate);
            let mut now = Timestamp::from_second(1_000_000).unwrap();
            let mut taken = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                match throttle.take("key", now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(throttle.take("key", now + wait - Duration::from_micros(1)).is_err());
                        now += wait;
                        prop_assert!(throttle.take("key", now).is_ok());
                        taken.push(now);
                    }
                }
            }
            for (first, start) in taken.iter().enumerate() {
                for (last, end) in taken.iter().enumerate().skip(first) {
                    let seconds = end.duration_since(*start).as_secs_f64();
                    let allowed = 5.0 + seconds / 5.0;
                    prop_assert!((last - first + 1) as f64 <= allowed + 0.001);
                }
            }
        }
    }

    #[test]
    fn keys_do_not_share_and_memory_is_bounded() {
        let throttle = Counter::new(Rate {
            burst: 1,
            per_minute: 1,
        });
        let now = Timestamp::UNIX_EPOCH;
        for key in 0..MAX_KEYS * 2 {
            assert!(throttle.take(key, now).is_ok());
        }
        assert_eq!(throttle.full_at.lock().unwrap().len(), MAX_KEYS);
        let last = MAX_KEYS * 2 - 1;
        assert_eq!(throttle.take(last, now), Err(Duration::from_secs(60)));
        throttle.forgive(&last);
        assert!(throttle.take(last, now).is_ok());
    }
}
