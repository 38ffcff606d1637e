//! Starting, watching and stopping the sagas.

use std::sync::Arc;

use database::{Database, DatabaseError, KeptTable};
use event_bus::{BusError, Checkpoints, DeadLetters, ParkedScope, Subscription};
#[cfg(feature = "cluster")]
use event_bus::{Positions, StreamSource};
use event_schemas::{Clock, Position};
use event_store::{Log, ReadError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::CommandSender;
use crate::config::SagasConfig;
use crate::dispatch::{Dispatcher, Stopped};
use crate::fault::Faults;
use crate::folds::Folds;
use crate::provider::Provider;
use crate::reconcile;
use crate::runner::{Runner, Stop, furthest};
use crate::secrets::{KEPT_SECRETS, SecretStore};
use crate::trouble::Trouble;
use crate::work::{Handoff, KEPT_EFFECTS, KEPT_TIMERS, Work};
use crate::worker::Worker;

/// The runner's name as a subscriber: of its checkpoint and of its dead letters.
pub const SUBSCRIBER: &str = "sagas";
/// The name under which timers and effects that failed are kept.
pub const WORK_SUBSCRIBER: &str = "sagas.work";

/// What of the sagas a backup keeps besides their checkpoint. The dead letters are those of policies, timers and effects:
/// read models are folded again, and park again what they cannot fold.
pub const KEPT: [KeptTable; 4] = [
    KEPT_TIMERS,
    KEPT_EFFECTS,
    KEPT_SECRETS,
    KeptTable {
        filter: Some("subscriber IN ('sagas', 'sagas.work')"),
        ..DeadLetters::KEPT
    },
];

/// What the sagas work with.
pub struct SagasDeps {
    pub log: Log,
    pub commands: CommandSender,
    pub stream: SagaStream,
    /// The log's database, for checkpoint, timers, effects, dead letters and secrets.
    pub database: Database,
    /// None: payments wait until there is one.
    pub provider: Option<Provider>,
    pub clock: Clock,
    pub config: SagasConfig,
    /// None outside tests.
    pub faults: Faults,
}

/// Where the sagas hear of events.
#[derive(Clone, Default)]
pub enum SagaStream {
    /// From the log. Every process hears of all of them.
    #[default]
    Log,
    /// From Kafka, in the consumer group of [`SUBSCRIBER`]: the processes share them.
    #[cfg(feature = "cluster")]
    Kafka(StreamSource),
}

impl SagaStream {
    async fn subscribe(self, log: &Log, checkpoints: Checkpoints) -> Result<Subscription, StartError> {
        // The runner stores its checkpoint itself, in one write with what it stands for.
        let subscriber = Arc::from(SUBSCRIBER);
        match self {
            Self::Log => {
                let checkpoint = checkpoints.load(&subscriber).await?;
                Ok(Subscription::resume_at(log, SUBSCRIBER, checkpoint).await?)
            }
            #[cfg(feature = "cluster")]
            Self::Kafka(source) => {
                let positions = Positions::callers(move || {
                    let (checkpoints, subscriber) = (checkpoints.clone(), Arc::clone(&subscriber));
                    async move { checkpoints.load(&subscriber).await }
                });
                Ok(Subscription::kafka(&source, SUBSCRIBER, positions).await?)
            }
        }
    }
}

/// Makes the tables of the sagas in `database`, or brings them up to date.
pub async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    Work::open(database).await?;
    SecretStore::open(database).await?;
    Checkpoints::open(database).await?;
    DeadLetters::open(database, SUBSCRIBER).await?;
    Ok(())
}

/// Why the sagas cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] DatabaseError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// How far the sagas are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagasStatus {
    /// Everything up to here has been handled, durably; of Kafka, the furthest event that was handled here.
    pub position: Position,
    /// The log's head; the difference is the lag in events.
    pub head: Position,
    /// Why the sagas have stopped; none while they run.
    pub stopped: Option<String>,
}

/// The sagas have stopped, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sagas have stopped: {0}")]
pub struct SagasStopped(pub String);

/// The running sagas. Dropping it stops them without waiting; see [`Sagas::stop`].
#[derive(Debug)]
pub struct Sagas {
    log: LogView,
    cancel: CancellationToken,
    tracker: TaskTracker,
    handled: watch::Receiver<Position>,
    progress: watch::Receiver<u64>,
    stopped: watch::Receiver<Option<Reason>>,
    retrying: watch::Receiver<Option<String>>,
    reconciling: watch::Receiver<Option<String>>,
    letters: DeadLetters,
    work_letters: DeadLetters,
    work: Work,
    clock: Clock,
    provider: Option<Provider>,
}

/// The log, for its head only.
struct LogView(Log);

impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

impl Sagas {
    /// Starts runner and worker on the current Tokio runtime, from where they stood.
    pub async fn start(deps: SagasDeps) -> Result<Self, StartError> {
        let SagasDeps {
            log,
            commands,
            stream,
            database,
            provider,
            clock,
            config,
            faults,
        } = deps;
        let work = Work::open(&database).await?;
        let secrets = SecretStore::open(&database).await?;
        let checkpoints = Checkpoints::open(&database).await?;
        let letters = DeadLetters::open(&database, SUBSCRIBER).await?;
        let work_letters = DeadLetters::open(&database, WORK_SUBSCRIBER).await?;
        let subscription = stream.subscribe(&log, checkpoints).await?;
        if config.exclusive {
            work.release_leases(clock.now()).await?;
        }
        let cancel = CancellationToken::new();
        let dispatcher = Dispatcher::new(commands, config.command_backoff, cancel.clone(), faults.clone());
        let (handoff, handed) = Handoff::new(config.work_in_flight.saturating_mul(4));
        let (position, done_up_to) = watch::channel(furthest(&subscription.acknowledged()));
        let (progress_sender, progress) = watch::channel(0);
        let (stopped_sender, stopped) = watch::channel(None);
        let (trouble, retrying) = Trouble::new();
        let (waiting, reconciling) = watch::channel(reconcile::due(log.identity()));
        let worker = Worker {
            work: work.clone(),
            log: log.clone(),
            dispatcher: dispatcher.clone(),
            provider: provider.clone(),
            secrets,
            letters: work_letters.clone(),
            config: config.clone(),
            clock: clock.clone(),
            faults: faults.clone(),
            progress: progress_sender,
        };
        let runner = Runner {
            subscription,
            log: log.clone(),
            dispatcher,
            folds: Folds::new(&log, config.cached_folds),
            letters: letters.clone(),
            work_letters: work_letters.clone(),
            work: work.clone(),
            handoff,
            handled: position,
            config,
            clock: clock.clone(),
            faults,
            cancel: cancel.clone(),
            in_flight: crate::runner::InFlight::default(),
            changes: Vec::new(),
            storing: None,
            trouble,
            looks: crate::runner::Looks::now(),
        };
        let tracker = TaskTracker::new();
        let ended = Ended {
            cancel: cancel.clone(),
            stopped: stopped_sender,
        };
        tracker.spawn(ended.clone().watch("runner", async move {
            runner.run().await.map_err(|stop| match stop {
                Stop::Stopped(Stopped::Cancelled) => None,
                stop => Some(Reason::from(&stop)),
            })
        }));
        let worker_cancel = cancel.clone();
        tracker.spawn(ended.watch("worker", async move {
            let ended = worker.reconcile_and_run(handed, &waiting, worker_cancel).await;
            ended.map_err(|stopped| match stopped {
                Stopped::Cancelled => None,
                stopped @ Stopped::Died(_) => Some(Reason::from(&Stop::Stopped(stopped))),
            })
        }));
        tracker.close();
        Ok(Self {
            log: LogView(log),
            cancel,
            tracker,
            handled: done_up_to,
            progress,
            stopped,
            retrying,
            reconciling,
            letters,
            work_letters,
            work,
            clock,
            provider,
        })
    }

    /// How far they are.
    pub async fn status(&self) -> Result<SagasStatus, ReadError> {
        let head = self.log.0.head().await?;
        let (position, stopped) = (*self.handled.borrow(), self.failure());
        Ok(SagasStatus {
            position,
            head,
            stopped,
        })
    }

    /// Stops taking new work, lets what is under way come to its end, and waits for that.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.wait().await;
    }

    /// Resolves when they have stopped by themselves or were stopped, with the reason if there is one.
    pub async fn stopped(&self) -> Option<String> {
        self.tracker.wait().await;
        self.failure()
    }

    /// As [`Sagas::stopped`], for whoever would end the process then, so that it is started again. Not for an event of a
    /// newer binary, which starting again does not mend: until the upgrade somebody has to say that it is needed.
    pub async fn ended(&self) -> Option<String> {
        let reason = self.stopped().await;
        let upgrade = self
            .stopped
            .borrow()
            .as_ref()
            .is_some_and(|reason| reason.upgrade);
        if upgrade {
            std::future::pending::<()>().await;
        }
        reason
    }

    /// Why they have stopped by themselves; none while they run.
    pub fn failure(&self) -> Option<String> {
        self.stopped.borrow().as_ref().map(|reason| reason.text.clone())
    }

    /// What the store refuses just now, while the sagas try it again; none if all is well.
    pub fn retrying(&self) -> Option<String> {
        self.retrying.borrow().clone()
    }

    /// What the sagas wait for before any timer or effect runs on a log that was restored or imported; none once open
    /// payments are reconciled with the provider.
    pub fn reconciling(&self) -> Option<String> {
        self.reconciling.borrow().clone()
    }

    /// Whether a dead letter waits for someone, of a policy or of a timer or effect. Asks no database.
    pub fn parked(&self) -> bool {
        !(self.letters.none_parked() && self.work_letters.none_parked())
    }

    /// Resolves once every event up to the head has been handled and no timer, effect or report is due: for tests and
    /// for an import that waits for its orders.
    pub async fn idle(&self) -> Result<(), SagasStopped> {
        let (mut handled, mut progress, mut stopped) =
            (self.handled.clone(), self.progress.clone(), self.stopped.clone());
        loop {
            handled.mark_unchanged();
            progress.mark_unchanged();
            if let Some(reason) = &*stopped.borrow_and_update() {
                return Err(SagasStopped(reason.text.clone()));
            }
            if self
                .is_idle()
                .await
                .map_err(|error| SagasStopped(error.to_string()))?
            {
                return Ok(());
            }
            tokio::select! {
                _ = handled.changed() => {}
                _ = progress.changed() => {}
                _ = stopped.changed() => {}
                // A row that failed and waits for its next try rings no bell.
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
        }
    }

    async fn is_idle(&self) -> Result<bool, ReadError> {
        if self.reconciling.borrow().is_some() {
            return Ok(false);
        }
        let head = self.log.0.head().await?;
        if *self.handled.borrow() < head || self.work.busy(self.clock.now()).await? {
            return Ok(false);
        }
        if let Some(provider) = &self.provider {
            let report_at = provider.next_report_at().await;
            if report_at.is_ok_and(|at| at.is_some_and(|at| at <= self.clock.now())) {
                return Ok(false);
            }
        }
        // What was finished meanwhile may have added events.
        Ok(self.log.0.head().await? == head && *self.handled.borrow() >= head)
    }

    /// What is parked: scopes of events whose policies failed, timers and effects.
    pub async fn dead_letters(&self) -> Result<Vec<ParkedScope>, DatabaseError> {
        let mut scopes = self.letters.list().await?;
        scopes.extend(self.work_letters.list().await?);
        Ok(scopes)
    }
}

impl Drop for Sagas {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Why the sagas have stopped.
#[derive(Debug, Clone)]
struct Reason {
    text: String,
    /// The log holds an event of a newer binary.
    upgrade: bool,
}

impl From<&Stop> for Reason {
    fn from(stop: &Stop) -> Self {
        Self {
            text: stop.to_string(),
            upgrade: matches!(stop, Stop::Bus(BusError::Upgrade { .. }) | Stop::Upgrade(_)),
        }
    }
}

/// What happens when one of the two tasks ends.
#[derive(Clone)]
struct Ended {
    cancel: CancellationToken,
    stopped: watch::Sender<Option<Reason>>,
}

impl Ended {
    /// Runner and worker live and die together: one without the other would look alive and do half.
    async fn watch(self, task: &'static str, run: impl Future<Output = Result<(), Option<Reason>>>) {
        let outcome = run.await;
        let reason = match outcome {
            Err(Some(reason)) => {
                tracing::error!(task, reason = reason.text, "the sagas have stopped");
                Some(reason)
            }
            Ok(()) | Err(None) => None,
        };
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none() && (reason.is_some() || !self.cancel.is_cancelled());
            if first {
                *stopped = Some(reason.unwrap_or_else(|| Reason {
                    text: format!("the {task} ended"),
                    upgrade: false,
                }));
            }
            first
        });
        self.cancel.cancel();
    }
}
