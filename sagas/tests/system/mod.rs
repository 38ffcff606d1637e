//! The whole system in memory, with a clock, a machine that dies and a provider that can't be hurried.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

pub mod calls;
pub mod clients;
pub mod database;
pub mod provider;
pub mod verdict;
pub mod world;
