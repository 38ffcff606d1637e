//! One replica: how it is, and what of ours is with it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use http::uri::Authority;
use tokio::time::Instant;

use crate::PoolOptions;
use crate::breaker::Breaker;
use crate::hash;

/// What is known of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaState {
    pub address: SocketAddr,
    /// It says that it can serve.
    pub ready: bool,
    /// It is not left alone after failures.
    pub closed: bool,
    /// Requests and streams of ours.
    pub in_flight: usize,
}

/// What is known of all replicas of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolHealth {
    Up,
    /// Some are away; the others serve.
    Degraded(String),
    /// None serves.
    Down(String),
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    /// Where connections go.
    pub(crate) authority: Authority,
    /// What the configuration calls it.
    pub(crate) host: HeaderValue,
    hash: u64,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    ready: AtomicBool,
    breaker: Mutex<Breaker>,
}

impl Replica {
    /// Trusted until something else is known; none if the address cannot be one of a URL (it always can).
    pub(crate) fn new(address: SocketAddr, host: &Authority, options: &PoolOptions) -> Option<Self> {
        let text = address.to_string();
        Some(Self {
            address,
            authority: text.parse().ok()?,
            host: HeaderValue::from_str(host.as_str()).ok()?,
            hash: hash::of_text(&text),
            in_flight: AtomicUsize::new(0),
            in_flight_max: options.in_flight_max,
            ready: AtomicBool::new(true),
            breaker: Mutex::new(Breaker::new(options)),
        })
    }

    pub(crate) fn score(&self, key: u64) -> u64 {
        hash::score(key, self.hash)
    }

    pub(crate) fn state(&self) -> ReplicaState {
        ReplicaState {
            address: self.address,
            ready: self.is_ready(),
            closed: self.with_breaker(|breaker| breaker.is_closed()),
            in_flight: self.in_flight(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Takes note of a check; answers whether it changes anything.
    pub(crate) fn checked(&self, ready: bool) -> bool {
        let changed = self.ready.swap(ready, Ordering::Relaxed) != ready;
        if changed && ready {
            self.with_breaker(|breaker| breaker.revived(Instant::now()));
        }
        changed
    }

    fn with_breaker<R>(&self, act: impl FnOnce(&mut Breaker) -> R) -> R {
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for one request.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Attempt, Refusal> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.in_flight_max {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Full);
        }
        let held = Held(self.clone());
        if !self.with_breaker(|breaker| breaker.admit(Instant::now())) {
            return Err(Refusal::Open);
        }
        Ok(Attempt {
            held: Some(held),
            replica: self.clone(),
        })
    }
}

/// Why a replica takes no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has as many of ours as it may.
    Full,
    /// It is left alone after failures.
    Open,
}

/// One request among those in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held(Arc<Replica>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that was let through and whose outcome is not known yet.
pub(crate) struct Attempt {
    /// None once the outcome is known.
    held: Option<Held>,
    replica: Arc<Replica>,
}

impl Attempt {
    /// The replica answered; the request is in flight until the answer is through.
    pub(crate) fn succeeded(mut self) -> Option<Held> {
        self.replica.with_breaker(Breaker::succeeded);
        self.held.take()
    }

    /// The replica could not be reached or did not answer.
    pub(crate) fn failed(mut self) {
        self.held = None;
        self.replica
            .with_breaker(|breaker| breaker.failed(Instant::now()));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.replica
                .with_breaker(|breaker| breaker.abandoned(Instant::now()));
        }
    }
}
