//! A delivery in a made-up version before the first, for showing that old events are read on every way.

use event_schemas::Upcasters;
use serde_json::{Value, json};

/// The version that [`old_delivery`] is of.
pub const OLD_VERSION: &str = "0.9";

/// `StockReceived` as it never was: units were counted as pieces, and nobody wrote down what they came with.
pub fn old_delivery(pieces: u32) -> String {
    json!({ "StockReceived": { "pieces": pieces } }).to_string()
}

/// What reads it, besides the shipped ones.
pub fn old_deliveries() -> Upcasters {
    Upcasters::shipped().with(
        "StockReceived",
        OLD_VERSION,
        "StockReceived",
        "1.0",
        |mut payload: Value| {
            let quantity = payload["StockReceived"]["pieces"].take();
            json!({ "StockReceived": { "quantity": quantity, "reference": "before 1.0" } })
        },
    )
}
