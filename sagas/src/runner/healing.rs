//! Dead letters that people have asked to be tried again, or to be given up.

use std::time::Duration;

use database::DatabaseError;
use event_bus::{DeadLetter, DeadLetters, HealingRequest, Remedy, Retried};
use tokio::time::Instant;

use super::{Runner, Stop};
use crate::dispatch::{Cause, Failure, Stopped};
use crate::work;

/// Between two looks for requests, while something is parked: somebody may be waiting for the outcome.
const LOOK_WHILE_PARKED: Duration = Duration::from_secs(1);
/// The same while nothing is, as far as this process knows: another one may have parked it.
const LOOK_OTHERWISE: Duration = Duration::from_secs(5);

/// Why a request was not carried out.
enum Trouble {
    Store(DatabaseError),
    Stopped(Stopped),
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        Self::Store(error)
    }
}

impl Runner {
    /// Carries out what was asked, in the order in which it was asked: of events whose scope comes to this process, so
    /// that one that arrives meanwhile waits its turn; of timers and effects, which wait for nobody, whoever finds it.
    pub(super) async fn heal_asked(&mut self) -> Result<(), Stop> {
        let parked = !(self.letters.none_parked() && self.work_letters.none_parked());
        let pause = if parked { LOOK_WHILE_PARKED } else { LOOK_OTHERWISE };
        if self.looks.requests.elapsed() < pause {
            return Ok(());
        }
        self.looks.requests = Instant::now();
        for letters in [self.letters.clone(), self.work_letters.clone()] {
            let carried_out = match letters.asked_for().await {
                Ok(asked) if asked.is_empty() => continue,
                Ok(asked) => {
                    // What a letter undoes must not become durable before what it follows.
                    self.finish_store().await?;
                    self.carry_out(&letters, asked).await
                }
                Err(error) => Err(error.into()),
            };
            match carried_out {
                Ok(()) => {}
                Err(Trouble::Stopped(stopped)) => return Err(stopped.into()),
                // What was not carried out stays, and is found again.
                Err(Trouble::Store(error)) => {
                    tracing::debug!(%error, "what was asked of the dead letters was not carried out");
                }
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, letters: &DeadLetters, asked: Vec<HealingRequest>) -> Result<(), Trouble> {
        for request in asked {
            let of_work = letters.subscriber() == self.work_letters.subscriber();
            let stream = request.scope.stream();
            if !of_work && !stream.is_some_and(|stream| self.subscription.owns(&stream)) {
                continue;
            }
            match request.remedy {
                Remedy::Retry => {
                    let retried = if of_work {
                        self.revive(&request).await?
                    } else {
                        self.retry(&request).await?
                    };
                    letters.answer(&request, retried, self.clock.now()).await?;
                }
                Remedy::Skip { position } => {
                    letters.skip(&request, position, self.clock.now()).await?;
                }
            }
        }
        Ok(())
    }

    /// Handles the letters of a scope again, in order, up to the first that fails again.
    async fn retry(&mut self, request: &HealingRequest) -> Result<Retried, Trouble> {
        let scope = &request.scope.scope;
        let mut handled = 0;
        while let Some(letter) = self.letters.first(scope).await? {
            match self.handle_letter(&letter).await {
                Ok(()) => {}
                Err(Failure::Stopped(stopped)) => return Err(Trouble::Stopped(stopped)),
                Err(failure @ (Failure::Later(_) | Failure::Upgrade(_) | Failure::Unforeseen(_))) => {
                    let reason = failure.to_string();
                    self.letters.failed_again(&letter, reason.clone()).await?;
                    return Ok(Retried::StillParked { handled, reason });
                }
            }
            self.letters.resolved(&letter).await?;
            handled += 1;
        }
        Ok(Retried::Healed { handled })
    }

    /// A timer or an effect goes back to the worker; should it fail again, it comes back as a letter.
    async fn revive(&mut self, request: &HealingRequest) -> Result<Retried, Trouble> {
        let mut handled = 0;
        while let Some(letter) = self.work_letters.first(&request.scope.scope).await? {
            self.work
                .revive(&letter.event_id, &letter.event_type, self.clock.now())
                .await?;
            self.work_letters.resolved(&letter).await?;
            handled += 1;
        }
        Ok(Retried::Healed { handled })
    }

    /// What the event of a dead letter asks for, from beginning to end.
    async fn handle_letter(&mut self, letter: &DeadLetter) -> Result<(), Failure> {
        let unforeseen = |error: &dyn std::fmt::Display| Failure::Unforeseen(error.to_string());
        let recorded = work::read_event(&self.log, &letter.event_id)
            .await
            .map_err(|error| unforeseen(&error))?;
        let cause = Cause::from(&*recorded);
        for action in self.react(&recorded).await? {
            let Some(command) = self.note(&recorded, action) else {
                continue;
            };
            match self.dispatcher.run(&cause, command).await {
                Err(Failure::Later(_)) => self.changes.push(self.again_later(&recorded)),
                Err(failure) => {
                    // What was noted is noted again when the letter is.
                    self.changes.clear();
                    return Err(failure);
                }
                Ok(()) => {}
            }
        }
        let changes = std::mem::take(&mut self.changes);
        let stored = self
            .work
            .database()
            .write(move |session| work::apply(session, &changes, None).map(|_| ()));
        stored.await.map_err(|error: DatabaseError| unforeseen(&error))?;
        self.work.ring();
        Ok(())
    }
}
