//! What tests and load generators share: users whose methods are HTTP calls, waiting with a deadline, and a server
//! process that can be killed.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on should panic, and say where"
)]

mod client;
mod process;
mod shop;
mod wait;

pub use client::{Client, ClientError, Reply};
pub use process::{Server, ServerError};
pub use shop::{Shop, User};
pub use wait::{DEADLINE, until};
