use axum::extract::State;
use event_bus::Remedy;
use http_conventions::{Prefer, Problem};
use identity::verifier::Permission;

use super::{DeadLetterPath, Healing, heal};
use crate::call::{Call, NoBody, Route};
use crate::openapi::CommandProblems;
use crate::state::CommandApi;

pub(super) struct RetryDeadLetter;

impl Route for RetryDeadLetter {
    type Path = DeadLetterPath;
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = &[Permission::OpsWrite];
    const KEY_REQUIRED: bool = false;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Try dead letters again
///
/// Handles what is parked under the id again, in order, up to the first that fails again. To repeat it is safe.
#[utoipa::path(
    post, path = "/ops/dead-letters/{id}/retry", tag = "ops", operation_id = "retryDeadLetter",
    params(("id" = String, Path, description = "The id that the list gives, percent-encoded"), Prefer),
    request_body = Option<NoBody>,
    responses(
        (status = 200, description = "Carried out", body = Healing),
        (status = 202, description = "Kept; not carried out yet", body = Healing),
        CommandProblems,
    ),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("ops.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<RetryDeadLetter>,
) -> Result<Healing, Problem> {
    heal(&api, &call, Remedy::Retry).await
}
