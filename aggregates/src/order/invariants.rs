//! What holds after every event.

use super::Order;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Order) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[];
