//! Bounded text values. Each is checked when it is made, so a value that exists is well-formed.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::envelope::AggregateId;

/// The text does not have the form its type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct ValueError {
    /// The form that was expected, for people.
    pub expected: &'static str,
}

macro_rules! text_value {
    ($($(#[doc = $doc:literal])* $name:ident, $expected:literal, $pattern:literal, $valid:expr;)+) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            pub fn new(text: impl AsRef<str>) -> Result<Self, ValueError> {
                let (text, valid): (&str, fn(&str) -> bool) = (text.as_ref(), $valid);
                if valid(text) { Ok(Self(text.into())) } else { Err(ValueError { expected: $expected }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                /// Checks the text where it stands: one allocation a value, since folds read millions.
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::schemas::text(concat!($($doc),*), $pattern)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+};
}

fn bounded(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(allowed)
}

text_value! {
    /// A stock keeping unit: the id of a `StockItem`.
    Sku, "a SKU is 1 to 64 characters of A-Z a-z 0-9 . _ -",
        "^[A-Za-z0-9._-]{1,64}$",
        |text| bounded(text, 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    /// A country as ISO 3166-1 alpha-2; codes that the standard leaves to users (`XA`–`XZ`) are accepted.
    CountryCode, "a country is an ISO 3166-1 code of two capital letters, such as GB",
        "^[A-Z]{2}$",
        |text| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    /// A reason, method or provider as a stable code: never free text about a person.
    Code, "a code is 1 to 64 characters of a-z 0-9 _ -, beginning with a letter or digit",
        "^[a-z0-9][a-z0-9_-]{0,63}$",
        |text| bounded(text, 64, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
            && !text.starts_with(['_', '-']);
    /// What the payment provider calls its object (a session, a charge, a refund).
    ProviderRef, "a provider reference is 1 to 255 printable ASCII characters",
        "^[!-~]{1,255}$",
        |text| bounded(text, 255, |byte| byte.is_ascii_graphic());
    /// A delivery note, invoice or document of another system.
    Reference, "a reference is 1 to 128 printable characters",
        "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,128}$",
        |text| !text.is_empty() && text.chars().count() <= 128 && !text.chars().any(char::is_control);
    /// Names a row of secrets beside the log (a payment token, a checkout URL). The secret itself never enters the log.
    SecretRef, "a secret reference is 1 to 64 characters of A-Z a-z 0-9 _ -",
        "^[A-Za-z0-9_-]{1,64}$",
        |text| bounded(text, 64, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
}

impl From<&Sku> for AggregateId {
    fn from(sku: &Sku) -> Self {
        AggregateId::from(sku.as_str())
    }
}
