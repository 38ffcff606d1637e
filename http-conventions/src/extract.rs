//! axum's `Path` and `Query`, answering problems.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::Problem;

/// The path's parameters; 400 when one is not what its type says.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(match error.into_kind() {
                ErrorKind::ParseErrorAtKey { key, .. } | ErrorKind::DeserializeError { key, .. } => {
                    Problem::malformed(format!("the path's `{key}` is malformed"))
                }
                ErrorKind::Message(_)
                | ErrorKind::ParseError { .. }
                | ErrorKind::ParseErrorAtIndex { .. }
                | ErrorKind::InvalidUtf8InPathParam { .. } => Problem::malformed("the path is malformed"),
                kind => Problem::internal(kind),
            }),
            Err(error) => Err(Problem::internal(error)),
        }
    }
}

/// The query string; 400 when it is not what `T` says. Give `T` `#[serde(deny_unknown_fields)]`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => {
                let text = error.body_text();
                let reason = text
                    .rsplit_once("query string: ")
                    .map_or("", |(_, reason)| reason);
                Err(Problem::malformed(format!(
                    "the query string is malformed: {reason}"
                )))
            }
        }
    }
}
