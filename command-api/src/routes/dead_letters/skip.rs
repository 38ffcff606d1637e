use axum::extract::State;
use event_bus::Remedy;
use event_schemas::Position;
use http_conventions::{Prefer, Problem};
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{DeadLetterPath, Healing, heal};
use crate::call::{Call, Route};
use crate::openapi::CommandProblems;
use crate::state::CommandApi;

pub(super) struct SkipDeadLetter;

/// Which letter is given up: the first one, by its position in the log.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterSkip)]
pub(super) struct Body {
    #[schema(example = 1724)]
    position: u64,
}

impl Route for SkipDeadLetter {
    type Path = DeadLetterPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::OpsWrite];
    const KEY_REQUIRED: bool = false;
}

/// Give up on a dead letter
///
/// On the first one of its id, and on no other: those behind it wait for a retry. What it asked for never happens.
#[utoipa::path(
    post, path = "/ops/dead-letters/{id}/skip", tag = "ops", operation_id = "skipDeadLetter",
    params(("id" = String, Path, description = "The id that the list gives, percent-encoded"), Prefer),
    request_body = Body,
    responses(
        (status = 200, description = "Carried out", body = Healing),
        (status = 202, description = "Kept; not carried out yet", body = Healing),
        CommandProblems,
    ),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("ops.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<SkipDeadLetter>,
) -> Result<Healing, Problem> {
    let position = Position(call.body.position);
    heal(&api, &call, Remedy::Skip { position }).await
}
