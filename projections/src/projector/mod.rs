//! The projector: tails the log and keeps the read models up to date.

mod fold;
mod hot;
mod runner;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use event_bus::{BusError, Checkpoint, DeadLetter, DeadLetters, Retried, Subscription};
use event_schemas::{Clock, Position, Version};
use event_store::Log;
use sqlite_file::SqliteError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ViewError;
use crate::views::Views;
pub(crate) use runner::subscriber;
use runner::{ProjectError, Runner};

/// Events folded and stored together: enough to write a hot document once for hundreds of events, few enough that a
/// batch is visible soon.
const MAX_BATCH: usize = 2_000;

/// How long an idle projector sleeps before it looks around.
const IDLE_WAIT: Duration = Duration::from_secs(30);

/// Between two tries of a batch that could not be stored; doubles up to the latter.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Requests for a projector that wait.
const REQUESTS: usize = 16;

/// The projector's name as a subscriber.
const SUBSCRIBER: &str = "projector";

/// How the projector is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectorState {
    /// It follows the log.
    Running,
    /// The last batch could not be stored; it is tried again. The text is for logs and those who may see them.
    Retrying(String),
    /// The log holds an event that a newer binary wrote: the views stay as they are until this one is upgraded.
    Upgrade(String),
    /// It cannot go on by itself.
    Failed(String),
    /// It was stopped.
    Stopped,
}

impl ProjectorState {
    /// Whether the read models follow the log, or will without anyone's help.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Running | Self::Retrying(_))
    }
}

/// How far one view has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    pub view: &'static str,
    pub generation: u32,
    pub position: Position,
    /// Events of the log that are not in it yet.
    pub lag: u64,
    /// Whether events of some aggregate wait in the dead letters.
    pub parked: bool,
}

/// Why a dead letter was not handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    #[error("there is no view {0}")]
    UnknownView(String),
    #[error("the projector is not running")]
    NotRunning,
    #[error(transparent)]
    View(#[from] ViewError),
}

/// A running projector. It goes on until it is cancelled or stopped, also when this handle is dropped.
#[derive(Debug)]
pub struct Projector {
    views: Views,
    state: watch::Receiver<ProjectorState>,
    head: watch::Receiver<Position>,
    letters: Vec<(&'static str, DeadLetters)>,
    requests: mpsc::Sender<Retry>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

struct Retry {
    view: &'static str,
    scope: String,
    answer: oneshot::Sender<Result<Retried, ViewError>>,
}

impl Projector {
    /// Starts folding `log` into `views`, until `cancel`.
    pub async fn start(
        log: &Log,
        views: &Views,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Result<Self, ViewError> {
        let runner = Runner::open(views, clock).await?;
        let letters = runner.letters();
        let (state_sender, state) = watch::channel(ProjectorState::Running);
        let (requests, received) = mpsc::channel(REQUESTS);
        let worker = Worker {
            log: log.clone(),
            views: views.clone(),
            runner,
            state: state_sender,
            requests: received,
            cancel: cancel.clone(),
        };
        let tracker = TaskTracker::new();
        tracker.spawn(worker.run());
        tracker.close();
        Ok(Self {
            views: views.clone(),
            state,
            head: log.watch(),
            letters,
            requests,
            cancel,
            tracker,
        })
    }

    /// How it is doing.
    pub fn state(&self) -> ProjectorState {
        let state = self.state.borrow().clone();
        // The worker says how it ended; one that is gone without a word has panicked.
        if state.is_ready() && self.state.has_changed().is_err() {
            return ProjectorState::Failed("the projector panicked".to_owned());
        }
        state
    }

    /// How far each view has come.
    pub fn status(&self) -> Vec<ViewStatus> {
        let head = *self.head.borrow();
        let status = self.views.progress().into_iter().map(|progress| ViewStatus {
            view: progress.view,
            generation: progress.generation,
            position: progress.position,
            lag: head.0.saturating_sub(progress.position.0),
            parked: self
                .dead_letters(progress.view)
                .is_some_and(|letters| !letters.none_parked()),
        });
        status.collect()
    }

    /// The dead letters of `view`: to list, show and skip. Retry through [`Projector::retry`].
    pub fn dead_letters(&self, view: &str) -> Option<&DeadLetters> {
        self.letters
            .iter()
            .find(|(name, _)| *name == view)
            .map(|(_, letters)| letters)
    }

    /// Folds the dead letters of `scope` (a stream, such as `order/<id>`) into `view`, in order, between two batches.
    pub async fn retry(&self, view: &str, scope: &str) -> Result<Retried, DeadLetterError> {
        let known = self.letters.iter().find(|(name, _)| *name == view);
        let (view, _) = known.ok_or_else(|| DeadLetterError::UnknownView(view.to_owned()))?;
        let (answer, answered) = oneshot::channel();
        let request = Retry {
            view,
            scope: scope.to_owned(),
            answer,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| DeadLetterError::NotRunning)?;
        Ok(answered.await.map_err(|_| DeadLetterError::NotRunning)??)
    }

    /// Stops after the batch under way and waits for it.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.wait().await;
    }
}

struct Worker {
    log: Log,
    views: Views,
    runner: Runner,
    state: watch::Sender<ProjectorState>,
    requests: mpsc::Receiver<Retry>,
    cancel: CancellationToken,
}

impl Worker {
    async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.follow(&mut pause).await {
                Ok(()) => break,
                Err(error) => {
                    let text = error.to_string();
                    let state = match &error {
                        ProjectError::Bus(BusError::Upgrade { .. }) => ProjectorState::Upgrade(text),
                        ProjectError::Bus(
                            BusError::ForeignCheckpoint { .. } | BusError::BeyondHead { .. },
                        ) => ProjectorState::Failed(text),
                        ProjectError::Bus(BusError::Log(_) | BusError::Store(_))
                        | ProjectError::View(_)
                        | ProjectError::Contended
                        | ProjectError::Panicked => ProjectorState::Retrying(text),
                    };
                    tracing::error!(%error, "the projector cannot go on");
                    let ready = state.is_ready();
                    self.state.send_replace(state);
                    if !ready {
                        self.idle().await;
                        return;
                    }
                    tokio::select! {
                        () = self.cancel.cancelled() => break,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MOST),
                    }
                }
            }
        }
        self.state.send_replace(ProjectorState::Stopped);
    }

    /// Follows the log until cancelled.
    async fn follow(&mut self, pause: &mut Duration) -> Result<(), ProjectError> {
        let checkpoint = Checkpoint::at(self.views.log(), self.runner.position());
        let mut subscription = Subscription::resume_at(&self.log, SUBSCRIBER, Some(checkpoint)).await?;
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(()),
                Some(retry) = self.requests.recv() => self.retry(retry).await,
                batch = subscription.next_batch(MAX_BATCH, IDLE_WAIT) => {
                    let batch = batch?;
                    if batch.is_empty() {
                        continue;
                    }
                    self.runner.handle(batch.entries.clone(), batch.checkpoint().clone()).await?;
                    subscription.ack(&batch).await?;
                    *pause = RETRY_FIRST;
                    self.state.send_if_modified(|state| {
                        let changed = *state != ProjectorState::Running;
                        *state = ProjectorState::Running;
                        changed
                    });
                }
            }
        }
    }

    /// Answers what can still be answered while the log cannot be followed.
    async fn idle(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(retry) = self.requests.recv() => self.retry(retry).await,
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
    async fn heal(&mut self, view: &str, scope: &str, letters: &DeadLetters) -> Result<Retried, SqliteError> {
        let mut handled = 0;
        while let Some(first) = letters.first(scope).await? {
            if let Err(reason) = redo(&self.log, &mut self.runner, view, &first).await {
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
