//! What tests and load generators share: users whose methods are HTTP calls, waiting with a deadline, and a server
//! process that can be killed.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on should panic, and say where"
)]

mod client;
mod cluster;
pub mod load;
mod ports;
mod process;
mod servers;
mod shop;
#[cfg(feature = "cluster")]
mod stores;
mod wait;

pub use client::{Client, ClientError, Reply};
pub use cluster::{Cluster, Member, Service};
pub use process::{Server, ServerError};
pub use servers::{ServerName, Servers};
pub use shop::{Shop, User};
#[cfg(feature = "cluster")]
pub use stores::{ClusterServers, ClusterStores, cluster_is_to_be_tested};
pub use wait::{DEADLINE, until};
