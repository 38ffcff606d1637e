//! The projector: follows the stream and keeps the read models up to date.
//!
//! In the embedded profile one reader of the log feeds all views, in one transaction per batch. In the cluster each
//! generation of a view is a consumer group of its own (`<prefix>.<view>.g<N>`), which reads the topics of the view's
//! sources only. That reads an event about twice, since most topics feed one or two views. It buys that a view that is
//! slow or stuck holds up no other; that a new generation is one more group which begins at the beginning, is fed beside
//! the old one and is dropped alone, so that a rebuild is no special case; and that a view's progress is its
//! group's, with nothing to tell apart when a batch is stored.

mod fold;
mod hot;
mod poison;
mod prepared;
mod runner;
#[cfg(test)]
mod tests;
mod worker;

#[cfg(feature = "cluster")]
use event_bus::StreamSource;
use event_bus::{DeadLetters, Retried};
use event_schemas::{Clock, Position};
use event_store::Log;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ViewError;
#[cfg(feature = "cluster")]
use crate::views::VIEW_NAMES;
use crate::views::Views;
pub(crate) use poison::has;
pub(crate) use runner::subscriber;
use worker::{Retry, Worker};

/// Requests for a projector that wait.
const REQUESTS: usize = 16;

/// Where a projector has its events from.
#[derive(Clone)]
pub enum ProjectorSource {
    /// The log itself, for all views at once: the embedded profile.
    Log(Log),
    /// Consumer groups, one per view: the cluster. Several projectors share the work.
    #[cfg(feature = "cluster")]
    Groups(StreamSource),
}

impl From<&Log> for ProjectorSource {
    fn from(log: &Log) -> Self {
        Self::Log(log.clone())
    }
}

#[cfg(feature = "cluster")]
impl From<StreamSource> for ProjectorSource {
    fn from(source: StreamSource) -> Self {
        Self::Groups(source)
    }
}

impl ProjectorSource {
    fn log(&self) -> &Log {
        match self {
            Self::Log(log) => log,
            #[cfg(feature = "cluster")]
            Self::Groups(source) => &source.log,
        }
    }

    /// What each worker folds; none: all views.
    fn shares(&self) -> Vec<Option<&'static str>> {
        match self {
            Self::Log(_) => vec![None],
            #[cfg(feature = "cluster")]
            Self::Groups(_) => VIEW_NAMES.into_iter().map(Some).collect(),
        }
    }
}

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

    /// The one to tell of when there are several.
    const fn gravity(&self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Stopped => 1,
            Self::Retrying(_) => 2,
            Self::Upgrade(_) => 3,
            Self::Failed(_) => 4,
        }
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
    head: watch::Receiver<Position>,
    workers: Vec<Handle>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

/// A worker, from outside.
#[derive(Debug)]
struct Handle {
    state: watch::Receiver<ProjectorState>,
    /// Those of its views.
    letters: Vec<(&'static str, DeadLetters)>,
    requests: mpsc::Sender<Retry>,
}

impl Projector {
    /// Starts folding the stream into `views`, until `cancel`.
    pub async fn start(
        source: impl Into<ProjectorSource>,
        views: &Views,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Result<Self, ViewError> {
        let source = source.into();
        let tracker = TaskTracker::new();
        let mut workers = Vec::new();
        let mut ready = Vec::new();
        for share in source.shares() {
            let runner = runner::Runner::open(views, share, clock.clone()).await?;
            let letters = runner.letters();
            let (state_sender, state) = watch::channel(ProjectorState::Running);
            let (requests, received) = mpsc::channel(REQUESTS);
            ready.push(Worker {
                source: source.clone(),
                share,
                views: views.clone(),
                runner,
                clock: clock.clone(),
                state: state_sender,
                requests: received,
                cancel: cancel.clone(),
                measure_at: Instant::now(),
                #[cfg(feature = "cluster")]
                letters_at: Instant::now(),
            });
            workers.push(Handle {
                state,
                letters,
                requests,
            });
        }
        for worker in ready {
            tracker.spawn(worker.run());
        }
        tracker.close();
        Ok(Self {
            views: views.clone(),
            head: source.log().watch(),
            workers,
            cancel,
            tracker,
        })
    }

    /// How it is doing: the worst that any view has to tell.
    pub fn state(&self) -> ProjectorState {
        let states = self.workers.iter().map(|worker| {
            let state = worker.state.borrow().clone();
            // The worker says how it ended; one that is gone without a word has panicked.
            if state.is_ready() && worker.state.has_changed().is_err() {
                return ProjectorState::Failed("the projector panicked".to_owned());
            }
            state
        });
        states
            .max_by_key(ProjectorState::gravity)
            .unwrap_or(ProjectorState::Stopped)
    }

    /// How far this projector has brought each view. In the cluster others may have brought it further.
    pub fn status(&self) -> Vec<ViewStatus> {
        let head = *self.head.borrow();
        let status = self
            .views
            .known_progress()
            .into_iter()
            .map(|progress| ViewStatus {
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
        self.letters(view).map(|(_, _, letters)| letters)
    }

    fn letters(&self, view: &str) -> Option<(&Handle, &'static str, &DeadLetters)> {
        self.workers.iter().find_map(|worker| {
            let mut letters = worker.letters.iter();
            let (name, letters) = letters.find(|(name, _)| *name == view)?;
            Some((worker, *name, letters))
        })
    }

    /// Folds the dead letters of `scope` (a stream, such as `order/<id>`) into `view`, in order, between two batches.
    pub async fn retry(&self, view: &str, scope: &str) -> Result<Retried, DeadLetterError> {
        let known = self.letters(view);
        let (worker, view, _) = known.ok_or_else(|| DeadLetterError::UnknownView(view.to_owned()))?;
        let (answer, answered) = oneshot::channel();
        let request = Retry {
            view,
            scope: scope.to_owned(),
            answer,
        };
        worker
            .requests
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
