use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use http_conventions::{ClientAddress, Problem, StrictJson};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{TokenResponse, signed_in};
use crate::service::Identity;
use crate::values::{NewPassword, Password};
use crate::verifier::Caller;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordRequest {
    #[schema(value_type = String, format = "password", max_length = 128)]
    current_password: Password,
    #[schema(value_type = String, format = "password", min_length = 10, max_length = 128)]
    new_password: NewPassword,
}

/// Change one's own password. Every session of the account ends; the answer begins a new one.
#[utoipa::path(
    post, path = "/auth/password", tag = "identity", security(("bearer" = [])),
    request_body = PasswordRequest,
    responses(
        (status = 200, description = "Changed", body = TokenResponse),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No or a bad token, or `bad-credentials`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn password(
    State(identity): State<Identity>,
    caller: Caller,
    address: ClientAddress,
    StrictJson(body): StrictJson<PasswordRequest>,
) -> Result<Response, Problem> {
    let session = identity
        .change_password(&caller, body.current_password, body.new_password, address)
        .await?;
    Ok(signed_in(StatusCode::OK, session, &identity))
}
