use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_conventions::{ClientAddress, Problem, StrictJson};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TokenResponse, signed_in};
use crate::service::Identity;
use crate::values::{Email, NewPassword};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisterRequest {
    #[schema(value_type = String, format = "email", max_length = 254)]
    email: Email,
    #[schema(value_type = String, format = "password", min_length = 10, max_length = 128)]
    password: NewPassword,
}

/// Sign up as a customer.
#[utoipa::path(
    post, path = "/auth/register", tag = "identity",
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "Signed up and in", body = TokenResponse),
        (status = 400, description = "Malformed, or a field that sign-up does not take", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`email-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many registrations from this address", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn register(
    State(identity): State<Identity>,
    address: ClientAddress,
    StrictJson(body): StrictJson<RegisterRequest>,
) -> Result<Response, Problem> {
    let session = identity.register(body.email, body.password, address).await?;
    Ok(signed_in(StatusCode::CREATED, session, &identity))
}
