//! The `[gateway]` section of the configuration. Every key has a default that is safe for a shop on one machine.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Network;

/// What the gateway allows. Units are in the names; all maxima are inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where to listen. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or networks (`10.0.0.0/8`). Default none: the client
    /// address is the peer's.
    pub trusted_proxies: Vec<Network>,
    /// Origins whose pages may call the API from a browser, such as `https://shop.example`. Default none.
    pub cors_origins: Vec<String>,

    /// Open connections in all; more are answered `503`. Default 4,096.
    pub connections_max: usize,
    /// Open connections of one peer (IPv6: one /64); a trusted proxy is exempt. Default 1,024.
    pub connections_per_address_max: usize,
    /// Requests being answered at once; more are answered `503`. Default 1,024.
    pub in_flight_max: usize,
    /// Open event streams; more are answered `503`. Default 1,024.
    pub streams_max: usize,

    /// From the connection to its first byte. Default 10,000.
    pub first_byte_timeout_ms: u64,
    /// From the first byte of a request to the end of its headers. Default 10,000.
    pub header_timeout_ms: u64,
    /// How long a connection may rest between two requests. Default 75,000.
    pub idle_timeout_ms: u64,
    /// For a whole request, body included, until the answer begins. Default 30,000: more than `Prefer: wait` allows.
    pub request_timeout_ms: u64,
    /// How long a client may take none of an answer that is ready. Default 30,000.
    pub write_stall_timeout_ms: u64,
    /// How long requests in flight get to finish on shutdown. Default 20,000.
    pub drain_timeout_ms: u64,

    /// Request line and headers together. Default 16,384; at most 65,536.
    pub header_bytes_max: usize,
    /// A request body. Default 65,536.
    pub body_bytes_max: u64,
    /// A request body of staff on `POST /v1/orders`. Default 1,048,576.
    pub staff_order_body_bytes_max: u64,

    /// Requests of one client address (IPv6: one /64). Default 3,000 a minute.
    pub per_address: Rate,
    /// Requests of one account. Default 1,200 a minute.
    pub per_caller: Rate,
    /// Addresses, and accounts, that are remembered for limits; the least recently seen is forgotten. Default 100,000.
    pub limit_keys_max: usize,
}

/// So many requests at once, refilled evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub requests: u32,
    pub window_seconds: u32,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            connections_max: 4_096,
            connections_per_address_max: 1_024,
            in_flight_max: 1_024,
            streams_max: 1_024,
            first_byte_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            request_timeout_ms: 30_000,
            write_stall_timeout_ms: 30_000,
            drain_timeout_ms: 20_000,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 64 * 1024,
            staff_order_body_bytes_max: 1024 * 1024,
            per_address: Rate {
                requests: 3_000,
                window_seconds: 60,
            },
            per_caller: Rate {
                requests: 1_200,
                window_seconds: 60,
            },
            limit_keys_max: 100_000,
        }
    }
}

/// A key of the section that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway.{key}: {problem}")]
pub struct ConfigError {
    /// The key, such as `cors_origins`.
    pub key: &'static str,
    /// What is wrong with it, for people.
    pub problem: String,
}

/// hyper's read buffer: what a request head may grow to before hyper gives up on it by itself.
pub(crate) const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

impl GatewayConfig {
    /// Checks what types alone cannot: maxima that would let nothing in, times of zero, origins that no browser sends.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |key, problem: &str| {
            Err(ConfigError {
                key,
                problem: problem.to_owned(),
            })
        };
        let positive: [(&'static str, u64); 15] = [
            ("connections_max", self.connections_max as u64),
            (
                "connections_per_address_max",
                self.connections_per_address_max as u64,
            ),
            ("in_flight_max", self.in_flight_max as u64),
            ("streams_max", self.streams_max as u64),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("write_stall_timeout_ms", self.write_stall_timeout_ms),
            ("body_bytes_max", self.body_bytes_max),
            ("staff_order_body_bytes_max", self.staff_order_body_bytes_max),
            (
                "per_address",
                u64::from(self.per_address.requests.min(self.per_address.window_seconds)),
            ),
            (
                "per_caller",
                u64::from(self.per_caller.requests.min(self.per_caller.window_seconds)),
            ),
            ("limit_keys_max", self.limit_keys_max as u64),
            ("header_bytes_max", self.header_bytes_max as u64),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return fail(key, "must be at least 1");
        }
        // tokio's semaphores and timers have bounds of their own; these are far inside them.
        if let Some((key, _)) = positive
            .into_iter()
            .find(|(_, value)| *value > u64::from(u32::MAX))
        {
            return fail(key, "must be at most 4294967295");
        }
        if self.header_bytes_max > READ_BUFFER_BYTES_MAX {
            return fail("header_bytes_max", "must be at most 65536");
        }
        for origin in &self.cors_origins {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let plain = |host: &str| {
                !host.is_empty()
                    && host.bytes().all(|byte| {
                        byte.is_ascii_lowercase()
                            || byte.is_ascii_digit()
                            || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
                    })
            };
            if !host.is_some_and(plain) {
                let problem =
                    format!("{origin:?} is no origin: expected a form such as https://shop.example");
                return Err(ConfigError {
                    key: "cors_origins",
                    problem,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(GatewayConfig::default().validate(), Ok(()));
    }

    #[test]
    fn the_offending_key_is_named() {
        let with = |change: fn(&mut GatewayConfig)| {
            let mut config = GatewayConfig::default();
            change(&mut config);
            config.validate().map_err(|error| error.key)
        };
        assert_eq!(with(|config| config.in_flight_max = 0), Err("in_flight_max"));
        assert_eq!(
            with(|config| config.per_caller.window_seconds = 0),
            Err("per_caller")
        );
        assert_eq!(
            with(|config| config.header_bytes_max = 1 << 20),
            Err("header_bytes_max")
        );
        assert_eq!(with(|config| config.streams_max = usize::MAX), Err("streams_max"));
        for origin in [
            "*",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://Shop.example",
            "null",
        ] {
            let config = GatewayConfig {
                cors_origins: vec![origin.to_owned()],
                ..GatewayConfig::default()
            };
            assert_eq!(
                config.validate().map_err(|error| error.key),
                Err("cors_origins"),
                "{origin}"
            );
        }
    }

    #[test]
    fn unknown_keys_and_bad_networks_are_refused() {
        let read = |text: &str| serde_json::from_str::<GatewayConfig>(text).map(|_| ());
        assert!(read(r#"{"trusted_proxies": ["10.0.0.0/8", "::1"], "per_caller": {"requests": 1, "window_seconds": 1}}"#).is_ok());
        assert!(read(r#"{"trusted_proxy": []}"#).is_err());
        assert!(read(r#"{"trusted_proxies": ["10.0.0.0/33"]}"#).is_err());
    }
}
