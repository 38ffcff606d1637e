//! Sizes and times of the sagas.

use std::time::Duration;

use event_schemas::Timestamp;

use crate::policies::PolicyConfig;

/// How long to wait before something is tried again: doubles from `first` up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// The wait after the `tries`-th try (from 1) has failed.
    pub fn after(&self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }

    /// When to try again after the `tries`-th try has failed at `now`.
    pub(crate) fn next(&self, tries: u32, now: Timestamp) -> Timestamp {
        now.checked_add(self.after(tries)).unwrap_or(Timestamp::MAX)
    }
}

/// How the sagas run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagasConfig {
    /// How long an order waits for its payment. Whoever places it computes its deadline from this.
    pub payment_window: Duration,
    pub policies: PolicyConfig,
    /// For commands that could not be stored just now.
    pub command_backoff: Backoff,
    /// For the provider and for aggregates that are busy.
    pub effect_backoff: Backoff,
    /// After so many calls without an answer a refund waits for someone to look at it.
    pub refund_attempts: u32,
    /// How long a call to the provider may take; its outcome is unknown then. Well below `lease`.
    pub provider_timeout: Duration,
    /// For how long a worker has a timer or an effect to itself: also how long what a killed process had begun waits.
    pub lease: Duration,
    /// Events handled together.
    pub batch_events: usize,
    /// Commands under way at once, and so in memory.
    pub commands_in_flight: usize,
    /// Timers and effects worked on at once.
    pub work_in_flight: usize,
    /// Aggregates kept folded, of each type.
    pub cached_folds: usize,
    /// Whether this is the only process on the log: what a dead one had leased is then free at once.
    pub exclusive: bool,
}

impl Default for SagasConfig {
    fn default() -> Self {
        Self {
            payment_window: Duration::from_secs(30 * 60),
            policies: PolicyConfig::default(),
            command_backoff: Backoff {
                first: Duration::from_millis(5),
                most: Duration::from_secs(2),
            },
            effect_backoff: Backoff {
                first: Duration::from_millis(200),
                most: Duration::from_secs(60),
            },
            refund_attempts: 20,
            provider_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(30),
            batch_events: 1_000,
            commands_in_flight: 4_096,
            work_in_flight: 256,
            cached_folds: 1_024,
            exclusive: true,
        }
    }
}
