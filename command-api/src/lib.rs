//! The command API: every `POST` under `/v1`, and those under `/ops` that change something. A request is authenticated and authorised, parsed into domain types at
//! the edge, executed as one command under an id that its `Idempotency-Key` gives it, and answered with a receipt.
//!
//! * One endpoint, one file under `routes/`: its request type, its demands ([`call`]), its OpenAPI text, its handler.
//! * `refusals/` says what each aggregate's error is to a client, in one exhaustive match per enum.
//! * `pricing` asks the aggregates what a line costs; `follow` tails the log for limits and waiting.
//!
//! A refusal is answered only after the command's id has been looked up: a repeat of an accepted command gets its
//! first receipt, whatever has changed since.

mod answer;
mod call;
mod execute;
mod follow;
mod internal;
mod openapi;
mod order_now;
mod paying;
mod pricing;
mod random;
mod refusals;
mod routes;
mod state;

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use follow::{MAX_UNPAID_PER_ADDRESS, MAX_UNPAID_PER_CUSTOMER};
pub use internal::router as internal_router;
pub use random::Random;
pub use state::{CommandApi, Rules, Services};

/// The routes with their OpenAPI document. Each operation carries `x-omisys-access`, which says who may call it, and
/// refers to a security scheme `bearer` that whoever merges the documents defines.
///
/// Put [`http_conventions::finish`] around the service that this becomes part of.
pub fn router(api: CommandApi) -> OpenApiRouter {
    routes::all().with_state(api)
}

/// What [`router`] serves, for whoever documents it without running it.
pub fn openapi() -> OpenApi {
    routes::all().into_openapi()
}
