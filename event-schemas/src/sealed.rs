//! Personal data at rest in the log: ciphertext under a key of its owner, so that erasing a person is destroying a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{Code, ValueError};

/// Names the key that a value is sealed under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeyId(Code);

impl KeyId {
    /// Checks `text` (a [`Code`]) and takes it.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        Code::new(text).map(Self)
    }
}

/// A personal value (a name, an address, contact data, free text by or about a customer) as the log holds it.
/// `nonce` and `ciphertext` are base64 (RFC 4648, section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    pub key_id: KeyId,
    #[schemars(extend("contentEncoding" = "base64"))]
    pub nonce: String,
    #[schemars(extend("contentEncoding" = "base64"))]
    pub ciphertext: String,
}
