//! The projector: follows the stream and keeps the read models up to date.
//!
//! Each generation of a view is a subscriber of its own, `<view>.g<N>`, fed until it is dropped. In the embedded profile it
//! tails the log; in the cluster it is a consumer group (`<prefix>.<view>.g<N>`), which reads the topics of the view's
//! sources only. That reads an event about twice, since most topics feed one or two views. It buys that a view that is
//! slow or stuck, or waits for an upgrade, holds up no other; that a new generation is one more subscriber which is fed
//! beside the old one and is dropped alone, so that a rebuild is no special case; and that a view's progress is its
//! subscriber's, with nothing to tell apart when a batch is stored.

mod fold;
mod healing;
mod hot;
mod poison;
mod prepared;
mod runner;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
use crate::reader::ViewProgress;
use crate::store::GenerationRow;
use crate::views::{Views, schema_of};
pub(crate) use poison::has;
pub(crate) use runner::{ProjectError, Runner, subscriber};
use worker::{Retry, Worker};

/// Requests for a projector that wait.
const REQUESTS: usize = 16;

/// Between two looks at which generations there are.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a projector has its events from.
#[derive(Clone)]
pub enum ProjectorSource {
    /// The log itself: the embedded profile.
    Log(Log),
    /// Consumer groups: the cluster. Several projectors share the work.
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
    shared: Arc<Shared>,
}

/// What the projector and the task that looks after its workers share.
struct Shared {
    source: ProjectorSource,
    views: Views,
    clock: Clock,
    head: watch::Receiver<Position>,
    /// By view and generation.
    workers: Mutex<BTreeMap<(&'static str, u32), Handle>>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// A worker, from outside.
#[derive(Debug, Clone)]
struct Handle {
    state: watch::Receiver<ProjectorState>,
    letters: DeadLetters,
    requests: mpsc::Sender<Retry>,
}

impl Projector {
    /// Starts folding the stream into `views`, all generations of this version that are to be fed, until `cancel`.
    pub async fn start(
        source: impl Into<ProjectorSource>,
        views: &Views,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Result<Self, ViewError> {
        let source = source.into();
        let shared = Arc::new(Shared {
            head: source.log().watch(),
            source,
            views: views.clone(),
            clock,
            workers: Mutex::default(),
            cancel,
            tracker: TaskTracker::new(),
        });
        shared.look().await?;
        shared.tracker.spawn(Arc::clone(&shared).look_after());
        Ok(Self { shared })
    }

    /// How it is doing: the worst that any view that is read has to tell.
    pub fn state(&self) -> ProjectorState {
        let read = self.shared.views.known_progress().into_iter();
        let handles = read.filter_map(|progress| self.shared.handle(progress.view, progress.generation));
        let states = handles.map(|worker| {
            let state = worker.state.borrow().clone();
            // The worker says how it ended; one that is gone without a word has panicked.
            if state.is_ready() && worker.state.has_changed().is_err() {
                return ProjectorState::Failed("the projector panicked".to_owned());
            }
            state
        });
        let worst = states.max_by_key(ProjectorState::gravity);
        worst.unwrap_or_else(|| {
            if self.shared.cancel.is_cancelled() {
                ProjectorState::Stopped
            } else {
                // What is read is of another version: it stays as it is until it has been folded again.
                ProjectorState::Running
            }
        })
    }

    /// How far this projector has brought each view. In the cluster others may have brought it further.
    pub fn status(&self) -> Vec<ViewStatus> {
        let head = *self.shared.head.borrow();
        let status = self
            .shared
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

    /// The dead letters of `view`, as it is read: to list, show and skip. Retry through [`Projector::retry`].
    pub fn dead_letters(&self, view: &str) -> Option<DeadLetters> {
        self.read(view).map(|(_, handle)| handle.letters)
    }

    /// The worker that feeds the generation of `view` that is read.
    fn read(&self, view: &str) -> Option<(&'static str, Handle)> {
        let progress = self.shared.views.known_progress().into_iter();
        let read = progress.filter(|progress| progress.view == view);
        let mut handles = read.filter_map(|progress| {
            let handle = self.shared.handle(progress.view, progress.generation)?;
            Some((progress.view, handle))
        });
        handles.next()
    }

    /// Folds the dead letters of `scope` (a stream, such as `order/<id>`) into `view`, in order, between two batches.
    pub async fn retry(&self, view: &str, scope: &str) -> Result<Retried, DeadLetterError> {
        let known = self.read(view);
        let (view, worker) = known.ok_or_else(|| DeadLetterError::UnknownView(view.to_owned()))?;
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

    /// Stops after the batches under way and waits for them.
    pub async fn stop(&self) {
        self.shared.cancel.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }
}

impl Shared {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<(&'static str, u32), Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, view: &'static str, generation: u32) -> Option<Handle> {
        self.workers().get(&(view, generation)).cloned()
    }

    /// Sees to it that what is to be fed is, as generations come and go.
    async fn look_after(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "no look at the generations");
            }
        }
    }

    /// Starts a worker for each generation that has none and is to be fed by this version, and forgets those of
    /// generations that are gone: such a worker ends by itself.
    async fn look(&self) -> Result<(), ViewError> {
        let rows = self.views.rows().await?;
        let read = self.views.known_progress();
        self.workers().retain(|(view, generation), _| {
            // What is read and gone has to be told of.
            let is_read =
                |progress: &ViewProgress| progress.view == *view && progress.generation == *generation;
            let is_there = |row: &GenerationRow| row.view == *view && row.generation == *generation;
            read.iter().any(is_read) || rows.iter().any(is_there)
        });
        for row in rows.into_iter().filter(|row| row.stage.is_fed()) {
            let Some(schema) = schema_of(&row.view).filter(|schema| row.is_of(schema, self.views.log()))
            else {
                continue;
            };
            let key = (schema.name, row.generation);
            if self.workers().contains_key(&key) {
                continue;
            }
            let handle = self.start(schema.name, row).await?;
            self.workers().insert(key, handle);
        }
        Ok(())
    }

    async fn start(&self, view: &'static str, row: GenerationRow) -> Result<Handle, ViewError> {
        let generation = row.generation;
        let runner = Runner::open(&self.views, vec![row], self.clock.clone()).await?;
        let (state_sender, state) = watch::channel(ProjectorState::Running);
        let (requests, received) = mpsc::channel(REQUESTS);
        let letters = runner.letters().into_iter().next();
        let (_, letters) = letters.ok_or(ViewError::Gone { view, generation })?;
        let worker = Worker {
            source: self.source.clone(),
            view,
            generation,
            views: self.views.clone(),
            runner,
            clock: self.clock.clone(),
            state: state_sender,
            requests: received,
            batch: worker::MAX_BATCH,
            looked_at: Instant::now(),
            cancel: self.cancel.child_token(),
            measure_at: Instant::now(),
            #[cfg(feature = "cluster")]
            letters_at: Instant::now(),
        };
        self.tracker.spawn(worker.run());
        Ok(Handle {
            state,
            letters,
            requests,
        })
    }
}
