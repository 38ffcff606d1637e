//! The payment of an order, through all its attempts.

mod aggregate;
mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use commands::{PaymentCommand, RefundAmount};
pub use error::PaymentError;
pub use state::{Attempt, AttemptStatus, Intent, Payment, PaymentStatus, Refund, RefundStatus};
