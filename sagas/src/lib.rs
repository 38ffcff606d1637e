//! What must follow: policies, timers and effects.

pub mod fault;
pub mod provider;
mod secrets;

pub use secrets::{Secret, SecretStore};
