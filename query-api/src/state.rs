use std::time::Duration;

use axum::extract::FromRef;
use event_schemas::{Clock, Position};
use identity::verifier::Verifier;
use projections::Views;
use tokio::sync::watch;

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub struct QueryApi {
    pub views: Views,
    pub verifier: Verifier,
    pub clock: Clock,
    /// The log's last position, for the lag of views.
    pub head: watch::Receiver<Position>,
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
