//! An order, from the agreement to its completion or return. It is its own saga log.
//!
//! | status | command | next |
//! |---|---|---|
//! | absent | `Place` | placed |
//! | placed | the last `RecordLineReserved`, or `RecordReserved` | awaiting payment |
//! | awaiting payment | `MarkPaid` | paid |
//! | placed, awaiting payment, paid | `Cancel` | cancelled |
//! | paid, partially shipped | `Dispatch` | partially shipped, or shipped once nothing is left |
//! | shipped | the last `RecordDelivered` | delivered |
//! | delivered | `Complete` | completed |
//! | delivered | `RequestReturn` | return requested |
//! | return requested | `RejectReturn` | delivered |
//! | return requested, approved | `ReceiveReturn` | returned |
//!
//! `RecordRefund` is accepted in every status of an order that was paid.

mod agreement;
mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use agreement::{MAX_LINES, MAX_QUANTITY, check_agreement, tax, totals, tracked_units};
pub use commands::OrderCommand;
pub use error::{AgreementError, OrderError};
pub use state::{Order, OrderStatus, PaidBy, Return, ReturnStatus};

aggregate!(Order, Order, OrderCommand, event_schemas::OrderEvent, OrderError);
