//! What the documents of all routes share.

use http_conventions::Problem;
use serde::Serialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};

/// Headers of a command whose key is optional.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described here; `Call` reads the headers")]
pub(crate) struct CommandHeaders {
    /// Names the intended effect: a repeat answers the first receipt, with `Idempotent-Replayed: true`.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    /// Accept only if the aggregate is at this version.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
}

/// Headers of a command that moves money or stock.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described here; `Call` reads the headers")]
pub(crate) struct KeyedCommandHeaders {
    /// Names the intended effect: a repeat answers the first receipt, with `Idempotent-Replayed: true`.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: String,
    /// Accept only if the aggregate is at this version.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
}

/// How a command can fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described here; `Problem` is the answer")]
pub(crate) enum CommandProblems {
    /// Malformed, or a required header is missing.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] Problem),
    /// No token, or a bad one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The caller lacks a permission.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// Not there, or not the caller's.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Problem),
    /// The state, or a concurrent change, stands in the way.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Problem),
    /// `If-Match` named another version.
    #[response(status = 412, content_type = "application/problem+json")]
    VersionMismatch(#[to_schema] Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(#[to_schema] Problem),
    /// Refused by a rule, or the key was used with another body.
    #[response(status = 422, content_type = "application/problem+json")]
    Refused(#[to_schema] Problem),
    /// Limited; see `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(#[to_schema] Problem),
    /// Something is away; see `Retry-After`. Repeat with the same key.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}

/// Money in the minor unit of its currency.
#[derive(Serialize, ToSchema)]
#[schema(as = Money)]
pub(crate) struct MoneySchema {
    /// Minor units, such as pence.
    #[schema(example = 1299, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// ISO 4217.
    #[schema(example = "GBP")]
    currency: String,
}
