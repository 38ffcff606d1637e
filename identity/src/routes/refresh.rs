use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_conventions::{ClientAddress, Problem, StrictJson};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TokenResponse, signed_in};
use crate::service::Identity;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshRequest {
    #[schema(max_length = 100)]
    pub refresh_token: String,
}

/// Exchange a refresh token for the next one and a new access token. A token works once; a repeat within 10 seconds
/// gets the same successor, a later one ends the session.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "identity",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "The session goes on", body = TokenResponse),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`invalid-refresh-token`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many refreshes from this address", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn refresh(
    State(identity): State<Identity>,
    address: ClientAddress,
    StrictJson(body): StrictJson<RefreshRequest>,
) -> Result<Response, Problem> {
    let session = identity.refresh(&body.refresh_token, address).await?;
    Ok(signed_in(StatusCode::OK, session, &identity))
}
