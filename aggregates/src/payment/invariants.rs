//! What holds after every event.

use super::Payment;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Payment) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[];
