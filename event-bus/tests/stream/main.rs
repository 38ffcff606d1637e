//! The stream: what every carrier of it has to hold, and what each holds besides.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

#[cfg(feature = "cluster")]
mod chaos;
#[macro_use]
mod conformance;
mod in_process;
#[cfg(feature = "cluster")]
mod kafka;
#[cfg(feature = "cluster")]
mod relay;
mod support;
