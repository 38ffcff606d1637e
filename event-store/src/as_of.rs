//! Moments of the past.

use std::str::FromStr;

use event_schemas::{Timestamp, Version};
use serde::Deserialize;

use crate::RawEvent;

/// Up to where an aggregate's history is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AsOf {
    /// When the aggregate had come to this version, from 1.
    Version(Version),
    /// What had been recorded by this time, that moment included.
    Time(Timestamp),
}

/// The text is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a version from 1, such as 3, or a time with its offset, such as 2026-01-31T09:30:00Z")]
pub struct ParseAsOfError;

impl AsOf {
    /// Whether this event of the aggregate belongs to its history up to then. Once one does not, none after it does:
    /// machines' clocks may differ, but a history has no gaps.
    pub fn includes(self, event: &RawEvent) -> bool {
        match self {
            Self::Version(version) => event.version <= version,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

impl FromStr for AsOf {
    type Err = ParseAsOfError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // One spelling a version, as in an event's id.
            let version = text.parse().ok().filter(|_| !text.starts_with('0'));
            return version
                .map(|number| Self::Version(Version(number)))
                .ok_or(ParseAsOfError);
        }
        text.parse().map(Self::Time).map_err(|_| ParseAsOfError)
    }
}

impl TryFrom<String> for AsOf {
    type Error = ParseAsOfError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_moment_is_a_version_or_a_time() {
        let time = |text: &str| text.parse().map(AsOf::Time).unwrap();
        for (text, moment) in [
            ("1", AsOf::Version(Version(1))),
            ("18446744073709551615", AsOf::Version(Version(u64::MAX))),
            ("2026-01-31T09:30:00Z", time("2026-01-31T09:30:00Z")),
            (
                "2026-01-31T10:30:00.000001+01:00",
                time("2026-01-31T09:30:00.000001Z"),
            ),
        ] {
            assert_eq!(text.parse(), Ok(moment), "{text}");
        }
        for text in [
            "",
            "0",
            "03",
            "+3",
            "-1",
            "1.0",
            " 1",
            "three",
            "18446744073709551616",
            "2026-01-31",
            "2026-01-31T09:30:00",
            "2026-13-31T09:30:00Z",
            "2026-01-31T10:30:00 01:00",
            "٣",
        ] {
            assert_eq!(text.parse::<AsOf>(), Err(ParseAsOfError), "{text:?}");
        }
    }
}
