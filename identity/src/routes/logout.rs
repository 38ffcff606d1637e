use axum::extract::State;
use axum::http::StatusCode;
use http_conventions::{Problem, StrictJson};

use super::refresh::RefreshRequest;
use super::unavailable;
use crate::service::Identity;

/// End a session. Says the same whether or not there was one.
#[utoipa::path(
    post, path = "/auth/logout", tag = "identity",
    request_body = RefreshRequest,
    responses(
        (status = 204, description = "The session has ended; its access token runs out by itself"),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn logout(
    State(identity): State<Identity>,
    StrictJson(body): StrictJson<RefreshRequest>,
) -> Result<StatusCode, Problem> {
    identity
        .log_out(&body.refresh_token)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
