use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_conventions::{ClientAddress, Problem, StrictJson};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TokenResponse, signed_in};
use crate::service::Identity;
use crate::values::{Email, Password};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: Email,
    #[schema(value_type = String, format = "password", max_length = 128)]
    password: Password,
}

/// Sign in with e-mail address and password.
#[utoipa::path(
    post, path = "/auth/login", tag = "identity",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "Signed in", body = TokenResponse),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`bad-credentials`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts on this account or from this address", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many sign-ins at once", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn login(
    State(identity): State<Identity>,
    address: ClientAddress,
    StrictJson(body): StrictJson<LoginRequest>,
) -> Result<Response, Problem> {
    let session = identity.log_in(body.email, body.password, address).await?;
    Ok(signed_in(StatusCode::OK, session, &identity))
}
