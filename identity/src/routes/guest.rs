use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_conventions::{ClientAddress, Problem, StrictJson};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TokenResponse, signed_in};
use crate::service::Identity;

/// Nothing is asked of a guest.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GuestRequest {}

/// Shop without signing up: an account of its own that ends with its session.
#[utoipa::path(
    post, path = "/auth/guest", tag = "identity",
    request_body(content = Option<GuestRequest>, description = "Nothing, or an empty object"),
    responses(
        (status = 201, description = "A guest's tokens", body = TokenResponse),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many guests from this address", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn guest(
    State(identity): State<Identity>,
    address: ClientAddress,
    _body: Option<StrictJson<GuestRequest>>,
) -> Result<Response, Problem> {
    let session = identity.guest(address).await?;
    Ok(signed_in(StatusCode::CREATED, session, &identity))
}
