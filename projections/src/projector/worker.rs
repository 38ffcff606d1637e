//! One follower of the stream, with the views that it feeds.

use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use event_bus::{Batch, BusError, Checkpoint, DeadLetter, DeadLetters, Retried, Subscription};
#[cfg(feature = "cluster")]
use event_bus::{Positions, StreamSource};
use event_schemas::{Clock, RecordedEvent, Version};
use event_store::{Log, traced};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::runner::{ProjectError, Runner};
use super::{ProjectorSource, ProjectorState};
use crate::error::ViewError;
use crate::views::Views;

/// Events folded and stored together: enough to write a hot document once for hundreds of events, few enough that a
/// batch is visible soon.
pub(super) const MAX_BATCH: usize = 2_000;

/// Events that are still handled together where the store does not bear more: as many as it takes to get anywhere.
const MIN_BATCH: usize = 50;

/// The rest after a batch that was not full: this many times as long as it took, at most the latter. Under load, a document
/// that changes again and again is then folded and written once for several of its events, and views leave the processor
/// and the store to those who sell; with little to do, nobody notices.
const REST_TIMES: u32 = 4;
const REST_MOST: Duration = Duration::from_millis(100);

/// How long a broker may gather events for a view: without it, it answers each view for nearly each event, and all of them
/// together took it longer than all else.
#[cfg(feature = "cluster")]
const GATHER: Duration = Duration::from_millis(50);

/// How long a projector that is idle sleeps before it looks around.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// Between two looks at the lag.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at dead letters that another process may have parked or healed.
#[cfg(feature = "cluster")]
const LETTERS_EVERY: Duration = Duration::from_secs(5);

/// Between two tries of a batch that could not be stored; doubles up to the latter.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Asks for dead letters to be folded.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) view: &'static str,
    pub(super) scope: String,
    pub(super) answer: oneshot::Sender<Result<Retried, ViewError>>,
}

pub(super) struct Worker {
    pub(super) source: ProjectorSource,
    /// Whose generation it feeds.
    pub(super) view: &'static str,
    pub(super) generation: u32,
    pub(super) views: Views,
    pub(super) runner: Runner,
    pub(super) clock: Clock,
    pub(super) state: watch::Sender<ProjectorState>,
    pub(super) requests: mpsc::Receiver<Retry>,
    /// Events that are handled together. Halved whenever a batch could not be stored, so that a store that cannot write so much
    /// in the time it has is asked for less, instead of the same again for ever; it grows again with batches that were full.
    pub(super) batch: usize,
    /// When requests of other processes were looked for.
    pub(super) looked_at: Instant,
    pub(super) cancel: CancellationToken,
    /// When the lag is to be measured again, at the latest.
    pub(super) measure_at: Instant,
    /// When the dead letters are to be looked at again.
    #[cfg(feature = "cluster")]
    pub(super) letters_at: Instant,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let mut subscription = None;
        loop {
            let Err(error) = self.follow(&mut subscription, &mut pause).await else {
                break;
            };
            if let Some(subscription) = &mut subscription {
                self.measure(subscription).await;
            }
            let error = match self.still_there().await {
                Err(gone) => ProjectError::View(gone),
                Ok(true) => error,
                // Nobody reads it: somebody dropped it because it is of no use any more.
                Ok(false) => break,
            };
            match (&error, &mut subscription) {
                // As a restart would, but without leaving the group.
                (ProjectError::View(_) | ProjectError::Contended | ProjectError::Panicked, Some(open)) => {
                    self.batch = (self.batch / 2).max(MIN_BATCH);
                    open.rewind();
                }
                _ => subscription = None,
            }
            let text = error.to_string();
            let state = match &error {
                ProjectError::Bus(BusError::Upgrade { .. }) => ProjectorState::Upgrade(text),
                // Somebody has to decide what the views are to follow.
                ProjectError::Bus(
                    BusError::ForeignCheckpoint { .. }
                    | BusError::ForeignRecord { .. }
                    | BusError::BeyondHead { .. }
                    | BusError::Partitions { .. },
                ) => ProjectorState::Failed(text),
                // The process has to begin again.
                ProjectError::View(error) if error.is_gone() => ProjectorState::Failed(text),
                ProjectError::Bus(
                    BusError::Kafka(_) | BusError::Positions(_) | BusError::Log(_) | BusError::Store(_),
                )
                | ProjectError::View(_)
                | ProjectError::Contended
                | ProjectError::Panicked => ProjectorState::Retrying(text),
            };
            tracing::error!(%error, view = self.view, "the projector cannot go on");
            let ready = state.is_ready();
            self.state.send_replace(state);
            if !ready {
                self.answer_requests().await;
                return;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MOST),
            }
        }
        if let Some(subscription) = subscription {
            // Others are given its partitions now, and not only when it is missed.
            subscription.close().await;
        }
        self.state.send_replace(ProjectorState::Stopped);
    }

    /// Whether the generation is still there; an error if it is gone although it is read.
    async fn still_there(&self) -> Result<bool, ViewError> {
        match self.runner.still_there().await {
            Err(gone) if gone.is_gone() => self.views.still_there().await.map_or_else(
                |error| if error.is_gone() { Err(error) } else { Ok(true) },
                |()| Ok(false),
            ),
            // Nothing is known of a store that does not answer.
            Ok(()) | Err(_) => Ok(true),
        }
    }

    async fn subscribe(&self) -> Result<Subscription, BusError> {
        let (subscriber, types) = self.runner.subscriber();
        match &self.source {
            ProjectorSource::Log(log) => {
                let checkpoint = Checkpoint::at(self.views.log(), self.runner.position());
                Subscription::resume_at_of(log, &subscriber, types, Some(checkpoint)).await
            }
            #[cfg(feature = "cluster")]
            ProjectorSource::Groups(source) => {
                let (view, generation) = (self.view, self.generation);
                let views = self.views.clone();
                let positions = Positions::callers(move || {
                    let views = views.clone();
                    async move { views.stored_progress(view, generation).await }
                });
                let source = StreamSource {
                    gather: GATHER,
                    ..source.clone()
                };
                Subscription::kafka_of(&source, &subscriber, types, positions).await
            }
        }
    }

    /// Follows the stream until cancelled.
    async fn follow(
        &mut self,
        subscription: &mut Option<Subscription>,
        pause: &mut Duration,
    ) -> Result<(), ProjectError> {
        let subscription = match subscription {
            Some(open) => open,
            none => none.insert(self.subscribe().await?),
        };
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(()),
                Some(retry) = self.requests.recv() => self.retry(retry).await,
                batch = subscription.next_batch(self.batch, IDLE_WAIT) => {
                    let batch = batch?;
                    if batch.is_empty() {
                        self.idle(subscription).await?;
                        continue;
                    }
                    let begun = Instant::now();
                    self.handle(&batch).await?;
                    subscription.ack(&batch).await?;
                    let rest = (begun.elapsed() * REST_TIMES).min(REST_MOST);
                    self.heal_asked(Some(subscription)).await;
                    if self.measure_at <= Instant::now() {
                        self.measure(subscription).await;
                    }
                    *pause = RETRY_FIRST;
                    self.state.send_if_modified(|state| {
                        let changed = *state != ProjectorState::Running;
                        *state = ProjectorState::Running;
                        changed
                    });
                    if batch.is_full() {
                        self.batch = (self.batch + self.batch / 8).min(MAX_BATCH);
                    } else {
                        tokio::select! {
                            () = self.cancel.cancelled() => return Ok(()),
                            () = tokio::time::sleep(rest) => {}
                        }
                    }
                }
            }
        }
    }

    async fn handle(&mut self, batch: &Batch) -> Result<(), ProjectError> {
        #[cfg(feature = "cluster")]
        if batch.reassigned() {
            self.runner.reassigned().await?;
        }
        let spans: Vec<Span> = batch.events().filter_map(|event| span(event)).collect();
        self.runner
            .handle(batch.entries.clone(), batch.checkpoint().clone())
            .await?;
        drop(spans);
        metrics::histogram!("omisys_projection_batch_events").record(batch.entries.len() as f64);
        Ok(())
    }

    /// Nothing has come for a while.
    async fn idle(&mut self, subscription: &mut Subscription) -> Result<(), ProjectError> {
        self.measure(subscription).await;
        self.heal_asked(Some(subscription)).await;
        #[cfg(feature = "cluster")]
        {
            self.runner.idle().await;
            if self.letters_at <= Instant::now() {
                self.letters_at = Instant::now() + LETTERS_EVERY;
                if let Err(error) = self.runner.reassigned().await {
                    tracing::debug!(%error, view = self.view, "the dead letters cannot be looked at");
                }
            }
        }
        match self.runner.still_there().await {
            Err(error) if error.is_gone() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Tells how far the view is behind, if this generation is the one that is read.
    async fn measure(&mut self, subscription: &mut Subscription) {
        self.measure_at = Instant::now() + MEASURE_EVERY;
        if !self.views.is_read(self.view, self.generation) {
            return;
        }
        let lag = match subscription.lag(self.clock.now()).await {
            Ok(lag) => lag,
            Err(error) => {
                tracing::debug!(%error, view = self.view, "the lag cannot be measured");
                return;
            }
        };
        for progress in self.runner.progress() {
            metrics::gauge!("omisys_projection_lag_positions", "view" => progress.view)
                .set(lag.positions as f64);
            metrics::gauge!("omisys_projection_lag_seconds", "view" => progress.view).set(lag.seconds);
        }
    }

    /// Answers what can still be answered while the stream cannot be followed.
    async fn answer_requests(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(retry) = self.requests.recv() => self.retry(retry).await,
                () = tokio::time::sleep(IDLE_WAIT) => self.heal_asked(None).await,
            }
        }
    }

    async fn retry(&mut self, Retry { view, scope, answer }: Retry) {
        let letters = self.runner.letters().into_iter().find(|(name, _)| *name == view);
        let Some((_, letters)) = letters else { return };
        let retried = self.heal(view, &scope, &letters).await;
        // Whoever asked may have given up.
        let _ = answer.send(retried.map_err(ViewError::from));
    }

    /// Folds the letters of `scope` in order, up to the first that fails again.
    pub(super) async fn heal(
        &mut self,
        view: &str,
        scope: &str,
        letters: &DeadLetters,
    ) -> Result<Retried, DatabaseError> {
        let mut handled = 0;
        while let Some(first) = letters.first(scope).await? {
            if let Err(reason) = redo(self.source.log(), &mut self.runner, view, &first).await {
                letters.failed_again(&first, reason.clone()).await?;
                return Ok(Retried::StillParked { handled, reason });
            }
            // A crash before this folds the event once more, which changes nothing.
            letters.resolved(&first).await?;
            handled += 1;
        }
        Ok(Retried::Healed { handled })
    }
}

async fn redo(log: &Log, runner: &mut Runner, view: &str, letter: &DeadLetter) -> Result<(), String> {
    let version = letter.event_id.version;
    let before = Version(version.0.saturating_sub(1));
    let events = log
        .read_stream(&letter.event_id.stream, before, Some(version))
        .await;
    let event = events.map_err(|error| error.to_string())?.into_iter().next();
    let event = event.ok_or_else(|| "the log does not hold the event".to_owned())?;
    runner.redo(view, Arc::clone(&event)).await
}

/// The way of an event into the read models, if its trace is recorded.
fn span(event: &RecordedEvent) -> Option<Span> {
    let traceparent = traced(event.metadata.traceparent.as_deref())?;
    let position = event.position.0;
    Some(tracing::info_span!(
        "project",
        traceparent,
        position,
        event = event.event.name()
    ))
}
