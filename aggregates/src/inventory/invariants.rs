//! What holds after every event.

use super::StockItem;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&StockItem) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[];
