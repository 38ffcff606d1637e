//! An order as it was, for those who may see it.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use event_schemas::{OrderId, Timestamp, Version};
use event_store::{AsOf, UnreadableReason};
use http_conventions::{IfNoneMatch, Problem};
use identity::verifier::{Caller, Permission};
use projections::orders::{HistoryError, OrderHistory, OrderView, PastOrder};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::QueryApi;
use crate::read::{Scope, answer, owned_or};

/// After how long a log that could not be read is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An order, as it is or, with `as_of`, as it was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderAtMoment {
    #[serde(flatten)]
    order: OrderView,
    /// Which moment this is; absent from the order as it is.
    #[schema(required = false)]
    as_of: Moment,
}

/// A moment of an order's past.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderMoment, example = json!({
    "version": 3, "recorded_at": "2026-01-31T09:29:58.120411Z", "time": "2026-01-31T09:30:00Z",
}))]
struct Moment {
    /// The version that the order had.
    #[schema(value_type = u64)]
    version: Version,
    /// When the order came to that version.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
    /// The time that was asked for, no later than now; absent if a version was. What the payment did between
    /// `recorded_at` and then is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<Timestamp>,
}

/// The order `id` at `moment`, folded from the log. Whose order it is comes first: others learn nothing of its past.
pub(super) async fn order_as_of(
    api: &QueryApi,
    caller: &Caller,
    id: OrderId,
    moment: AsOf,
    has: &IfNoneMatch,
) -> Result<Response, Problem> {
    let may_see = owned_or(caller, Permission::OrderReadAll);
    let history = match OrderHistory::open(&api.log, id).await {
        Ok(Some(history)) if may_see(history.customer()) => history,
        Ok(_) => return Err(Problem::not_found()),
        // Nobody can tell whose it is.
        Err(HistoryError::Unreadable(_) | HistoryError::Fold(_)) if !caller.may(Permission::OrderReadAll) => {
            return Err(Problem::not_found());
        }
        Err(error) => return Err(problem(error)),
    };
    let was = match history.as_of(&api.log, moment).await.map_err(problem)? {
        PastOrder::Was(was) => was,
        PastOrder::NotYetPlaced { placed_at } => {
            return Err(Problem::not_found().detail(format!("the order was placed later, at {placed_at}")));
        }
        PastOrder::NotReached { version } => {
            return Err(Problem::not_found().detail(format!("the order is at version {version}")));
        }
    };
    let body = OrderAtMoment {
        as_of: Moment {
            version: was.order.version,
            recorded_at: was.recorded_at,
            time: match moment {
                AsOf::Version(_) => None,
                AsOf::Time(time) => Some(time.min(api.clock.now())),
            },
        },
        order: was.order,
    };
    // Plain data with text keys: it always serialises.
    let json = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
    Ok(answer(&etag(&json), || json.clone(), has, Scope::TheCaller))
}

/// Of the bytes: the past does not change, but a later release may tell it in another form.
fn etag(json: &[u8]) -> String {
    let mut first = [0; 16];
    first.copy_from_slice(&Sha256::digest(json)[..16]);
    format!("\"{:032x}\"", u128::from_be_bytes(first))
}

fn problem(error: HistoryError) -> Problem {
    const UNREADABLE: &str = "the order's history holds an event that cannot be read";
    match error {
        HistoryError::Log(error) => Problem::unavailable(error, RETRY_AFTER),
        // Where a new version is being rolled out, another process may know it already.
        HistoryError::Unreadable(event) if event.reason == UnreadableReason::Newer => {
            Problem::unavailable(event, RETRY_AFTER).detail(UNREADABLE)
        }
        HistoryError::Unreadable(event) => Problem::internal(event).detail(UNREADABLE),
        HistoryError::Fold(error) => Problem::internal(error).detail(UNREADABLE),
        HistoryError::TooLong(_) => Problem::refused("history-too-long", "History too long")
            .detail("the order has more events than are folded for one answer"),
    }
}
