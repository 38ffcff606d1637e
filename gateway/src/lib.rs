//! The one public door. It listens, limits, checks tokens, and passes what is left to the services, which check again
//! and trust no header. See [`Gateway`] for a request's way through it, and [`serve`] for a connection's.

mod address;
mod body;
mod config;
mod connection;
mod door;
mod headers;
mod health;
mod limits;
mod listener;
mod metrics;
pub mod openapi;
mod routes;
mod upstream;

pub use address::{Network, ParseNetworkError};
pub use config::{ConfigError, GatewayConfig, Rate};
pub use door::{Gateway, GatewayError};
pub use health::{Component, MetricsSource, ReadinessProbe, Status};
pub use listener::serve;
pub use routes::PathConflict;
pub use upstream::{Service, Services, Upstream};
