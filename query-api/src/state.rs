use std::time::Duration;

use axum::extract::FromRef;
use event_bus::Healing;
use event_schemas::Clock;
use event_store::Log;
use identity::verifier::Verifier;
use projections::Views;

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub struct QueryApi {
    pub views: Views,
    /// What is parked anywhere.
    pub healing: Healing,
    pub verifier: Verifier,
    pub clock: Clock,
    /// For what was, and for the lag of views behind it. Never written to.
    pub log: Log,
    /// How long a read with `at_least` waits. See [`QueryApi::DEFAULT_WAIT`].
    pub wait: Duration,
}

impl QueryApi {
    /// What clients are promised: shorter than anybody's patience, longer than any healthy projection's lag.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(2);
}

impl FromRef<QueryApi> for Verifier {
    fn from_ref(api: &QueryApi) -> Self {
        api.verifier.clone()
    }
}
