//! Making tokens: access tokens (JWT) and refresh tokens (opaque).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event_schemas::{AccountId, Timestamp};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::claims::Claims;
use crate::jws;
use crate::keys::{Key, KeyError, Keys, Purpose};
use crate::permissions::{PermissionSet, Role};
use crate::random;
use crate::verifier::access_token_header;

/// How long an access token lives.
pub const ACCESS_TOKEN_LIFE: Duration = Duration::from_secs(600);

/// The client that our own tokens are made for; there are no others yet.
const CLIENT_ID: &str = "omisys";

/// An access token, to be shown in `Authorization: Bearer`.
#[derive(Clone)]
pub struct AccessToken {
    pub token: String,
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Whom an access token is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub account_id: AccountId,
    pub role: Role,
    pub epoch: u64,
}

pub(crate) fn access_token(
    keys: &Keys,
    (issuer, audience): (&str, &str),
    subject: Subject,
    scope: PermissionSet,
    now: Timestamp,
) -> Result<AccessToken, KeyError> {
    let key = keys
        .current(Purpose::Signing, now)
        .ok_or(KeyError::Missing(Purpose::Signing))?;
    let expires_at = now + ACCESS_TOKEN_LIFE;
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let claims = Claims {
        iss: issuer.to_owned(),
        aud: audience.to_owned(),
        sub: subject.account_id,
        exp: expires_at.as_second(),
        iat: now.as_second(),
        jti: uuid::Builder::from_unix_timestamp_millis(millis, &random::bytes()).into_uuid(),
        client_id: CLIENT_ID.to_owned(),
        scope: scope.to_scope(),
        roles: vec![subject.role],
        epoch: subject.epoch,
    };
    let header = access_token_header(Some(key.id.to_string()));
    let token = jsonwebtoken::encode(&header, &claims, &jws::encoding_key(&key.secret)).map_err(|error| {
        KeyError::Format {
            origin: "memory".to_owned(),
            message: error.to_string(),
        }
    })?;
    Ok(AccessToken { token, expires_at })
}

/// A refresh token: `rt1.` and base64url of family (16 bytes), generation (4) and MAC (32). The MAC is
/// HMAC(server key, family, generation), so that a successor can be told again without having been kept.
#[derive(Clone, Copy)]
pub(crate) struct RefreshToken {
    pub family: Uuid,
    pub generation: u32,
    mac: [u8; 32],
}

const PREFIX: &str = "rt1.";
const BYTES: usize = 16 + 4 + 32;

impl RefreshToken {
    pub fn derive(key: &Key, family: Uuid, generation: u32) -> Self {
        Self {
            family,
            generation,
            mac: Self::mac(key, family, generation),
        }
    }

    fn mac(key: &Key, family: Uuid, generation: u32) -> [u8; 32] {
        let parts: [&[u8]; 3] = [b"omisys/refresh/1", family.as_bytes(), &generation.to_be_bytes()];
        crate::keys::hmac_sha256(&key.secret, &parts)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text
            .strip_prefix(PREFIX)
            .filter(|encoded| encoded.len() == BYTES.div_ceil(3) * 4 - 2)?;
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok()?;
        let (mut family, mut generation, mut mac) = ([0; 16], [0; 4], [0; 32]);
        family.copy_from_slice(&bytes[..16]);
        generation.copy_from_slice(&bytes[16..20]);
        mac.copy_from_slice(&bytes[20..]);
        Some(Self {
            family: Uuid::from_bytes(family),
            generation: u32::from_be_bytes(generation),
            mac,
        })
    }

    /// Whether one of our keys, current or not, made it.
    pub fn genuine(&self, keys: &Keys, now: Timestamp) -> bool {
        keys.current_first(Purpose::Refresh, now)
            .any(|key| same(&Self::mac(key, self.family, self.generation), &self.mac))
    }

    /// What is stored of it.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    pub fn to_text(self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.bytes()))
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(self.family.as_bytes());
        bytes[16..20].copy_from_slice(&self.generation.to_be_bytes());
        bytes[20..].copy_from_slice(&self.mac);
        bytes
    }
}

/// Compares without telling by its duration how much is equal.
pub(crate) fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    std::hint::black_box(
        left.iter()
            .zip(right)
            .fold(0, |difference, (l, r)| difference | (l ^ r)),
    ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key {
        Key {
            id: "refresh-1".into(),
            purpose: Purpose::Refresh,
            secret: zeroize::Zeroizing::new([7; 32]),
            created_at: Timestamp::UNIX_EPOCH,
            active_from: Timestamp::UNIX_EPOCH,
            retired_at: None,
            revoked: false,
        }
    }

    proptest! {
        #[test]
        fn a_refresh_token_survives_text_and_nothing_else_passes(family: u128, generation: u32, flip in 0_usize..BYTES * 8) {
            let keys = Keys(vec![key()]);
            let token = RefreshToken::derive(&key(), Uuid::from_u128(family), generation);
            let parsed = RefreshToken::parse(&token.to_text()).unwrap();
            prop_assert!(parsed.genuine(&keys, Timestamp::UNIX_EPOCH));
            prop_assert_eq!(parsed.digest(), token.digest());
            let mut bytes = token.bytes();
            bytes[flip / 8] ^= 1 << (flip % 8);
            let forged = RefreshToken::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))).unwrap();
            prop_assert!(!forged.genuine(&keys, Timestamp::UNIX_EPOCH));
        }

        #[test]
        fn no_text_makes_the_parser_stumble(text in ".{0,120}") {
            prop_assert!(RefreshToken::parse(&text).is_none());
            let prefixed = format!("{PREFIX}{text}");
            prop_assert!(RefreshToken::parse(&prefixed).is_none());
        }
    }
}
