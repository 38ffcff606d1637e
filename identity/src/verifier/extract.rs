//! The caller as an axum extractor.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use http_conventions::Problem;

use super::{Caller, TokenError, Verifier};

impl<S> FromRequestParts<S> for Caller
where
    Verifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?.ok_or_else(|| Problem::unauthorized(None))?;
        Verifier::from_ref(state)
            .authenticate(token)
            .await
            .map_err(TokenError::problem)
    }
}

/// The caller of a route that also answers without a token. A token that is sent must be good.
#[derive(Clone, Copy, Debug)]
pub struct MaybeCaller(pub Option<Caller>);

impl<S> FromRequestParts<S> for MaybeCaller
where
    Verifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match bearer(&parts.headers)? {
            None => Ok(Self(None)),
            Some(_) => Caller::from_request_parts(parts, state)
                .await
                .map(|caller| Self(Some(caller))),
        }
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = sent.next() else { return Ok(None) };
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty());
    match (token, sent.next()) {
        (Some(token), None) => Ok(Some(token)),
        _ => Err(Problem::unauthorized(Some("invalid_request"))
            .detail("send one header Authorization: Bearer <access token>")),
    }
}
