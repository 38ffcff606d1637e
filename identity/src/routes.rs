//! `/auth/*` and the JWKS over HTTP.

mod accounts;
mod guest;
mod jwks;
mod login;
mod logout;
mod me;
mod password;
mod refresh;
mod register;

use std::time::Duration;

use axum::Json;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use http_conventions::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::{Account, AccountError, Status};
use crate::permissions::Role;
use crate::service::{Identity, SessionError, SignedIn};
use crate::tokens::ACCESS_TOKEN_LIFE;
use crate::verifier::Verifier;

/// The name of the security scheme that annotated routes refer to.
pub const BEARER_SCHEME: &str = "bearer";

/// The security scheme [`BEARER_SCHEME`] of the OpenAPI document.
pub fn bearer_scheme() -> SecurityScheme {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT");
    SecurityScheme::Http(scheme.description(Some("The access token of a sign-in")).build())
}

impl FromRef<Identity> for Verifier {
    fn from_ref(identity: &Identity) -> Self {
        identity.verifier()
    }
}

/// The routes of identity. Put `http_conventions::finish` around what serves them.
pub fn router(identity: Identity) -> OpenApiRouter {
    routes().with_state(identity)
}

/// What [`router`] serves, for whoever documents it without running it.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<Identity> {
    OpenApiRouter::default()
        .routes(routes!(register::register))
        .routes(routes!(guest::guest))
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(password::password))
        .routes(routes!(me::me))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::set_role))
        .routes(routes!(jwks::jwks))
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
struct TokenResponse {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    #[schema(value_type = String)]
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: u64,
    /// Exchange it, once, at `/auth/refresh`.
    refresh_token: String,
    /// Seconds until the refresh token ends if it isn't used.
    refresh_expires_in: u64,
    /// Permission names, separated by spaces.
    scope: String,
    account: AccountView,
}

/// An account as its owner and admins see it.
#[derive(Serialize, ToSchema)]
struct AccountView {
    #[schema(value_type = String, format = "uuid")]
    id: event_schemas::AccountId,
    role: Role,
    status: Status,
    /// `null` for guests and imported customers.
    #[schema(format = "email")]
    email: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    created_at: event_schemas::Timestamp,
}

impl From<&Account> for AccountView {
    fn from(account: &Account) -> Self {
        Self {
            id: account.id,
            role: account.role,
            status: account.status,
            email: account.email.as_ref().map(|email| email.as_str().to_owned()),
            created_at: account.created_at,
        }
    }
}

fn signed_in(status: StatusCode, session: SignedIn, identity: &Identity) -> Response {
    let refresh_life = session.refresh_expires_at.duration_since(identity.now());
    let body = TokenResponse {
        expires_in: ACCESS_TOKEN_LIFE.as_secs(),
        token_type: "Bearer",
        refresh_expires_in: refresh_life.as_secs().try_into().unwrap_or(0),
        refresh_token: session.refresh_token().to_owned(),
        account: AccountView::from(&session.account),
        scope: session.scope,
        access_token: session.access.token,
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// How long a client waits when we are short of hashing turns or the store is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::BadCredentials => Self::new(
                StatusCode::UNAUTHORIZED,
                "bad-credentials",
                "The e-mail address or the password is wrong",
            )
            .header(
                axum::http::header::WWW_AUTHENTICATE,
                axum::http::HeaderValue::from_static("Bearer"),
            ),
            SessionError::InvalidRefreshToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "invalid-refresh-token",
                "The refresh token is not valid",
            )
            .detail("sign in again")
            .header(
                axum::http::header::WWW_AUTHENTICATE,
                axum::http::HeaderValue::from_static("Bearer"),
            ),
            SessionError::EmailTaken => email_taken(),
            SessionError::Throttled(retry_after) => Self::too_many_requests(retry_after),
            SessionError::Busy | SessionError::Store(_) => Self::unavailable(error, RETRY_AFTER),
            SessionError::Keys(_) => Self::internal(error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotFound => Self::not_found(),
            AccountError::EmailTaken => email_taken(),
            AccountError::LastAdmin => Self::conflict("last-admin", "The last active admin stays an admin"),
            AccountError::Guest => Self::refused("guest-role", "The role guest is neither given nor changed")
                .detail("a guest signs up"),
            AccountError::Busy | AccountError::Store(_) => Self::unavailable(error, RETRY_AFTER),
        }
    }
}

fn email_taken() -> Problem {
    Problem::conflict("email-taken", "Another account has this e-mail address")
}

fn unavailable(error: &database::DatabaseError) -> Problem {
    Problem::unavailable(error, RETRY_AFTER)
}
