//! Counting in Redis, for all processes together.

use std::fmt::{self, Display};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Script;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use crate::in_process::InProcess;
use crate::{Quota, Standing};

/// One attempt. KEYS: the counter. ARGV: microseconds until one place comes back, places. Answers whether it is let
/// through, the places left, and the microseconds until all are back or, if it is not, until one is.
///
/// What is kept is when the quota will be whole again. The clock is Redis's: there is one for everybody.
const CHECK: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local allowed = interval * tonumber(ARGV[2])
local whole_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + interval
if whole_at - now > allowed then
  return {0, 0, whole_at - now - allowed}
end
redis.call('SET', KEYS[1], string.format('%.0f', whole_at), 'PX', math.ceil((whole_at - now) / 1000))
return {1, math.floor((allowed - (whole_at - now)) / interval), whole_at - now}
";

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// Such as `redis://127.0.0.1:6379`; may hold a password, so it is never printed.
    pub url: String,
    /// Before every key, which is `<prefix>:<limiter>:<hash>`.
    pub key_prefix: String,
    /// For one attempt; then this process counts for itself. 100 ms unless said otherwise.
    pub timeout: Duration,
    /// How long Redis is left alone while it is away. A second unless said otherwise.
    pub pause: Duration,
}

impl RedisOptions {
    /// With the usual times.
    pub fn new(url: impl Into<String>, key_prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key_prefix: key_prefix.into(),
            timeout: Duration::from_millis(100),
            pause: Duration::from_secs(1),
        }
    }
}

/// The URL is none of a Redis server. What is wrong with it is not told, as it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a Redis server: expected a form such as redis://host:6379")]
pub struct RedisError;

/// A connection to Redis that many limiters share. Cloning is cheap.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    options: RedisOptions,
    script: Script,
    /// It did not answer; somebody looks whether it is back.
    away: AtomicBool,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("away", &self.is_away())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects with the first attempt that is counted, and again whenever the connection is lost; so it does not fail
    /// when Redis is away. Call it inside a tokio runtime.
    pub fn open(options: RedisOptions) -> Result<Self, RedisError> {
        let client = redis::Client::open(options.url.as_str()).map_err(|_| RedisError)?;
        let config = ConnectionManagerConfig::new()
            // We try again ourselves, with the next attempt after the pause.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout));
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(|_| RedisError)?;
        Ok(Self(Arc::new(Inner {
            connection,
            options,
            script: Script::new(CHECK),
            away: AtomicBool::new(false),
        })))
    }

    /// Whether Redis did not answer when it was last asked.
    pub fn is_away(&self) -> bool {
        self.0.away.load(Ordering::Relaxed)
    }

    /// Asks Redis; none when it is away.
    async fn ask<T>(&self, question: impl Future<Output = redis::RedisResult<T>>) -> Option<T> {
        if self.is_away() {
            return None;
        }
        match self.0.within_time(question).await {
            Ok(answer) => Some(answer),
            Err(problem) => {
                if !self.0.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(problem, "Redis is away: limits are counted by each process");
                    tokio::spawn(until_back(Arc::downgrade(&self.0)));
                }
                None
            }
        }
    }
}

impl Inner {
    async fn within_time<T>(
        &self,
        question: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, String> {
        match timeout(self.options.timeout, question).await {
            Ok(Ok(answer)) => Ok(answer),
            // What drivers say may hold addresses, never the password.
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// Asks once a pause until Redis answers, or nobody holds it any more.
async fn until_back(redis: Weak<Inner>) {
    loop {
        let Some(pause) = redis.upgrade().map(|inner| inner.options.pause) else {
            return;
        };
        sleep(pause).await;
        let Some(inner) = redis.upgrade() else { return };
        let mut connection = inner.connection.clone();
        let ping = async {
            let pong: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
            pong
        };
        if inner.within_time(ping).await.is_ok() {
            inner.away.store(false, Ordering::Relaxed);
            tracing::info!("Redis is back: limits are shared again");
            return;
        }
    }
}

/// One quota, counted in Redis, or here while it is away.
#[derive(Debug)]
pub(crate) struct Shared<K: Hash + Eq + Clone> {
    redis: Redis,
    name: &'static str,
    quota: Quota,
    local: InProcess<K>,
}

impl<K: Hash + Eq + Clone> Shared<K> {
    pub(crate) fn new(redis: Redis, name: &'static str, quota: Quota, local: InProcess<K>) -> Self {
        Self {
            redis,
            name,
            quota,
            local,
        }
    }
}

impl<K: Hash + Eq + Clone + Display> Shared<K> {
    pub(crate) async fn check(&self, key: &K) -> Standing {
        let inner = &*self.redis.0;
        let mut attempt = inner.script.key(self.key(key));
        attempt
            .arg(
                u64::try_from(self.quota.interval.as_micros())
                    .unwrap_or(u64::MAX)
                    .max(1),
            )
            .arg(self.quota.burst);
        let mut connection = inner.connection.clone();
        let answer: Option<(u8, u32, u64)> = self.redis.ask(attempt.invoke_async(&mut connection)).await;
        match answer {
            Some((passed, remaining, micros)) => Standing {
                remaining,
                reset: Duration::from_micros(micros),
                refused: passed == 0,
            },
            None => self.local.check(key),
        }
    }

    pub(crate) async fn forgive(&self, key: &K) {
        self.local.forgive(key);
        let mut connection = self.redis.0.connection.clone();
        let delete = async {
            let deleted: redis::RedisResult<()> = redis::cmd("DEL")
                .arg(self.key(key))
                .query_async(&mut connection)
                .await;
            deleted
        };
        // What could not be forgiven runs out by itself.
        let _ = self.redis.ask(delete).await;
    }

    fn key(&self, key: &K) -> String {
        let digest = Sha256::digest(key.to_string().as_bytes());
        // Half of it: two keys that meet by chance would share a quota, no more.
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        let half = u128::from_be_bytes(half);
        format!("{}:{}:{half:032x}", self.redis.0.options.key_prefix, self.name)
    }
}
