//! What an access token says (RFC 9068).

use event_schemas::AccountId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::permissions::Role;

/// The `typ` of an access token.
pub(crate) const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The claims of an access token. Every one is required; times are in seconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: AccountId,
    pub exp: i64,
    pub iat: i64,
    pub jti: Uuid,
    pub client_id: String,
    /// Permission names, separated by spaces: an upper bound on what the roles grant.
    pub scope: String,
    pub roles: Vec<Role>,
    /// The account's epoch when the token was made; see [`crate::verifier::Verifier`].
    pub epoch: u64,
}
