//! Read your writes: the token that a receipt carries and a query waits for.

use std::fmt;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use event_schemas::{Position, StreamId, Version};
use serde::{Deserialize, Serialize};

use crate::Problem;

/// `<type>/<id>@<version>.<position>`: a query that honours it answers with at least that version of that aggregate.
/// Clients pass it on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsistencyToken {
    pub stream: StreamId,
    pub version: Version,
    pub position: Position,
}

/// The text is no consistency token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a consistency token <type>/<id>@<version>.<position>, as a receipt carries it")]
pub struct ParseTokenError;

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.stream, self.version, self.position)
    }
}

impl FromStr for ConsistencyToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stream, numbers) = text.rsplit_once('@').ok_or(ParseTokenError)?;
        let (version, position) = numbers.split_once('.').ok_or(ParseTokenError)?;
        let number = |digits: &str| {
            let plain = (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain
                .then(|| digits.parse().ok())
                .flatten()
                .ok_or(ParseTokenError)
        };
        Ok(Self {
            stream: stream.parse().map_err(|_| ParseTokenError)?,
            version: Version(number(version)?),
            position: Position(number(position)?),
        })
    }
}

impl Serialize for ConsistencyToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConsistencyToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What the client wants to be at least reflected: the header `Omisys-At-Least`. (As `?at_least=`, it is a
/// [`ConsistencyToken`] in the route's query type.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtLeast(pub Option<ConsistencyToken>);

impl<S: Sync> FromRequestParts<S> for AtLeast {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut sent = parts.headers.get_all("omisys-at-least").iter();
        let Some(value) = sent.next() else {
            return Ok(Self(None));
        };
        let token = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        match (token, sent.next()) {
            (Some(token), None) => Ok(Self(Some(token))),
            _ => Err(Problem::malformed(
                "Omisys-At-Least is one consistency token, as a receipt carries it",
            )),
        }
    }
}
