//! How often something may happen: a generic cell rate (GCRA) per key. The gateway limits requests with it, identity
//! tries of passwords and tokens.
//!
//! A [`Limiter`] counts in this process, or in Redis for all processes that use the same name (feature `cluster`).
//! Redis is never needed: while it is away each process counts for itself at the same rate, and
//! [`Limiter::is_degraded`] says so. What is counted there can be lost at any time; then everyone has their whole
//! quota again.

mod in_process;
#[cfg(feature = "cluster")]
mod redis;

use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use in_process::InProcess;

#[cfg(feature = "cluster")]
pub use crate::redis::{Redis, RedisError, RedisOptions};

/// So many at once, and one more after every interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    interval: Duration,
}

impl Quota {
    /// `burst` at once (at least 1); one place comes back after each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst: burst.max(1),
            interval: interval.max(Duration::from_nanos(1)),
        }
    }

    /// `count` at once, which come back evenly over `window`.
    pub fn per_window(count: u32, window: Duration) -> Self {
        Self::new(count, window / count.max(1))
    }
}

/// What a limiter says about one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Attempts that would be let through right now.
    pub remaining: u32,
    /// Until the quota is whole again, or, if `refused`, until the next attempt may be made.
    pub reset: Duration,
    pub refused: bool,
}

/// Where limits are counted; one choice for a process.
#[derive(Debug, Clone, Default)]
pub enum Limits {
    /// Here.
    #[default]
    InProcess,
    /// In Redis, for all processes.
    #[cfg(feature = "cluster")]
    Redis(Redis),
}

impl Limits {
    /// A limiter. In Redis, all limiters of one `name` count together; a process remembers at most `keys_max` keys of
    /// its own and forgets the least recently seen first, which gives that key its whole quota back.
    pub fn limiter<K: Hash + Eq + Clone>(
        &self,
        name: &'static str,
        quota: Quota,
        keys_max: usize,
    ) -> Limiter<K> {
        #[cfg(not(feature = "cluster"))]
        let _ = name;
        let local = InProcess::new(quota, keys_max);
        match self {
            Self::InProcess => Limiter(Counting::InProcess(local)),
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => Limiter(Counting::Redis(redis::Shared::new(
                redis.clone(),
                name,
                quota,
                local,
            ))),
        }
    }

    /// Whether limits are meant to be shared and are not: Redis is away.
    pub fn is_degraded(&self) -> bool {
        match self {
            Self::InProcess => false,
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.is_away(),
        }
    }
}

/// One quota, applied to many keys. Keys reach Redis hashed, so that no address is to be read there.
#[derive(Debug)]
pub struct Limiter<K: Hash + Eq + Clone>(Counting<K>);

#[derive(Debug)]
enum Counting<K: Hash + Eq + Clone> {
    InProcess(InProcess<K>),
    #[cfg(feature = "cluster")]
    Redis(redis::Shared<K>),
}

#[cfg_attr(
    not(feature = "cluster"),
    expect(clippy::unused_async, reason = "with the feature, the count may be elsewhere")
)]
impl<K: Hash + Eq + Clone + Display> Limiter<K> {
    /// Counts one attempt of `key`.
    pub async fn check(&self, key: &K) -> Standing {
        match &self.0 {
            Counting::InProcess(local) => local.check(key),
            #[cfg(feature = "cluster")]
            Counting::Redis(shared) => shared.check(key).await,
        }
    }

    /// Forgets the attempts of a key that has proved itself.
    pub async fn forgive(&self, key: &K) {
        match &self.0 {
            Counting::InProcess(local) => local.forgive(key),
            #[cfg(feature = "cluster")]
            Counting::Redis(shared) => shared.forgive(key).await,
        }
    }
}
