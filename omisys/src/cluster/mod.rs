//! The cluster profile: a process per service, on PostgreSQL, Kafka, MongoDB and Redis. With [`crate::embedded`] the
//! only place that names concrete adapters.

mod examine;
mod migrate;
mod probe;
mod process;
mod services;
pub mod stores;

pub use examine::run as examine;
pub use migrate::run as migrate;
pub use process::run;
