//! What holds after every event.

use super::Product;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Product) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[];
