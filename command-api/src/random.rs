//! Where ids that are not derived, and names of secrets, get their randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_schemas::derive_uuid;
use http_conventions::Problem;

/// A source of random bytes.
#[derive(Debug, Clone, Default)]
pub enum Random {
    /// The operating system's.
    #[default]
    System,
    /// The same bytes in every run: for tests.
    Repeatable(Arc<AtomicU64>),
}

impl Random {
    /// `N` bytes, at most 16. 503 if the machine has no randomness to give.
    pub(crate) fn bytes<const N: usize>(&self) -> Result<[u8; N], Problem> {
        const { assert!(N <= 16, "a repeatable source has 16 bytes a draw") }
        let mut bytes = [0; N];
        match self {
            Self::System => getrandom::fill(&mut bytes)
                .map_err(|error| Problem::unavailable(error, Duration::from_secs(1)))?,
            Self::Repeatable(draws) => {
                let draw = draws.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                bytes.copy_from_slice(&derive_uuid("omisys/test-random", &[&draw]).as_bytes()[..N]);
            }
        }
        Ok(bytes)
    }
}
