//! A connection to Redis that is given up on for a while when it fails.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::time::timeout;

use super::CacheState;

/// How to reach Redis, and how documents are kept there.
#[derive(Clone)]
pub struct RedisOptions {
    /// Such as `redis://127.0.0.1:6379`; may hold a password, so it is never printed.
    pub url: String,
    /// Stands before all keys, so that several installations can share a server.
    pub key_prefix: String,
    /// How long an answer may take before the store is asked instead.
    pub timeout: Duration,
    /// How long Redis is left alone once it failed.
    pub pause: Duration,
    /// How long a document stays, give or take a fifth, so that not all go at once. What a projector could not tell
    /// Redis and took into its grave with it is forgotten after this.
    pub expiry: Duration,
}

impl RedisOptions {
    /// Options with the usual times.
    pub fn new(url: impl Into<String>, key_prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key_prefix: key_prefix.into(),
            timeout: Duration::from_millis(100),
            pause: Duration::from_secs(1),
            expiry: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

/// The URL is none of a Redis server. What is wrong with it is not told, as it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a Redis server: expected a form such as redis://host:6379")]
pub struct RedisError;

/// Redis, as the views use it. Cloning is cheap and shares the connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    options: RedisOptions,
    begun: Instant,
    /// Milliseconds after `begun` before which Redis is left alone; 0 while it answers.
    away_until_ms: AtomicU64,
}

impl Redis {
    /// Connects when first used, and again whenever the connection is lost; so it does not fail when Redis is away. Call
    /// it inside a tokio runtime.
    pub fn open(options: RedisOptions) -> Result<Self, RedisError> {
        let client = redis::Client::open(options.url.as_str()).map_err(|_| RedisError)?;
        let config = ConnectionManagerConfig::new()
            // We try again ourselves, after the pause.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout));
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(|_| RedisError)?;
        Ok(Self(Arc::new(Inner {
            connection,
            options,
            begun: Instant::now(),
            away_until_ms: AtomicU64::new(0),
        })))
    }

    /// Whether Redis answered when it was last asked.
    pub fn state(&self) -> CacheState {
        match self.0.away_until_ms.load(Ordering::Relaxed) {
            0 => CacheState::Up,
            _ => CacheState::Down,
        }
    }

    /// Asks whether Redis answers, so that [`Redis::state`] is known before anything else asks.
    pub async fn ping(&self) -> CacheState {
        let mut connection = self.connection();
        let _: Option<()> = self.ask(redis::cmd("PING").exec_async(&mut connection)).await;
        self.state()
    }

    pub(super) fn connection(&self) -> ConnectionManager {
        self.0.connection.clone()
    }

    pub(super) fn options(&self) -> &RedisOptions {
        &self.0.options
    }

    /// Asks Redis; none when it is away. While it is, one caller per pause finds out whether it is back.
    pub(super) async fn ask<T>(&self, question: impl Future<Output = redis::RedisResult<T>>) -> Option<T> {
        let inner = &*self.0;
        let now_ms = || inner.begun.elapsed().as_millis() as u64;
        let again_ms = || {
            now_ms()
                .saturating_add(inner.options.pause.as_millis() as u64)
                .max(1)
        };
        let until_ms = inner.away_until_ms.load(Ordering::Relaxed);
        if until_ms != 0 {
            let mine = now_ms() >= until_ms
                && inner
                    .away_until_ms
                    .compare_exchange(until_ms, again_ms(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if !mine {
                return None;
            }
        }
        let problem = match timeout(inner.options.timeout, question).await {
            Ok(Ok(answer)) => {
                if inner.away_until_ms.swap(0, Ordering::Relaxed) != 0 {
                    tracing::info!("Redis is back: documents are cached again");
                }
                return Some(answer);
            }
            // The category alone: an answer may quote what was asked.
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => "no answer in time".to_owned(),
        };
        if inner.away_until_ms.swap(again_ms(), Ordering::Relaxed) == 0 {
            tracing::warn!(problem, "Redis is away: documents are read from the store");
        }
        None
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
