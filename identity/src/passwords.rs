//! argon2id on blocking threads, few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::random;
use crate::values::Password;

/// 19 MiB, two passes, one lane (OWASP's first choice for argon2id).
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Requests that may wait for their turn; more are told to come back.
const MAX_WAITING: usize = 64;

/// Checked when there is no account, or none with a password, so that both take as long. Of no password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$b21pc3lzL25vYm9keSE$aXMgbm90IHRoZSBoYXNoIG9mIGFueSBwYXNzd29yZCE";

/// Why no answer was given: too many are waiting, or the hash could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashError {
    Busy,
    Failed,
}

#[derive(Clone)]
pub(crate) struct Passwords {
    /// Each turn takes 19 MiB and a core for about 20 ms.
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Passwords {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            turns: Arc::new(Semaphore::new((cores / 2).clamp(1, 8))),
            waiting: Arc::default(),
        }
    }

    /// The hash of `password` under a fresh salt, as a PHC string.
    pub async fn hash(&self, password: Password) -> Result<String, HashError> {
        let salt: [u8; 16] = random::bytes();
        self.in_turn(move |argon2| {
            argon2
                .hash_password_with_salt(password.as_bytes(), &salt)
                .map(|hash| hash.to_string())
                .ok()
        })
        .await?
        .ok_or(HashError::Failed)
    }

    /// Whether `hash` is of `password`; takes as long when there is no hash.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, HashError> {
        self.in_turn(move |argon2| {
            let exists = hash.is_some();
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY)).ok();
            let matches =
                parsed.is_some_and(|parsed| argon2.verify_password(password.as_bytes(), &parsed).is_ok());
            exists && matches
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'_>) -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = {
            let _place = Place::take(&self.waiting)?;
            Arc::clone(&self.turns)
                .acquire_owned()
                .await
                .map_err(|_| HashError::Busy)?
        };
        tokio::task::spawn_blocking(move || {
            // Held to the end, also when the client has gone: the memory is in use until then.
            let _permit = permit;
            let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::Failed)?;
            Ok(work(&Argon2::new(Algorithm::Argon2id, Version::V0x13, params)))
        })
        .await
        .map_err(|_| HashError::Failed)?
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, HashError> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            Err(HashError::Busy)
        } else {
            Ok(place)
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_hash_is_of_its_password_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            passwords.hash(password("correct horse")).await.unwrap(),
            "salts differ"
        );
        assert_eq!(
            passwords
                .verify(password("correct horse"), Some(hash.clone()))
                .await,
            Ok(true)
        );
        assert_eq!(
            passwords.verify(password("battery staple"), Some(hash)).await,
            Ok(false)
        );
        assert_eq!(
            passwords
                .verify(password("correct horse"), Some("nonsense".into()))
                .await,
            Ok(false)
        );
        assert_eq!(passwords.verify(password("correct horse"), None).await, Ok(false));
    }

    /// What "equal time" rests on: the stand-in parses, and asks for exactly the work of a real hash.
    #[tokio::test]
    async fn the_stand_in_costs_what_a_real_hash_costs() {
        let real = Passwords::new().hash(password("correct horse")).await.unwrap();
        let (real, stand_in) = (
            PasswordHash::new(&real).unwrap(),
            PasswordHash::new(NOBODY).unwrap(),
        );
        assert_eq!(stand_in.params, real.params);
        assert_eq!(
            (stand_in.algorithm, stand_in.version),
            (real.algorithm, real.version)
        );
        let length = |hash: &PasswordHash| hash.hash.as_ref().map(argon2::password_hash::phc::Output::len);
        assert_eq!(length(&stand_in), length(&real));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let passwords = Passwords::new();
        let all = passwords.turns.available_permits();
        let _held = passwords
            .turns
            .clone()
            .acquire_many_owned(u32::try_from(all).unwrap())
            .await
            .unwrap();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify(password("correct horse"), None).await })
            })
            .collect();
        let queued = async {
            while passwords.waiting.load(Ordering::Relaxed) < MAX_WAITING {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), queued)
            .await
            .expect("all wait in the queue");
        assert_eq!(
            passwords.verify(password("correct horse"), None).await,
            Err(HashError::Busy)
        );
        for task in &waiting {
            task.abort();
        }
        for task in waiting {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(
            passwords.waiting.load(Ordering::Relaxed),
            0,
            "who gives up leaves the queue"
        );
    }
}
