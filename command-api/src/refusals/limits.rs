use std::time::Duration;

use axum::http::StatusCode;
use http_conventions::Problem;

use crate::execute::Refusal;
use crate::follow::{MAX_UNPAID_PER_ADDRESS, MAX_UNPAID_PER_CUSTOMER, UnpaidLimit};

/// An order may be paid or cancelled by then.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Refusal for UnpaidLimit {
    fn problem(self) -> Problem {
        let too_many = |limit: usize| {
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-unpaid-orders",
                "Too many unpaid orders",
            )
            .with("limit", limit)
            .retry_after(RETRY_AFTER)
        };
        match self {
            Self::Customer => too_many(MAX_UNPAID_PER_CUSTOMER)
                .detail("pay or cancel one of your open orders before you place another"),
            Self::Address => too_many(MAX_UNPAID_PER_ADDRESS)
                .detail("too many unpaid orders came from your network address; try again later"),
            Self::Shop => Problem::unavailable(self, RETRY_AFTER),
        }
    }
}
