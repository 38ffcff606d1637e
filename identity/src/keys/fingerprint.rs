use std::sync::Arc;

use event_schemas::Clock;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{KeyRing, Purpose};

/// A MAC and the name of the key that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedMac {
    pub key_id: Arc<str>,
    pub mac: [u8; 32],
}

/// Fingerprints request bodies, so that a receipt remembers which body it answered without keeping the body.
#[derive(Clone, Debug)]
pub struct Fingerprinter {
    ring: KeyRing,
    clock: Clock,
}

impl Fingerprinter {
    pub(crate) fn new(ring: KeyRing, clock: Clock) -> Self {
        Self { ring, clock }
    }

    /// HMAC-SHA-256 of `body` under the current key, then under every retired one: a receipt stored under a key that
    /// has been retired since can still be compared.
    pub fn macs(&self, body: &[u8]) -> Vec<KeyedMac> {
        let keys = self.ring.snapshot();
        keys.current_first(Purpose::Fingerprint, self.clock.now())
            .map(|key| KeyedMac {
                key_id: Arc::clone(&key.id),
                mac: hmac_sha256(&key.secret, &[body]),
            })
            .collect()
    }
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}
