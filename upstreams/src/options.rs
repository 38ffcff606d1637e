//! What a pool is told.

use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use http_conventions::ServiceToken;

/// How to reach a service, and how patiently.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The service's name, in logs and metrics: `command-api`.
    pub name: &'static str,
    /// Where it is: `http://host:port`, nothing more. A name that resolves to several addresses is several replicas (of
    /// the IPv4 ones, if there are any: a machine with both kinds is one replica).
    pub urls: Vec<String>,
    /// Shown to the service, so that it believes what we say about the client's address and opens internal routes.
    pub service_token: Option<ServiceToken>,

    /// To a connection. Default 1 s.
    pub connect_timeout: Duration,
    /// From the end of the request to the beginning of the answer; well more than `Prefer: wait` allows. Default 25 s.
    pub first_byte_timeout: Duration,
    /// From one part of an answer's body to the next; more than the pause between a stream's heartbeats. Default 45 s.
    pub stall_timeout: Duration,
    /// For a request, with all that is tried, until the answer begins. Default 30 s.
    pub timeout: Duration,
    /// The body of an answer that is no event stream. Default 64 MiB.
    pub response_bytes_max: u64,

    /// How many replicas a request is tried on at most. Default 3.
    pub attempts_max: usize,
    /// Requests and streams of ours on one replica; each has a connection. Default 2,048.
    pub in_flight_max: usize,
    /// Connections kept for later, by replica. Default 64.
    pub idle_max: usize,
    /// How long they are kept; less than the service keeps them, lest a request meets its goodbye. Default 30 s.
    pub idle_timeout: Duration,

    /// Connections in a row that were refused or lost, after which a replica is left alone. Default 3.
    pub failures_max: u32,
    /// For how long at first; it doubles up to `open_max` with every probe that fails. Default 500 ms.
    pub open_min: Duration,
    /// Default 15 s.
    pub open_max: Duration,

    /// Answers 2xx when the replica can serve. Default `/readyz`.
    pub check_path: &'static str,
    /// Between two checks of a replica. Default 2 s.
    pub check_every: Duration,
    /// For one check. Default 1 s.
    pub check_timeout: Duration,
    /// Between two resolutions of the names. Default 5 s.
    pub resolve_every: Duration,
}

/// The options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolOptionsError {
    #[error("{name}: no URLs")]
    NoUrls { name: &'static str },
    #[error("{name}: {url:?} is no URL of a service: expected a form such as http://host:8081")]
    Url { name: &'static str, url: String },
}

impl PoolOptions {
    /// The usual times and sizes.
    pub fn new(name: &'static str, urls: Vec<String>) -> Self {
        Self {
            name,
            urls,
            service_token: None,
            connect_timeout: Duration::from_secs(1),
            first_byte_timeout: Duration::from_secs(25),
            stall_timeout: Duration::from_secs(45),
            timeout: Duration::from_secs(30),
            response_bytes_max: 64 * 1024 * 1024,
            attempts_max: 3,
            in_flight_max: 2_048,
            idle_max: 64,
            idle_timeout: Duration::from_secs(30),
            failures_max: 3,
            open_min: Duration::from_millis(500),
            open_max: Duration::from_secs(15),
            check_path: "/readyz",
            check_every: Duration::from_secs(2),
            check_timeout: Duration::from_secs(1),
            resolve_every: Duration::from_secs(5),
        }
    }

    /// The hosts and ports of the URLs.
    pub(crate) fn authorities(&self) -> Result<Vec<Authority>, PoolOptionsError> {
        if self.urls.is_empty() {
            return Err(PoolOptionsError::NoUrls { name: self.name });
        }
        let authority = |url: &String| {
            authority(url).ok_or_else(|| PoolOptionsError::Url {
                name: self.name,
                url: url.clone(),
            })
        };
        self.urls.iter().map(authority).collect()
    }
}

fn authority(url: &str) -> Option<Authority> {
    let parts = url.parse::<Uri>().ok()?.into_parts();
    let bare = parts.path_and_query.is_none_or(|path| path == "/");
    let authority = parts.authority?;
    let plain = !authority.as_str().contains('@') && authority.port_u16().is_some();
    (parts.scheme == Some(Scheme::HTTP) && bare && plain).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for url in [
            "http://127.0.0.1:8081",
            "http://command-api:8081/",
            "http://[::1]:80",
        ] {
            assert!(authority(url).is_some(), "{url}");
        }
        for url in [
            "",
            "command-api:8081",
            "https://command-api:8081",
            "http://command-api",
            "http://command-api:8081/v1",
            "http://user:secret@command-api:8081",
        ] {
            assert!(authority(url).is_none(), "{url}");
        }
        let none = PoolOptions::new("query-api", Vec::new()).authorities();
        assert_eq!(none, Err(PoolOptionsError::NoUrls { name: "query-api" }));
    }
}
