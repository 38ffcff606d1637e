//! RFC 9457 problem details.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error as a client sees it. Holds public text only: causes belong in the log, not in here.
///
/// `type` is a stable relative URI under `/problems/` and the only member a program should branch on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A stable relative URI that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(rename = "type", value_type = String, example = "/problems/out-of-stock")]
    kind: ProblemType,
    /// The kind in a few words; the same for every occurrence.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "status_code")]
    #[schema(value_type = u16, minimum = 400, maximum = 599)]
    status: StatusCode,
    /// What is wrong this time, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    detail: Option<Cow<'static, str>>,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Finds this request in logs and traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    /// What is wrong with the input, field by field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    #[serde(flatten)]
    #[schema(ignore)]
    members: Map<String, Value>,
    #[serde(skip)]
    #[schema(ignore)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProblemType(&'static str);

impl Serialize for ProblemType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/problems/{}", self.0))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn status_code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

/// One fault of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON Pointer (RFC 6901); empty for the whole body.
    #[schema(example = "/lines/0/quantity")]
    pub pointer: String,
    /// What, for people.
    pub detail: String,
}

impl Problem {
    /// A problem of the kind `/problems/<slug>`. `title` goes with the slug, not with the occurrence.
    pub fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self {
            kind: ProblemType(slug),
            title,
            status,
            detail: None,
            instance: None,
            trace_id: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    /// 400: the request cannot be understood.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-request", "Malformed request").detail(detail)
    }

    /// 401 with `WWW-Authenticate: Bearer`. `error` is a code of RFC 6750, absent when no token was sent.
    pub fn unauthorized(error: Option<&'static str>) -> Self {
        let challenge = match error {
            None => HeaderValue::from_static("Bearer realm=\"omisys\""),
            Some(code) => HeaderValue::try_from(format!("Bearer realm=\"omisys\", error=\"{code}\""))
                .unwrap_or(HeaderValue::from_static("Bearer")),
        };
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Authentication required",
        )
        .header(WWW_AUTHENTICATE, challenge)
    }

    /// 403: known, but lacks this permission.
    pub fn forbidden(permission: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed").with("permission", permission)
    }

    /// 404: not there, or not the caller's; the two are never told apart.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found")
    }

    /// 409: the state of the resource, or a concurrent change, stands in the way.
    pub fn conflict(slug: &'static str, title: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, slug, title)
    }

    /// 412: `If-Match` named another version than `actual`.
    pub fn precondition_failed(actual: event_schemas::Version) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "version-mismatch",
            "The resource has changed",
        )
        .with("version", actual.0)
    }

    /// 422: understood, and refused by a rule.
    pub fn refused(slug: &'static str, title: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, slug, title)
    }

    /// 422: the `Idempotency-Key` was used with another body.
    pub fn key_reused() -> Self {
        Self::refused("idempotency-key-reused", "Idempotency key reused")
            .detail("this Idempotency-Key was used before with another body; use a new key for a new request")
    }

    /// 429.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
        )
        .retry_after(retry_after)
    }

    /// 500: a bug of ours. The cause goes to the log under the current span, and only there.
    pub fn internal(cause: impl Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error")
    }

    /// 503: something we depend on is away. The cause goes to the log, and only there.
    pub fn unavailable(cause: impl Display, retry_after: Duration) -> Self {
        tracing::warn!(%cause, "unavailable");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Temporarily unavailable",
        )
        .retry_after(retry_after)
    }

    /// Says what is wrong this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds an extension member. A value that cannot be JSON, or the name of a standard member, is a bug and left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        const TAKEN: [&str; 7] = [
            "type", "title", "status", "detail", "instance", "trace_id", "errors",
        ];
        debug_assert!(!TAKEN.contains(&name), "{name} is a standard member");
        if let Ok(value) = serde_json::to_value(value)
            && !TAKEN.contains(&name)
        {
            self.members.insert(name.to_owned(), value);
        }
        self
    }

    /// Adds a fault of one field.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        });
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of `type`.
    pub fn slug(&self) -> &'static str {
        self.kind.0
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        // Strings, numbers and JSON values: nothing in here can fail to serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        // For `finish`, which knows the request and completes the body.
        response.extensions_mut().insert(self);
        response
    }
}
