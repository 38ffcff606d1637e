//! Checks access tokens. This is the part of identity that every other service embeds; it trusts no header but
//! `Authorization`, looks keys up in memory only, and never calls out while verifying.

mod cache;
mod epochs;
mod extract;
#[cfg(feature = "cluster")]
mod jwks;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

#[cfg(feature = "cluster")]
use database::{Database, DatabaseError};
use event_schemas::{AccountId, Actor, ActorKind, Clock, CustomerId, Timestamp};
use http_conventions::Problem;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use uuid::Uuid;

use crate::claims::{ACCESS_TOKEN_TYPE, Claims};
use crate::jws;
pub use crate::permissions::{Permission, PermissionSet, Role, RolePermissions};
#[cfg(feature = "cluster")]
use crate::settings::Settings;

use cache::{Cache, Verified};
pub(crate) use epochs::{Epochs, Standing};
pub use extract::MaybeCaller;

/// How far the clocks of two machines may be apart.
pub(crate) const LEEWAY: Duration = Duration::from_secs(5);

/// Ours are about 700 bytes with every permission in `scope`.
const TOKEN_MAX_LEN: usize = 4096;

/// Who makes a request. Only the verifier makes one, so a handler that names the caller has authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    pub account_id: AccountId,
    pub role: Role,
    pub permissions: PermissionSet,
    /// The token's own id.
    pub jti: Uuid,
    /// When the token ends; a long answer (a stream) ends with it.
    pub expires_at: Timestamp,
}

impl Caller {
    /// Whether the caller may.
    pub const fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// 403 unless the caller may.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.may(permission) {
            Ok(())
        } else {
            Err(Problem::forbidden(permission.as_str()))
        }
    }

    /// The caller as a customer; everybody may shop.
    pub fn customer_id(&self) -> CustomerId {
        self.account_id.into()
    }

    /// Whether something of `owner` is the caller's own.
    pub fn is(&self, owner: CustomerId) -> bool {
        self.customer_id() == owner
    }

    /// The caller as events name it.
    pub fn actor(&self) -> Actor {
        let kind = match self.role {
            Role::Guest => ActorKind::Guest,
            Role::Customer => ActorKind::Customer,
            Role::Staff => ActorKind::Staff,
            Role::Admin => ActorKind::Admin,
        };
        Actor {
            kind,
            id: self.account_id.to_string().into(),
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token's header is not that of an access token")]
    Header,
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token's claims are incomplete or malformed")]
    Claims,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is from the future")]
    NotYetValid,
    #[error("the token has been revoked")]
    Revoked,
    /// Not the token's fault: whether it has been revoked is not known right now.
    #[error("whether the token has been revoked cannot be checked")]
    Unchecked,
}

impl TokenError {
    /// The answer to the client.
    pub fn problem(self) -> Problem {
        match self {
            Self::Unchecked => Problem::unavailable(self, Duration::from_secs(1)),
            Self::Malformed
            | Self::Header
            | Self::UnknownKey
            | Self::Signature
            | Self::Claims
            | Self::Issuer
            | Self::Audience
            | Self::Expired
            | Self::NotYetValid
            | Self::Revoked => Problem::unauthorized(Some("invalid_token")).detail(self.to_string()),
        }
    }
}

/// The public keys that tokens may be signed with.
#[derive(Default)]
pub(crate) struct PublicKeys(HashMap<String, PublicKey>);

impl PublicKeys {
    /// By id.
    pub(crate) fn of(keys: impl IntoIterator<Item = (String, PublicKey)>) -> Self {
        Self(keys.into_iter().collect())
    }

    fn get(&self, id: &str) -> Option<&PublicKey> {
        self.0.get(id)
    }

    /// There is always one, once they are known.
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

pub(crate) struct PublicKey {
    pub key: DecodingKey,
    /// When the last token that it signed has ended; `None` while it may still sign.
    pub until: Option<Timestamp>,
}

/// Checks access tokens. Cloning is cheap and shares the caches.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    issuer: String,
    validation: Validation,
    roles: RolePermissions,
    /// Held for reading from the check of a token until it is in the cache: [`Verifier::set_keys`] must not miss one.
    keys: RwLock<PublicKeys>,
    cache: Cache,
    epochs: Epochs,
}

impl Verifier {
    pub(crate) fn new(
        issuer: &str,
        audience: &str,
        roles: RolePermissions,
        epochs: Epochs,
        clock: Clock,
    ) -> Self {
        jws::install();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        // Checked below, against our clock.
        validation.validate_exp = false;
        Self {
            inner: Arc::new(Inner {
                clock,
                issuer: issuer.to_owned(),
                validation,
                roles,
                keys: RwLock::default(),
                cache: Cache::default(),
                epochs,
            }),
        }
    }

    /// Checks tokens in a process without identity's keys: it follows the JWKS (see [`Verifier::follow_jwks`]), and reads
    /// in the database which staff and admin tokens have been revoked.
    #[cfg(feature = "cluster")]
    pub async fn from_database(
        database: impl Into<Database>,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Self, DatabaseError> {
        let database = database.into();
        database.migrate("identity", crate::accounts::MIGRATIONS).await?;
        Ok(Self::new(
            &settings.issuer,
            &settings.audience,
            settings.permissions,
            Epochs::in_database(database),
            clock,
        ))
    }

    /// Checks tokens in a process without a database, which follows the JWKS (see [`Verifier::follow_jwks`]). It does
    /// not know of revoked staff and admin tokens: for a process before the services, which look themselves.
    #[cfg(feature = "cluster")]
    pub fn from_jwks(settings: &Settings, clock: Clock) -> Self {
        Self::new(
            &settings.issuer,
            &settings.audience,
            settings.permissions,
            Epochs::elsewhere(),
            clock,
        )
    }

    /// Whether it knows any key; until then every token is [`TokenError::Unchecked`].
    pub fn has_keys(&self) -> bool {
        self.inner
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_known()
    }

    /// Replaces the known keys; tokens verified under the old ones are checked again.
    pub(crate) fn set_keys(&self, keys: PublicKeys) {
        let mut known = self.inner.keys.write().unwrap_or_else(PoisonError::into_inner);
        *known = keys;
        self.inner.cache.clear();
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.inner.epochs
    }

    /// The issuer whose tokens this verifier takes.
    pub fn issuer(&self) -> &str {
        &self.inner.issuer
    }

    /// Checks a token against the clock that the verifier was made with, first renewing what it knows of staff and
    /// admin accounts when that is older than 10 s. What the [`Caller`] extractor does; also the proof of a second
    /// token in a request.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, TokenError> {
        match self.verify(token, self.inner.clock.now()) {
            Err(TokenError::Unchecked) => {
                if let Err(error) = self.inner.epochs.refresh_if_stale(&self.inner.clock).await {
                    tracing::warn!(%error, "epochs could not be read");
                    return Err(TokenError::Unchecked);
                }
                self.verify(token, self.inner.clock.now())
            }
            outcome => outcome,
        }
    }

    /// Checks a token with what is in memory. For staff and admins that is [`TokenError::Unchecked`] when their
    /// epochs have not been read for 10 s; [`Verifier::authenticate`] reads them.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Caller, TokenError> {
        if token.len() > TOKEN_MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let digest = Cache::digest(token);
        let verified = if let Some(verified) = self.inner.cache.get(&digest) {
            verified
        } else {
            let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
            if !keys.is_known() {
                return Err(TokenError::Unchecked);
            }
            let verified = self.check(token, &keys, now)?;
            self.inner.cache.put(digest, verified);
            verified
        };
        if now >= verified.usable_until {
            return Err(TokenError::Expired);
        }
        if verified.caller.role.is_privileged() {
            match self
                .inner
                .epochs
                .standing(verified.caller.account_id, verified.epoch, now)
            {
                Standing::Good => {}
                Standing::Revoked => return Err(TokenError::Revoked),
                Standing::Unknown => return Err(TokenError::Unchecked),
            }
        }
        Ok(verified.caller)
    }

    /// Everything that depends on the token, the keys and the time.
    fn check(&self, token: &str, keys: &PublicKeys, now: Timestamp) -> Result<Verified, TokenError> {
        use jsonwebtoken::errors::ErrorKind;

        // An `alg` that the crate does not know (`none`) fails to parse.
        let header = decode_header(token).map_err(|error| match error.kind() {
            ErrorKind::Json(_) => TokenError::Header,
            _ => TokenError::Malformed,
        })?;
        // No `jku`, `jwk`, `x5u`, `x5c`, `crit` or anything else: exactly the header that we write.
        if header != access_token_header(header.kid.clone()) {
            return Err(TokenError::Header);
        }
        let key = header
            .kid
            .as_ref()
            .and_then(|kid| keys.get(kid))
            .ok_or(TokenError::UnknownKey)?;
        if key.until.is_some_and(|until| now >= until) {
            return Err(TokenError::UnknownKey);
        }
        let claims = decode::<Claims>(token, &key.key, &self.inner.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::InvalidAlgorithm => TokenError::Header,
                ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => TokenError::Claims,
                _ => TokenError::Malformed,
            })?
            .claims;
        let [role] = claims.roles[..] else {
            return Err(TokenError::Claims);
        };
        let expires_at = Timestamp::from_second(claims.exp).map_err(|_| TokenError::Claims)?;
        let issued_at = Timestamp::from_second(claims.iat).map_err(|_| TokenError::Claims)?;
        if issued_at > now + LEEWAY {
            return Err(TokenError::NotYetValid);
        }
        let usable_until = expires_at.checked_add(LEEWAY).map_err(|_| TokenError::Claims)?;
        let permissions = self
            .inner
            .roles
            .of(role)
            .intersection(PermissionSet::from_scope(&claims.scope));
        let caller = Caller {
            account_id: claims.sub,
            role,
            permissions,
            jti: claims.jti,
            expires_at,
        };
        let usable_until = key.until.map_or(usable_until, |until| usable_until.min(until));
        Ok(Verified {
            caller,
            epoch: claims.epoch,
            usable_until,
        })
    }
}

/// The header of our access tokens, and the only one that is accepted.
pub(crate) fn access_token_header(kid: Option<String>) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(ACCESS_TOKEN_TYPE.to_owned());
    header.kid = kid;
    header
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.inner.issuer)
            .finish_non_exhaustive()
    }
}
