//! Dead letters that people have asked to be folded again, or to be given up.

use std::time::Duration;

use database::DatabaseError;
use event_bus::{DeadLetters, HealingRequest, Remedy, Subscription};
use tokio::time::Instant;

use super::ProjectorSource;
use super::worker::Worker;

/// Between two looks for requests, while something is parked here: somebody may be waiting for the outcome.
const LOOK_WHILE_PARKED: Duration = Duration::from_secs(1);
/// The same while nothing is, as far as this process knows: another one may have parked it.
const LOOK_OTHERWISE: Duration = Duration::from_secs(5);

impl Worker {
    /// Carries out what was asked of the dead letters of its views, in the order in which it was asked: of those aggregates
    /// whose events come to this worker, so that one that arrives meanwhile waits its turn.
    pub(super) async fn heal_asked(&mut self, subscription: Option<&Subscription>) {
        let letters = self.runner.letters();
        let any_parked = letters.iter().any(|(_, letters)| !letters.none_parked());
        let pause = if any_parked {
            LOOK_WHILE_PARKED
        } else {
            LOOK_OTHERWISE
        };
        if self.looked_at.elapsed() < pause {
            return;
        }
        self.looked_at = Instant::now();
        for (view, letters) in letters {
            // What is not carried out now stays, and is found again.
            if let Err(error) = self.heal_view(view, &letters, subscription).await {
                tracing::warn!(%error, view, "what was asked of the dead letters was not carried out");
            }
        }
    }

    async fn heal_view(
        &mut self,
        view: &str,
        letters: &DeadLetters,
        subscription: Option<&Subscription>,
    ) -> Result<(), DatabaseError> {
        for request in letters.asked_for().await? {
            if !self.is_followed_here(&request, subscription) {
                continue;
            }
            match request.remedy {
                Remedy::Retry => {
                    let retried = self.heal(view, &request.scope.scope, letters).await?;
                    letters.answer(&request, retried, self.clock.now()).await?;
                }
                Remedy::Skip { position } => {
                    letters.skip(&request, position, self.clock.now()).await?;
                }
            }
        }
        Ok(())
    }

    fn is_followed_here(&self, request: &HealingRequest, subscription: Option<&Subscription>) -> bool {
        let Some(stream) = request.scope.stream() else {
            return false;
        };
        match (&self.source, subscription) {
            // The only one there is, whether it follows or has stopped.
            (ProjectorSource::Log(_), _) => {
                let _ = stream;
                true
            }
            #[cfg(feature = "cluster")]
            (ProjectorSource::Groups(_), Some(subscription)) => subscription.owns(&stream),
            #[cfg(feature = "cluster")]
            (ProjectorSource::Groups(_), None) => false,
        }
    }
}
