//! The payment of an order, through all its attempts.
//!
//! | attempt is | by command | becomes |
//! |---|---|---|
//! | requested | `RecordSession` | pending |
//! | requested, pending | `RecordAuthorized` | authorized |
//! | requested, pending, authorized | `RecordDeclined` | declined: the customer may `Retry`, which is the next attempt |
//! | authorized | `RecordVoided` | voided |
//! | requested, pending, declined | `Close` | expired |
//! | any | `RecordCaptured` | captured, for good; its refunds are counted beside it |
//!
//! A fact that comes late is recorded all the same: a declined or expired attempt may yet be reported authorized, any
//! attempt captured. What was voided or captured is not authorized again.
//!
//! An attempt is *given up* once the payment is closed, the attempt was retried, or another attempt was captured. Whatever
//! happens, `follow_up` then asks for what remains to be done: an authorization that is given up is voided; a closed
//! payment expires if nothing was authorized and is refunded if something was captured.

mod attempt;
mod commands;
mod decide;
mod error;
mod facts;
mod follow_up;
pub mod invariants;
mod state;

pub use attempt::{Attempt, AttemptStatus, Intent, Refund, RefundStatus};
pub use commands::{PaymentCommand, RefundAmount};
pub use decide::MAX_ATTEMPTS;
pub use error::PaymentError;
pub use follow_up::MAX_REFUND_TRIES;
pub use state::{Payment, PaymentStatus};

aggregate!(
    Payment,
    Payment,
    PaymentCommand,
    event_schemas::PaymentEvent,
    PaymentError
);
