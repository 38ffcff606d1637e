//! The way from one service to the replicas of another, for the gateway's requests and the sagas' commands.
//!
//! An [`HttpPool`] knows the replicas by resolving its URLs again and again, asks each for its health, and sends every
//! request to one of them:
//!
//! * **with a key** (an aggregate, `order/0199…`) always to the same one, so that the aggregate stays in that replica's
//!   memory. Every process that knows the same replicas chooses the same one, without asking anybody: rendezvous
//!   hashing. When a replica leaves, only its keys move; when it is unhealthy, they go to the next in their order. It is
//!   for speed: nothing breaks when two replicas are chosen for one key.
//! * **without a key** to the one with the fewest requests in flight.
//!
//! A request is sent again, to another replica, only if it surely did not reach the first (no connection), or if it is
//! a GET or HEAD. Everything has an end: connecting, waiting for an answer, waiting for the next part of its body.
//!
//! HTTP/1.1 with connections that are kept: bodies are small, and connections between services cost little. There is no
//! TLS: services talk on a network of their own.

mod body;
mod breaker;
mod hash;
mod options;
mod pool;
mod replica;
mod watch;

pub use options::{PoolOptions, PoolOptionsError};
pub use pool::{HttpPool, UpstreamError};
pub use replica::{PoolHealth, ReplicaState};
