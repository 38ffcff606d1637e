//! The server's named keys: what signs access tokens, derives refresh tokens and fingerprints request bodies.

mod fingerprint;
mod store;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use event_schemas::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::jws;
use crate::random;
use crate::tokens::ACCESS_TOKEN_LIFE;
use crate::verifier::{LEEWAY, PublicKey, PublicKeys};

pub(crate) use fingerprint::hmac_sha256;
pub use fingerprint::{Fingerprinter, KeyedMac};
pub(crate) use store::Store;
pub use store::{KeyError, KeySource};

/// How long others may keep a copy of our JWKS; a new signing key is published this long before it signs.
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(300);

/// What a key is for. A key never serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Signs access tokens (Ed25519).
    Signing,
    /// Derives refresh tokens (HMAC-SHA-256).
    Refresh,
    /// Fingerprints request bodies (HMAC-SHA-256).
    Fingerprint,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Signing, Self::Refresh, Self::Fingerprint];

    /// The name on the command line and at the front of key ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Refresh => "refresh",
            Self::Fingerprint => "fingerprint",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or(KeyError::UnknownPurpose)
    }
}

/// A key as it is kept.
#[derive(Clone)]
pub(crate) struct Key {
    pub id: Arc<str>,
    pub purpose: Purpose,
    pub secret: Zeroizing<[u8; 32]>,
    pub created_at: Timestamp,
    /// From when on it is used for new things.
    pub active_from: Timestamp,
    /// From when on it is not. What it made before stays good: for a token's life (signing), for good (the others).
    pub retired_at: Option<Timestamp>,
    /// Known to others: nothing that it made is good any more.
    pub revoked: bool,
}

impl Key {
    fn new(purpose: Purpose, now: Timestamp, active_from: Timestamp) -> Self {
        let unique = u32::from_be_bytes(random::bytes());
        let id = format!("{purpose}-{}-{unique:08x}", now.as_second());
        let secret = Zeroizing::new(random::bytes());
        Self {
            id: id.into(),
            purpose,
            secret,
            created_at: now,
            active_from,
            retired_at: None,
            revoked: false,
        }
    }

    fn in_use(&self, now: Timestamp) -> bool {
        !self.revoked && self.retired_at.is_none_or(|retired| now < retired)
    }

    /// When the last token that it signed has ended.
    fn tokens_end(&self) -> Option<Timestamp> {
        self.retired_at
            .map(|retired| retired + ACCESS_TOKEN_LIFE + LEEWAY)
    }

    /// Whether anything that it made may still be shown to us.
    fn needed(&self, now: Timestamp) -> bool {
        match self.purpose {
            Purpose::Signing => self.tokens_end().is_none_or(|end| now < end),
            // A receipt is kept as long as the log. A refresh key verifies old tokens, so that reuse is noticed.
            Purpose::Fingerprint | Purpose::Refresh => true,
        }
    }
}

/// All keys at one moment.
#[derive(Clone, Default)]
pub(crate) struct Keys(pub Vec<Key>);

impl Keys {
    pub(crate) fn fresh(now: Timestamp) -> Self {
        Self(Purpose::ALL.map(|purpose| Key::new(purpose, now, now)).to_vec())
    }

    fn of(&self, purpose: Purpose) -> impl Iterator<Item = &Key> {
        self.0
            .iter()
            .filter(move |key| key.purpose == purpose && !key.revoked)
    }

    /// The key for new things: the newest active one. When none is active yet (a clock that was set back), the first
    /// that will be, since a server that refuses everybody helps nobody.
    pub fn current(&self, purpose: Purpose, now: Timestamp) -> Option<&Key> {
        let usable = || self.of(purpose).filter(|key| key.in_use(now));
        usable()
            .filter(|key| key.active_from <= now)
            .max_by_key(|key| key.active_from)
            .or_else(|| usable().min_by_key(|key| key.active_from))
    }

    /// The current key, then all others that something may have been made with.
    pub fn current_first(&self, purpose: Purpose, now: Timestamp) -> impl Iterator<Item = &Key> {
        let current = self.current(purpose, now);
        let others = self
            .of(purpose)
            .filter(move |key| current.is_none_or(|current| current.id != key.id));
        current.into_iter().chain(others)
    }

    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| &*key.id == id && !key.revoked)
    }

    /// What verifiers need: every key whose tokens may be about, and those that will sign soon.
    pub fn public(&self) -> PublicKeys {
        let keys = self.of(Purpose::Signing).map(|key| {
            let public = SigningKey::from_bytes(&key.secret).verifying_key();
            let public = PublicKey {
                key: jws::decoding_key(public.as_bytes()),
                until: key.tokens_end(),
            };
            (key.id.to_string(), public)
        });
        PublicKeys::of(keys)
    }

    /// Id and public point of every key that a JWKS lists.
    pub fn published(&self, now: Timestamp) -> impl Iterator<Item = (&str, [u8; 32])> {
        self.of(Purpose::Signing)
            .filter(move |key| key.needed(now))
            .map(|key| {
                (
                    &*key.id,
                    SigningKey::from_bytes(&key.secret).verifying_key().to_bytes(),
                )
            })
    }

    fn rotate(&mut self, purpose: Purpose, now: Timestamp, start: Start) -> Arc<str> {
        let active_from = match (purpose, start) {
            (Purpose::Signing, Start::WhenPublished) => now + JWKS_MAX_AGE,
            (Purpose::Signing, Start::Now) | (Purpose::Refresh | Purpose::Fingerprint, _) => now,
        };
        let key = Key::new(purpose, now, active_from);
        for old in self.0.iter_mut().filter(|old| old.purpose == purpose) {
            let retired_at = old.retired_at.unwrap_or(active_from);
            old.retired_at = Some(retired_at.min(active_from));
        }
        self.0
            .retain(|key| key.needed(now) && !(key.revoked && key.purpose == Purpose::Signing));
        let id = Arc::clone(&key.id);
        self.0.push(key);
        id
    }

    fn retire(&mut self, id: &str, now: Timestamp) -> Result<(), KeyError> {
        let key = self
            .0
            .iter()
            .position(|key| &*key.id == id)
            .ok_or(KeyError::UnknownKey)?;
        let purpose = self.0[key].purpose;
        let successor = self
            .of(purpose)
            .any(|other| &*other.id != id && other.in_use(now) && other.active_from <= now);
        if !successor {
            return Err(KeyError::NoSuccessor);
        }
        let key = &mut self.0[key];
        key.retired_at = Some(key.retired_at.map_or(now, |retired| retired.min(now)));
        key.revoked = purpose == Purpose::Signing;
        Ok(())
    }
}

/// When a rotated signing key begins to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After everybody who caches our JWKS has seen it.
    WhenPublished,
    /// At once: for a leaked predecessor. Other services may refuse its tokens until they refresh.
    Now,
}

/// A key without its secret, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    pub id: Arc<str>,
    pub purpose: Purpose,
    pub created_at: Timestamp,
    pub active_from: Timestamp,
    pub retired_at: Option<Timestamp>,
    pub revoked: bool,
    /// Whether new things are made with it now.
    pub current: bool,
}

/// The keys in memory and where they come from. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct KeyRing {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    keys: RwLock<Arc<Keys>>,
}

impl KeyRing {
    /// Loads the keys; makes them on first start where the source can keep them.
    pub fn open(source: KeySource, now: Timestamp) -> Result<Self, KeyError> {
        let store = Store::new(source);
        let keys = match store.load()? {
            Some(keys) => keys,
            None => store.create(&Keys::fresh(now))?,
        };
        for purpose in Purpose::ALL {
            if keys.current(purpose, now).is_none() {
                return Err(KeyError::Missing(purpose));
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                keys: RwLock::new(Arc::new(keys)),
            }),
        })
    }

    /// Every key, oldest first.
    pub fn list(&self, now: Timestamp) -> Vec<KeyInfo> {
        let keys = self.snapshot();
        let info = |key: &Key| KeyInfo {
            id: Arc::clone(&key.id),
            purpose: key.purpose,
            created_at: key.created_at,
            active_from: key.active_from,
            retired_at: key.retired_at,
            revoked: key.revoked,
            current: keys
                .current(key.purpose, now)
                .is_some_and(|current| current.id == key.id),
        };
        keys.0.iter().map(info).collect()
    }

    /// Adds a new key and retires its predecessors at the moment it becomes active. Returns its id.
    pub(crate) fn rotate(
        &self,
        purpose: Purpose,
        now: Timestamp,
        start: Start,
    ) -> Result<Arc<str>, KeyError> {
        self.change(|keys| Ok(keys.rotate(purpose, now, start)))
    }

    /// Takes a key out of use now. Tokens signed with a signing key end at once; what the other kinds made stays good.
    /// Refused while no other key could take over.
    pub(crate) fn retire(&self, id: &str, now: Timestamp) -> Result<(), KeyError> {
        self.change(|keys| keys.retire(id, now))
    }

    /// Takes over what another process changed; whether anything did.
    pub(crate) fn reload(&self) -> Result<bool, KeyError> {
        let Some(keys) = self.inner.store.load_if_changed()? else {
            return Ok(false);
        };
        *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }

    pub(crate) fn snapshot(&self) -> Arc<Keys> {
        Arc::clone(&self.inner.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keys) -> Result<T, KeyError>) -> Result<T, KeyError> {
        let (outcome, keys) = self.inner.store.update(change)?;
        *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(outcome)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
    }
}
