//! JSON request bodies, strictly.

use std::error::Error;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::Problem;

/// The most bytes a body may have where a route says nothing else.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// The deepest nesting of arrays and objects that a body may have.
pub const JSON_DEPTH_LIMIT: usize = 16;

/// A JSON object of at most `MAX_BYTES`. 413 when larger, 415 when not declared as JSON, 400 with JSON Pointers when it
/// is not what `T` says. Give `T` `#[serde(deny_unknown_fields)]`.
///
/// `Option<StrictJson<T>>` is `None` for a request without a body.
#[derive(Debug, Clone)]
pub struct StrictJson<T, const MAX_BYTES: usize = BODY_LIMIT_BYTES>(pub T);

/// As [`StrictJson`], with the bytes as they were sent (for fingerprints and signatures).
#[derive(Debug, Clone)]
pub struct RawJson<T, const MAX_BYTES: usize = BODY_LIMIT_BYTES> {
    pub value: T,
    pub raw: Bytes,
}

impl<S, T, const MAX_BYTES: usize> FromRequest<S> for RawJson<T, MAX_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Unsupported media type",
            )
            .detail("send the body as Content-Type: application/json"));
        }
        let raw = read(request, MAX_BYTES).await?;
        Ok(Self {
            value: parse(&raw)?,
            raw,
        })
    }
}

impl<S, T, const MAX_BYTES: usize> OptionalFromRequest<S> for RawJson<T, MAX_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if request.headers().contains_key(CONTENT_TYPE) {
            return <Self as FromRequest<S>>::from_request(request, state)
                .await
                .map(Some);
        }
        if read(request, 0).await.is_ok() {
            return Ok(None);
        }
        Err(Problem::malformed("a body needs a Content-Type"))
    }
}

impl<S, T, const MAX_BYTES: usize> FromRequest<S> for StrictJson<T, MAX_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        <RawJson<T, MAX_BYTES> as FromRequest<S>>::from_request(request, state)
            .await
            .map(|json| Self(json.value))
    }
}

impl<S, T, const MAX_BYTES: usize> OptionalFromRequest<S> for StrictJson<T, MAX_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        <RawJson<T, MAX_BYTES> as OptionalFromRequest<S>>::from_request(request, state)
            .await
            .map(|json| json.map(|json| Self(json.value)))
    }
}

/// `application/json`, with no parameter but `charset=utf-8`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            parameter.is_empty()
                || parameter.eq_ignore_ascii_case("charset=utf-8")
                || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

async fn read(request: Request, max_bytes: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large")
            .with("max_bytes", max_bytes)
    };
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > max_bytes as u64) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), max_bytes).await.map_err(|error| {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return too_large();
            }
            cause = error.source();
        }
        Problem::malformed("the body could not be read to its end")
    })
}

fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Problem> {
    if deeper_than(raw, JSON_DEPTH_LIMIT) {
        return Err(Problem::malformed("the body is nested too deeply").with("max_depth", JSON_DEPTH_LIMIT));
    }
    // serde would take an array for the fields of a struct, in the order of their declaration.
    if raw.trim_ascii_start().starts_with(b"[") {
        return Err(
            Problem::malformed("the body is not what this route expects").field("", "expected an object")
        );
    }
    let mut deserializer = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = error
            .path()
            .iter()
            .fold(String::new(), |pointer, segment| match segment {
                Segment::Seq { index } => format!("{pointer}/{index}"),
                Segment::Map { key } => format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
                // Not in the JSON: serde's own levels.
                Segment::Enum { .. } | Segment::Unknown => pointer,
            });
        let detail = public_text(&error.inner().to_string());
        Problem::malformed("the body is not what this route expects").field(pointer, detail)
    })?;
    deserializer
        .end()
        .map_err(|_| Problem::malformed("there is something after the end of the JSON value"))?;
    Ok(value)
}

/// Whether brackets outside strings nest deeper than `limit`. Looks at the bytes only; syntax is the parser's matter.
fn deeper_than(raw: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in raw {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// serde's message without the names of our types.
fn public_text(message: &str) -> String {
    let mut text = message.to_owned();
    for (kind, public) in [
        ("internally tagged enum ", "an object"),
        ("adjacently tagged enum ", "an object"),
        ("tuple struct ", "a value"),
        ("struct variant ", "an object"),
        ("tuple variant ", "a value"),
        ("unit variant ", "a name"),
        ("newtype variant ", "a value"),
        ("struct ", "an object"),
        ("enum ", "one of the known names"),
        ("variant identifier", "a known name"),
    ] {
        let expected = format!("expected {kind}");
        if let Some(start) = text.find(&expected) {
            let name = &text[start + expected.len()..];
            let end = name
                .find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':'))
                .unwrap_or(name.len());
            text = format!("{}expected {public}{}", &text[..start], &name[end..]);
            break;
        }
    }
    // An input may be long, and is quoted in the message.
    if text.len() > 300 {
        let cut = (0..=300).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert!(!deeper_than(&nested(16), 16));
        assert!(deeper_than(&nested(17), 16));
        assert!(!deeper_than(
            br#"{"a":"[[[[[[[[[[[[[[[[[[[[","b":"\"[[[[[[[[[[[[[[[[[[[["}"#,
            16
        ));
    }

    #[test]
    fn messages_lose_type_names() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its errors are of interest")]
        struct SecretName {
            kind: SecretKind,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum SecretKind {
            A,
        }
        for body in [
            "[]",
            "3",
            "\"x\"",
            "{\"kind\":3}",
            "{\"kind\":\"B\"}",
            "{\"kind\":{}}",
            "{\"x\":1}",
            "{}",
            "{",
        ] {
            let problem = parse::<SecretName>(body.as_bytes()).unwrap_err();
            let text = String::from_utf8(problem.body()).unwrap();
            assert!(!text.contains("Secret"), "{body}: {text}");
        }
    }
}
