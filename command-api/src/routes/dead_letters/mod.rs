//! Dead letters: having them tried again, or given up. Who does it is the process whose letters they are; here is where
//! it is asked for, and waited for.

mod retry;
mod skip;

use std::time::Duration;

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use event_bus::{AskError, HealingOutcome, Remedy, Retried, ScopeId};
use http_conventions::Problem;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::call::{Call, Route};
use crate::state::CommandApi;

/// How long the outcome is waited for unless the caller says otherwise: requests are looked for every second.
const WAIT: Duration = Duration::from_secs(5);
/// After how long a request that cannot be taken is worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(retry::handler))
        .routes(routes!(skip::handler))
}

/// `{id}`: `<subscriber>:<scope>`.
#[derive(Deserialize)]
struct DeadLetterPath {
    id: String,
}

/// What became of a request to heal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterHealing)]
struct Healing {
    #[schema(example = "orders.g1:order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a")]
    id: String,
    outcome: Outcome,
    /// Letters that were handled.
    handled: u64,
    /// Why it is still parked, or what was given up.
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Kept, and carried out as soon as the subscriber's process gets to it.
    Accepted,
    /// All letters were handled, in order.
    Healed,
    /// One failed again.
    StillParked,
    /// One letter was given up.
    Skipped,
    /// The letter was not the first any more: nothing was given up.
    Moot,
}

impl IntoResponse for Healing {
    fn into_response(self) -> Response {
        let status = if self.outcome == Outcome::Accepted {
            StatusCode::ACCEPTED
        } else {
            StatusCode::OK
        };
        let caching = HeaderValue::from_static("no-store");
        (status, [(CACHE_CONTROL, caching)], Json(self)).into_response()
    }
}

/// Asks for `remedy`, and waits a while for what becomes of it.
async fn heal<R: Route<Path = DeadLetterPath>>(
    api: &CommandApi,
    call: &Call<R>,
    remedy: Remedy,
) -> Result<Healing, Problem> {
    let id: ScopeId = call
        .path
        .id
        .parse()
        .map_err(|_| Problem::malformed("the path's `id` is malformed"))?;
    let healing = &api.services.healing;
    let by = format!("account {}", call.caller.account_id);
    let asked = healing.ask(&id, remedy, &by, api.services.clock.now()).await;
    let deadline = Instant::now() + call.prefer.wait.unwrap_or(WAIT);
    let outcome = healing.wait(asked.map_err(ask_problem)?, deadline).await;
    let outcome = outcome.map_err(|error| ask_problem(error.into()))?;
    let (outcome, handled, detail) = match outcome {
        None => (Outcome::Accepted, 0, None),
        Some(HealingOutcome::Retried(Retried::Healed { handled })) => (Outcome::Healed, handled, None),
        Some(HealingOutcome::Retried(Retried::StillParked { handled, reason })) => {
            (Outcome::StillParked, handled, Some(reason))
        }
        Some(HealingOutcome::Skipped { what }) => (Outcome::Skipped, 0, Some(what)),
        Some(HealingOutcome::Moot) => (Outcome::Moot, 0, None),
    };
    Ok(Healing {
        id: id.to_string(),
        outcome,
        handled,
        detail,
    })
}

fn ask_problem(error: AskError) -> Problem {
    match error {
        AskError::NotParked(_) => Problem::not_found(),
        AskError::NotFirst { first, .. } => Problem::conflict("not-the-first", "Not the first letter")
            .detail(format!("the first letter is that at position {first}")),
        AskError::TooMany => Problem::unavailable(error, RETRY_AFTER),
        AskError::Store(error) if error.retryable() => Problem::unavailable(error, RETRY_AFTER),
        AskError::Store(error) => Problem::internal(error),
    }
}
