//! Limits per client address and per account, and how they are told to the client.
//!
//! Headers follow draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "address";q=3000;w=60` names the quota,
//! `RateLimit: "address";r=2999;t=1` what is left of it and the seconds until it is whole again.

use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use limits::{Limiter, Limits, Quota};

use crate::config::Rate;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// One policy, applied to many keys.
pub(crate) struct Policy<K: Hash + Eq + Clone> {
    name: &'static str,
    rate: Rate,
    limiter: Limiter<K>,
}

/// What a policy says about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    name: &'static str,
    rate: Rate,
    now: limits::Standing,
}

impl<K: Hash + Eq + Clone + Display> Policy<K> {
    /// `keys_max` as for [`Limits::limiter`].
    pub(crate) fn new(limits: &Limits, name: &'static str, rate: Rate, keys_max: usize) -> Self {
        let window = Duration::from_secs(u64::from(rate.window_seconds.max(1)));
        Self {
            name,
            rate,
            limiter: limits.limiter(name, Quota::per_window(rate.requests, window), keys_max),
        }
    }

    /// Counts one request of `key`.
    pub(crate) async fn check(&self, key: &K) -> Standing {
        Standing {
            name: self.name,
            rate: self.rate,
            now: self.limiter.check(key).await,
        }
    }
}

impl Standing {
    /// When to come back, if the request is refused.
    pub(crate) fn refused_for(self) -> Option<Duration> {
        self.now.refused.then_some(self.now.reset)
    }
}

/// Whole seconds, rounded up: a client that waits that long is not too early.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Writes both headers for the policies that were applied, in order.
pub(crate) fn write_headers(standings: &[Standing], headers: &mut HeaderMap) {
    if standings.is_empty() {
        return;
    }
    let list = |item: fn(&Standing) -> String| standings.iter().map(item).collect::<Vec<_>>().join(", ");
    let policy = list(|s| format!("\"{}\";q={};w={}", s.name, s.rate.requests, s.rate.window_seconds));
    let state = list(|s| {
        format!(
            "\"{}\";r={};t={}",
            s.name,
            s.now.remaining,
            seconds_up(s.now.reset)
        )
    });
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_headers_follow_the_draft() {
        let rate = Rate {
            requests: 3,
            window_seconds: 3_600,
        };
        let policy = Policy::new(&Limits::InProcess, "address", rate, 10);
        let mut headers = HeaderMap::new();
        write_headers(&[policy.check(&1).await], &mut headers);
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"address\";q=3;w=3600");
        assert_eq!(headers[RATE_LIMIT], "\"address\";r=2;t=1200");
    }
}
