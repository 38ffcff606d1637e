//! Typed filters over the keys that a view declares. Nothing a client writes becomes a column name or a statement.

use serde::{Deserialize, Serialize};

/// The most documents one page holds.
pub const MAX_PAGE: usize = 100;

/// The most words a text filter uses, and the longest of them in characters.
pub const MAX_WORDS: usize = 8;
pub const MAX_WORD_CHARS: usize = 64;

/// A value that documents are filtered and ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub kind: KeyKind,
}

impl Key {
    /// A key of text, ordered by its bytes.
    pub const fn text(name: &'static str) -> Self {
        Self {
            name,
            kind: KeyKind::Text,
        }
    }

    /// A key of whole numbers: amounts, or microseconds since the epoch.
    pub const fn integer(name: &'static str) -> Self {
        Self {
            name,
            kind: KeyKind::Integer,
        }
    }
}

/// The kinds of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Text,
    Integer,
}

/// The value of a key in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyValue {
    Integer(i64),
    Text(String),
    /// The document has no such value: it matches no filter on this key, and lists ordered by the key leave it out.
    Absent,
}

impl From<i64> for KeyValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for KeyValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for KeyValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// Which way a list runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    #[default]
    Ascending,
    Descending,
}

/// Where a page ended: the next one begins after it. Serialised into an opaque cursor by the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The last document's value of the key that the list is ordered by; absent when it is ordered by id.
    #[serde(rename = "k")]
    pub key: KeyValue,
    /// The last document's id.
    #[serde(rename = "i")]
    pub id: String,
}

/// A page of a list. The views' own filters (such as [`crate::orders::OrderFilter`]) build it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub(crate) equals: Vec<(&'static str, KeyValue)>,
    /// From the first value (inclusive) to the second (exclusive).
    pub(crate) range: Option<(&'static str, Option<KeyValue>, Option<KeyValue>)>,
    /// Each word must occur in the key's text.
    pub(crate) words: Option<(&'static str, Vec<String>)>,
    /// None: by id.
    pub(crate) order: Option<&'static str>,
    pub(crate) direction: Direction,
    pub(crate) after: Option<After>,
    pub(crate) limit: usize,
}

impl Query {
    /// All documents by id, `limit` (1 to [`MAX_PAGE`]) at a time.
    pub fn new(limit: usize) -> Self {
        Self {
            equals: Vec::new(),
            range: None,
            words: None,
            order: None,
            direction: Direction::Ascending,
            after: None,
            limit: limit.clamp(1, MAX_PAGE),
        }
    }

    /// Only documents whose `key` is `value`.
    #[must_use]
    pub fn equals(mut self, key: &'static str, value: impl Into<KeyValue>) -> Self {
        self.equals.push((key, value.into()));
        self
    }

    /// Only documents whose `key` is at least `from` and below `until`.
    #[must_use]
    pub fn range(mut self, key: &'static str, from: Option<KeyValue>, until: Option<KeyValue>) -> Self {
        if from.is_some() || until.is_some() {
            self.range = Some((key, from, until));
        }
        self
    }

    /// Only documents whose `key` contains every word of `text`, whatever their case. Words beyond [`MAX_WORDS`] and
    /// characters beyond [`MAX_WORD_CHARS`] are left out.
    #[must_use]
    pub fn words(mut self, key: &'static str, text: &str) -> Self {
        let words: Vec<String> = words(text).take(MAX_WORDS).collect();
        if !words.is_empty() {
            self.words = Some((key, words));
        }
        self
    }

    /// Ordered by `key`, then by id in the same direction.
    #[must_use]
    pub fn order_by(mut self, key: &'static str, direction: Direction) -> Self {
        self.order = Some(key);
        self.direction = direction;
        self
    }

    /// Only what comes after the end of an earlier page of the same list.
    #[must_use]
    pub fn after(mut self, after: Option<After>) -> Self {
        self.after = after;
        self
    }
}

/// The words of a text as search compares them: lower case, split where neither letter nor digit stands.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.chars()
                .take(MAX_WORD_CHARS)
                .flat_map(char::to_lowercase)
                .collect()
        })
}
