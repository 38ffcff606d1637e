use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use http_conventions::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::{AccountView, unavailable};
use crate::permissions::Permission;
use crate::service::Identity;
use crate::verifier::Caller;

#[derive(Serialize, ToSchema)]
pub(super) struct MeResponse {
    #[serde(flatten)]
    account: AccountView,
    /// What this token allows.
    #[schema(value_type = Vec<String>)]
    permissions: Vec<&'static str>,
}

/// Who the token says one is.
#[utoipa::path(
    get, path = "/auth/me", tag = "identity", security(("bearer" = [])),
    responses(
        (status = 200, description = "The caller", body = MeResponse),
        (status = 401, description = "No or a bad token", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn me(
    State(identity): State<Identity>,
    caller: Caller,
) -> Result<impl IntoResponse, Problem> {
    let account = identity
        .account(caller.account_id)
        .await
        .map_err(|error| unavailable(&error))?;
    let account = account.ok_or_else(|| Problem::unauthorized(Some("invalid_token")))?;
    let permissions = caller.permissions.iter().map(Permission::as_str).collect();
    let body = MeResponse {
        account: AccountView::from(&account),
        permissions,
    };
    Ok(([(CACHE_CONTROL, "private, no-store")], Json(body)))
}
