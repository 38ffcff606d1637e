//! Request headers that say when, once, and how long: `Idempotency-Key`, `If-Match`, `If-None-Match`, `Prefer`.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use event_schemas::Version;
use utoipa::IntoParams;

use crate::Problem;

/// The longest that `Prefer: wait` makes a request wait.
pub const MAX_WAIT: Duration = Duration::from_secs(10);

const KEY_MAX_LEN: usize = 255;

/// The client's name for one intended effect: a repeat of the request answers the first outcome.
///
/// As an extractor it is required (400 without it); use `Option<IdempotencyKey>` where it is not.
#[derive(Clone, Debug, PartialEq, Eq, IntoParams)]
#[into_params(names("Idempotency-Key"), parameter_in = Header)]
pub struct IdempotencyKey(#[param(min_length = 1, max_length = 255)] String);

impl IdempotencyKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let malformed =
            || Problem::malformed("Idempotency-Key is 1 to 255 printable ASCII characters, sent once");
        let mut sent = headers.get_all("idempotency-key").iter();
        let Some(value) = sent.next() else { return Ok(None) };
        let text = value.to_str().map_err(|_| malformed())?.trim();
        // The draft makes it a quoted string; most clients send it bare. The two mean the same key.
        let key = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let valid = (1..=KEY_MAX_LEN).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid || sent.next().is_some() {
            return Err(malformed());
        }
        Ok(Some(Self(key.to_owned())))
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)?.ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "idempotency-key-required",
                "Idempotency key required",
            )
            .detail(
                "this route moves money or stock: send an Idempotency-Key, and the same one when you retry",
            )
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::of(&parts.headers)
    }
}

/// The version that the client saw, from `If-Match: "<version>"`; `None` when it sent no such header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(names("If-Match"), parameter_in = Header)]
pub struct IfMatch(#[param(value_type = Option<String>, example = "\"3\"")] pub Option<Version>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all(IF_MATCH).iter();
        let Some(value) = sent.next() else {
            return Ok(Self(None));
        };
        let version = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"'))
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        match (version, sent.next()) {
            (Some(version), None) => Ok(Self(Some(Version(version)))),
            _ => Err(Problem::malformed(
                "If-Match is one version in quotes, such as \"3\"",
            )),
        }
    }
}

/// The entity tag of a document: `"<generation>.<rev>"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag {
    /// Which build of the view.
    pub generation: u64,
    /// How often the document changed in it.
    pub rev: u64,
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.generation, self.rev)
    }
}

impl From<ETag> for HeaderValue {
    fn from(tag: ETag) -> Self {
        // Digits, a dot and quotes are always a valid header.
        Self::try_from(tag.to_string()).unwrap_or(Self::from_static("\"\""))
    }
}

/// The entity tags that the client has, from `If-None-Match`. What cannot be read matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(names("If-None-Match"), parameter_in = Header)]
pub struct IfNoneMatch(#[param(value_type = Option<String>, example = "\"1.7\"")] Vec<String>);

impl IfNoneMatch {
    /// Whether the client has this version, so that 304 will do. Compares weakly (RFC 9110, section 13.1.2).
    ///
    /// `tag` is an [`ETag`], or text with its quotes for what is put together from several documents.
    pub fn matches(&self, tag: impl fmt::Display) -> bool {
        let tag = tag.to_string();
        self.0
            .iter()
            .any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag)
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let tags = parts
            .headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok());
        // Our tags hold no comma.
        Ok(Self(
            tags.flat_map(|list| list.split(','))
                .map(|tag| tag.trim().to_owned())
                .collect(),
        ))
    }
}

/// What the client would like (RFC 7240). Preferences that cannot be read are ignored, as the RFC says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Prefer {
    /// `wait=N` seconds for the outcome, at most [`MAX_WAIT`].
    #[param(rename = "Prefer", value_type = Option<String>, example = "wait=5")]
    pub wait: Option<Duration>,
}

impl<S: Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let lists = parts
            .headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let seconds: Option<u64> = lists
            .flat_map(|list| list.split([',', ';']))
            .find_map(|preference| {
                let (name, value) = preference.split_once('=')?;
                let named = name.trim().eq_ignore_ascii_case("wait");
                named
                    .then(|| value.trim().trim_matches('"').parse().ok())
                    .flatten()
            });
        Ok(Self {
            wait: seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT)),
        })
    }
}
