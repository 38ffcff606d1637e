//! The same tests on PostgreSQL.

#![cfg(feature = "cluster")]
#![allow(clippy::duplicate_mod, reason = "each of them has the same support")]

#[path = "access_tokens.rs"]
mod access_tokens;
#[path = "accounts.rs"]
mod accounts;
#[path = "jwks.rs"]
mod jwks;
#[path = "keys.rs"]
mod keys;
#[path = "processes.rs"]
mod processes;
#[path = "sessions.rs"]
mod sessions;
