//! Dead letters that someone has asked to be tried again, or to be given up.

use database::DatabaseError;
use event_bus::{DeadLetter, Retried};

use super::{Request, Runner, Stop};
use crate::dispatch::{Cause, Failure};
use crate::work;

impl Runner {
    pub(super) async fn answer(&mut self, request: Request) -> Result<(), Stop> {
        // Whoever asked may have gone.
        match request {
            Request::Retry { scope, reply } => {
                let _ = reply.send(self.retry(&scope).await);
            }
            Request::Skip { scope, reply } => {
                let _ = reply.send(self.letters.skip(&scope).await);
            }
        }
        Ok(())
    }

    async fn retry(&mut self, scope: &str) -> Result<Retried, DatabaseError> {
        let mut handled = 0;
        while let Some(letter) = self.letters.first(scope).await? {
            if let Err(failure) = self.handle_letter(&letter).await {
                let reason = failure.to_string();
                self.letters.failed_again(&letter, reason.clone()).await?;
                return Ok(Retried::StillParked { handled, reason });
            }
            self.letters.resolved(&letter).await?;
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
                outcome => outcome?,
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
