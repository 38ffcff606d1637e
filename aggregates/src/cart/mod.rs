//! A customer's cart: one for good, guests included, that lives through check-outs.
//!
//! | state | accepts | leads to |
//! |---|---|---|
//! | unopened | `AddItem`, `Merge` | open |
//! | open | all | open; by `CheckOut`, if it has lines: checked out |
//! | checked out | `Merge` (kept for later) | open with its lines by `Reopen`, without them by `Renew`; kept lines are added then |
//!
//! `Reopen` and `Renew` that name another order than the current one are no-ops in every state.

mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use commands::{CartCommand, CheckOut};
pub use error::CartError;
pub use state::{Cart, CartStatus, MAX_LINES, MAX_QUANTITY};

aggregate!(Cart, Cart, CartCommand, event_schemas::CartEvent, CartError);
