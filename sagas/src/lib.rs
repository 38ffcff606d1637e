//! What must follow: pure policies say what, the runner hands in their commands, the worker works off timers and effects.
//!
//! * [`policies`]: the table from events to commands, timers and effects.
//! * [`Sagas`]: runs it over the log, from where it stood.
//! * [`provider`]: the payment provider, and the sandbox.
//! * [`commands`]: the way of commands to the process that has their aggregate.
//! * [`SecretStore`]: payment tokens, beside the log.
//!
//! Everything may happen twice and nothing may happen by halves: ids of commands follow from events, rows of timers and
//! effects are there before their event is acknowledged, and the provider is asked what happened before it is asked
//! again.

pub mod commands;
mod config;
mod dispatch;
mod effects;
pub mod fault;
mod folds;
pub mod policies;
pub mod provider;
mod reconcile;
mod runner;
mod sagas;
mod secrets;
mod trouble;
mod work;
mod worker;

pub use config::{Backoff, SagasConfig};
pub use sagas::{
    KEPT, SUBSCRIBER, SagaStream, Sagas, SagasDeps, SagasStatus, SagasStopped, StartError, WORK_SUBSCRIBER,
    migrate,
};
pub use secrets::{Secret, SecretStore};
pub use work::open_effects;
