//! What goes into statements and comes out of rows.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::DatabaseError;

/// A parameter or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

macro_rules! from_integers {
    ($($integer:ty),*) => { $(
        impl From<$integer> for Value<'_> {
            fn from(integer: $integer) -> Self {
                Self::Integer(i64::from(integer))
            }
        }
    )* };
}
from_integers!(i64, i32, u32, u16, u8, bool);

/// Nothing is stored beyond the range of a signed integer.
impl From<u64> for Value<'_> {
    fn from(integer: u64) -> Self {
        Self::Integer(i64::try_from(integer).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value<'_> {
    fn from(integer: usize) -> Self {
        Self::Integer(i64::try_from(integer).unwrap_or(i64::MAX))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a Arc<str>> for Value<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(Cow::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Blob(Cow::Borrowed(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Value<'_> {
    fn from(bytes: [u8; N]) -> Self {
        Self::Blob(Cow::Owned(bytes.to_vec()))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(Cow::Owned(bytes))
    }
}

impl<'a, T> From<Option<T>> for Value<'a>
where
    Value<'a>: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::from)
    }
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(value: &'a Option<String>) -> Self {
        Self::from(value.as_deref())
    }
}

/// What a column can be read as.
pub trait FromValue: Sized {
    /// The value, or what is wrong with it.
    fn from_value(value: Value<'_>) -> Result<Self, String>;
}

fn wrong<T>(expected: &str, found: &Value<'_>) -> Result<T, String> {
    let found = match found {
        Value::Null => "null",
        Value::Integer(_) => "an integer",
        Value::Text(_) => "text",
        Value::Blob(_) => "a blob",
    };
    Err(format!("{expected} expected, {found} found"))
}

impl FromValue for i64 {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Integer(integer) => Ok(integer),
            other => wrong("an integer", &other),
        }
    }
}

macro_rules! narrower_integers {
    ($($integer:ty),*) => { $(
        impl FromValue for $integer {
            fn from_value(value: Value<'_>) -> Result<Self, String> {
                i64::from_value(value).and_then(|wide| Self::try_from(wide).map_err(|error| error.to_string()))
            }
        }
    )* };
}
narrower_integers!(u64, u32, usize);

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        i64::from_value(value).map(|integer| integer != 0)
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            other => wrong("text", &other),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Blob(bytes) => Ok(bytes.into_owned()),
            other => wrong("a blob", &other),
        }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        let bytes = Vec::from_value(value)?;
        let length = bytes.len();
        Self::try_from(bytes).map_err(|_| format!("{N} bytes expected, {length} found"))
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A column's number, from 0, or its name.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    Number(usize),
    Name(&'a str),
}

impl From<usize> for Column<'_> {
    fn from(number: usize) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Column<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Column<'_> {
    /// `value` as `T`.
    pub(crate) fn read<T: FromValue>(self, value: Value<'_>) -> Result<T, DatabaseError> {
        T::from_value(value).map_err(|message| DatabaseError::unexpected(self.to_string(), message))
    }
}
