//! Each aggregate's errors as problems: 404 not there, 409 the state stands in the way, 422 a rule refuses the input.
//!
//! One exhaustive match per enum: a new error does not compile until somebody has said what it is to a client.

mod cart;
mod inventory;
mod limits;
mod order;
mod payment;
mod product;

use event_schemas::MoneyError;
use http_conventions::Problem;

pub(crate) fn money(error: MoneyError) -> Problem {
    match error {
        MoneyError::OutOfRange => Problem::refused("amount-out-of-range", "Amount out of range"),
        MoneyError::CurrencyMismatch => {
            Problem::refused("currency-mismatch", "Wrong currency").detail(error.to_string())
        }
    }
}
