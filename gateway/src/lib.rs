//! The one public door. It listens, limits, checks tokens, and passes what is left to the services, which check again
//! and trust no header. See [`Gateway`] for a request's way through it, and [`serve`] for a connection's.
//!
//! The services are in this process, or elsewhere behind pools of replicas: [`Upstream`]. There, [`serve_service`] is
//! the small listener of each process: the same connections, no door.

mod address;
mod body;
mod config;
mod connection;
mod door;
mod headers;
mod health;
mod keys;
mod limited;
mod listener;
pub mod openapi;
mod routes;
mod service;
mod upstream;

pub use address::{Network, ParseNetworkError};
pub use config::{ConfigError, GatewayConfig, Rate};
pub use door::{Gateway, GatewayError};
pub use health::{Component, MetricsSource, ReadinessProbe, Status};
pub use listener::serve;
pub use routes::PathConflict;
pub use service::{ServiceServer, serve_service};
pub use upstream::{Service, Services, Upstream};
