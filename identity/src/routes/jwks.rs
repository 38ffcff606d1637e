use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::keys::JWKS_MAX_AGE;
use crate::service::Identity;

/// A JWK Set (RFC 7517) of Ed25519 keys (RFC 8037).
#[derive(Serialize, ToSchema)]
pub(super) struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Serialize, ToSchema)]
struct Jwk {
    #[schema(value_type = String)]
    kty: &'static str,
    #[schema(value_type = String)]
    crv: &'static str,
    #[serde(rename = "use")]
    #[schema(rename = "use", value_type = String)]
    usage: &'static str,
    #[schema(value_type = String)]
    alg: &'static str,
    kid: String,
    x: String,
}

/// The public keys of our access tokens.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "identity",
    responses((status = 200, description = "The keys that sign, will sign soon, or signed tokens still about", body = Jwks)),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(super) async fn jwks(State(identity): State<Identity>) -> impl IntoResponse {
    let keys = identity.published_keys().into_iter().map(|(kid, point)| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        usage: "sig",
        alg: "EdDSA",
        kid,
        x: URL_SAFE_NO_PAD.encode(point),
    });
    let cache = format!("public, max-age={}", JWKS_MAX_AGE.as_secs());
    ([(CACHE_CONTROL, cache)], Json(Jwks { keys: keys.collect() }))
}
