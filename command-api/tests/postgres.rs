//! The same tests on PostgreSQL.

#![cfg(feature = "cluster")]
#![allow(clippy::duplicate_mod, reason = "each of them has the same support")]

#[path = "access.rs"]
mod access;
#[path = "carts.rs"]
mod carts;
#[path = "catalogue.rs"]
mod catalogue;
#[path = "checkout.rs"]
mod checkout;
#[path = "dead_letters.rs"]
mod dead_letters;
#[path = "degraded.rs"]
mod degraded;
#[path = "internal.rs"]
mod internal;
#[path = "orders.rs"]
mod orders;
#[path = "payments.rs"]
mod payments;
#[path = "replicas.rs"]
mod replicas;
#[path = "waiting.rs"]
mod waiting;
