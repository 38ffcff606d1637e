//! What holds after every event.

use super::Cart;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Cart) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[];
