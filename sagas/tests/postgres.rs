//! The same tests on PostgreSQL.

#![cfg(feature = "cluster")]
#![allow(clippy::duplicate_mod, reason = "each of them has the same support")]

#[path = "failures.rs"]
mod failures;
#[path = "hiccups.rs"]
mod hiccups;
#[path = "kafka.rs"]
mod kafka;
#[path = "races.rs"]
mod races;
#[path = "replicas.rs"]
mod replicas;
#[path = "sandbox.rs"]
mod sandbox;
#[path = "scenarios.rs"]
mod scenarios;
