//! Folding a view from the log again, beside what is read, and reading the new documents once they are as good.
//!
//! 1. A new generation is folded from the log itself, much at once ([`bulk`]), up to near the head.
//! 2. It catches up in batches, as any projector would, is indexed, and from then on projectors feed it.
//! 3. Old and new are compared, document by document, where both have seen the same ([`compare`]). A difference means that
//!    one of them is wrong, so somebody has to look; unless the view has another version now, and is to differ.
//! 4. Once the new one has everything that the old one has, it serves. Each process that reads switches for itself, in a
//!    way that takes nothing back ([`crate::reader::ViewReader::switch`]). The old one stays, and is fed, until it is dropped.
//!
//! Nothing of this calls a provider or gives a command: views are folds. A build that was killed at any line is taken up
//! where it had stored everything, by whoever holds the lease on it next.

mod bulk;
mod compare;
mod standing;

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use event_bus::{BusError, Checkpoint, DeadLetters, Subscription};
use event_schemas::{Clock, Position, Timestamp};
use event_store::{Log, ReadError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub use compare::{Comparison, DocumentDifference, FieldDifference};
pub use standing::{DropError, GenerationStatus, Rebuilds};

use crate::coverage::Coverage;
use crate::error::ViewError;
use crate::projector::{ProjectError, Runner};
use crate::reader::{Generation, ViewReader, furthest};
use crate::store::{GenerationRow, Lease, Stage, ViewSchema, begun, choose};
use crate::view::View;
use crate::views::{Views, with_view};
use bulk::{Bulk, Limits, Stopped};

/// How near the head the fast way leads.
const CLOSE: u64 = 5_000;

/// Documents that did not stand side by side and are looked at again together.
const SETTLED_AT_ONCE: usize = 1_000;

/// Events that are folded and stored together while catching up.
const BATCH: usize = 2_000;

/// How often a batch is tried again.
const ATTEMPTS: u32 = 20;

/// How long nobody else may build what somebody is building, without a sign of life.
const LEASE: Duration = Duration::from_secs(15);
/// Between two signs of life.
const RENEW_EVERY: Duration = Duration::from_secs(4);

/// How long whoever feeds the old generation is waited for before documents are compared that did not stand side by side.
const SETTLE: Duration = Duration::from_secs(10);

/// How a view is rebuilt.
#[derive(Debug, Clone)]
pub struct RebuildOptions {
    /// Who does it, unlike anybody else: the lease on the build is in this name.
    pub holder: String,
    /// Bytes of documents that are kept in memory, about.
    pub memory_bytes: usize,
    /// Ranges of the log that are read, and shards that fold, at the same time.
    pub parallel: NonZeroUsize,
    /// Positions after which everything is stored and noted: what a kill costs at most.
    pub checkpoint_events: NonZeroU64,
    /// Whether the new generation is to be read although it differs from the old one.
    pub accept_differences: bool,
}

const CHECKPOINT: NonZeroU64 = NonZeroU64::new(50_000).unwrap();

impl RebuildOptions {
    /// What fits a small machine: a quarter of a gigabyte of documents, and all cores.
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            memory_bytes: 256 << 20,
            parallel: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            checkpoint_events: CHECKPOINT,
            accept_differences: false,
        }
    }
}

/// Where a rebuild stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildPhase {
    Folding,
    CatchingUp,
    Comparing,
    Switching,
}

impl RebuildPhase {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Folding => "folding",
            Self::CatchingUp => "catching up",
            Self::Comparing => "comparing",
            Self::Switching => "switching",
        }
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    pub generation: u32,
    pub phase: RebuildPhase,
    /// Everything up to here in the log is folded.
    pub position: Position,
    /// Where the log ended when it was last looked at.
    pub target: Position,
}

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    pub view: &'static str,
    pub generation: u32,
    /// Events of the log that this run went through.
    pub events: u64,
    pub documents: u64,
    /// None if there was nothing to compare with: the old generation is of another version of the view.
    pub comparison: Option<Comparison>,
    /// Whether it is read now. If not, it differs from what is read, and the old generation goes on.
    pub serving: bool,
}

/// Why a view could not be rebuilt. What had been stored of the new generation stays, to go on from.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("there is no view {0}")]
    UnknownView(String),
    /// Somebody else builds it, or did until a moment ago.
    #[error("it is being rebuilt by another process")]
    Busy,
    /// Somebody dropped it, or another rebuild was faster.
    #[error("a newer generation is read already, or this one was dropped")]
    Overtaken,
    #[error("the event at position {0} is newer than this binary: upgrade")]
    Upgrade(Position),
    #[error("folding panicked")]
    Panicked,
    /// Whatever feeds the new generation cannot go on.
    #[error("the new generation cannot be fed: {0}")]
    Feeding(String),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<ProjectError> for RebuildError {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Bus(BusError::Upgrade { position, .. }) => Self::Upgrade(position),
            ProjectError::View(error) => Self::View(error),
            ProjectError::Bus(_) | ProjectError::Contended | ProjectError::Panicked => {
                Self::Feeding(error.to_string())
            }
        }
    }
}

impl Views {
    /// Folds the view `name` from the log again and has the result read, without a read that fails or goes back meanwhile.
    /// Goes on with a generation that was begun, or was not read because it differs. `progress` is told how far it is.
    pub async fn rebuild(
        &self,
        log: &Log,
        name: &str,
        options: &RebuildOptions,
        clock: &Clock,
        progress: &watch::Sender<Option<RebuildProgress>>,
    ) -> Result<Rebuilt, RebuildError> {
        with_view!(self, name, |reader| {
            let rebuild = Rebuild {
                views: self,
                reader,
                log,
                options,
                clock,
                progress,
            };
            rebuild.run().await
        })
        .unwrap_or_else(|| Err(RebuildError::UnknownView(name.to_owned())))
    }
}

struct Rebuild<'r, V: View> {
    views: &'r Views,
    reader: &'r ViewReader<V>,
    log: &'r Log,
    options: &'r RebuildOptions,
    clock: &'r Clock,
    progress: &'r watch::Sender<Option<RebuildProgress>>,
}

impl<V: View> Rebuild<'_, V> {
    async fn run(&self) -> Result<Rebuilt, RebuildError> {
        let (schema, store, log) = (ViewSchema::of::<V>(), self.views.store(), self.views.log());
        let rows = self.views.rows().await?;
        let Some(serving) = choose(&rows, &schema, log) else {
            let generation = self.reader.generation();
            return Err(ViewError::Gone {
                view: V::NAME,
                generation,
            }
            .into());
        };
        let (row, resumed) = if let Some(row) = begun(&rows, &schema, log) {
            (row.clone(), row.stage != Stage::Requested)
        } else {
            let begin = store.begin(schema, log, Stage::Building, Some(self.lease()));
            (begin.await?, false)
        };
        let alive = self.hold(&row).await?;
        tracing::info!(
            view = V::NAME,
            generation = row.generation,
            resumed,
            "folded from the log"
        );
        let rebuilt = self.rebuild(&row, serving, resumed).await;
        drop(alive);
        let stage = match &rebuilt {
            Ok(rebuilt) if rebuilt.serving => Some(Stage::Following),
            Ok(_) => Some(Stage::Blocked),
            Err(_) => None,
        };
        if let Err(error) = store.release(&row, &self.lease(), stage).await {
            tracing::debug!(%error, "the lease ends by itself");
        }
        rebuilt
    }

    async fn rebuild(
        &self,
        row: &GenerationRow,
        serving: &GenerationRow,
        resumed: bool,
    ) -> Result<Rebuilt, RebuildError> {
        let old = self.views.generation(self.reader, serving);
        let new = self.views.generation(self.reader, row);
        let mut feeder = if row.stage.is_fed() {
            Feeder::open(self.views, row, self.log, self.clock).await?
        } else {
            self.build(row, &new, resumed).await?
        };
        let comparison = if old.table.outdated {
            None
        } else {
            Some(self.compare(&old, &new, &mut feeder).await?)
        };
        let equal = comparison.as_ref().is_none_or(Comparison::equal);
        let serving = equal || self.options.accept_differences;
        if serving {
            self.switch(row, &old, &mut feeder).await?;
        }
        Ok(Rebuilt {
            view: V::NAME,
            generation: row.generation,
            events: feeder.position().0 - row.reached.position().0,
            documents: self.views.store().count(&new.table).await?,
            comparison,
            serving,
        })
    }

    /// Folds the log into `new` up to its head.
    async fn build(
        &self,
        row: &GenerationRow,
        new: &Arc<Generation<V>>,
        resumed: bool,
    ) -> Result<Feeder, RebuildError> {
        let mut folded = row.reached.position();
        let letters = DeadLetters::open(self.views.database(), &row.name())
            .await
            .map_err(ViewError::from)?;
        // The fast way knows nothing of what is parked, and would fold what comes behind it.
        if letters.none_parked() {
            let limits = Limits {
                memory_bytes: self.options.memory_bytes,
                parallel: self.options.parallel,
            };
            let mut bulk = Bulk::start(new, self.log, limits, resumed);
            let outcome = self.fold(row, &mut bulk, &mut folded).await;
            bulk.end().await;
            match outcome {
                // An event that does not fold: from here on as a projector does it, which knows what to do about that.
                Ok(()) | Err(Stopped::Poison) => {}
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
        new.reached_to(&Checkpoint::at(self.views.log(), folded));
        let mut feeder = Feeder::open(self.views, row, self.log, self.clock).await?;
        feeder
            .feed_to_head(|position, head| self.tell(row, RebuildPhase::CatchingUp, position, head))
            .await?;
        if !self.views.store().follow(&new.table, &self.lease()).await? {
            return Err(RebuildError::Busy);
        }
        Ok(feeder)
    }

    /// The fast way, from `folded` on: up to near the head. Everything up to `folded` is stored.
    async fn fold(
        &self,
        row: &GenerationRow,
        bulk: &mut Bulk<V>,
        folded: &mut Position,
    ) -> Result<(), Stopped> {
        let store = self.views.store();
        let mut target = self.log.head().await?;
        while *folded < target {
            let next = Position(target.0.min(folded.0 + self.options.checkpoint_events.get()));
            let step = |position| self.tell(row, RebuildPhase::Folding, position, target);
            bulk.fold(*folded, next, step).await?;
            bulk.store().await?;
            let lease = self.lease();
            if !store.build(row, &lease, self.clock.now(), next, target).await? {
                return Err(RebuildError::Busy.into());
            }
            *folded = next;
            if *folded == target {
                let head = self.log.head().await?;
                if head.0 - target.0 > CLOSE {
                    target = head;
                }
            }
        }
        Ok(())
    }

    async fn compare(
        &self,
        old: &Arc<Generation<V>>,
        new: &Arc<Generation<V>>,
        feeder: &mut Feeder,
    ) -> Result<Comparison, RebuildError> {
        feeder.feed_to_head(|_, _| ()).await?;
        self.progress.send_modify(|progress| {
            if let Some(progress) = progress {
                progress.phase = RebuildPhase::Comparing;
            }
        });
        let (mut found, unsettled) = compare::compare(old, new).await?;
        if !unsettled.is_empty() {
            // What either had when they were compared, if somebody feeds the old one.
            let head = feeder.feed_to_head(|_, _| ()).await?;
            let mut coverage = Coverage::stored(old, self.log);
            let covered = coverage.reach(head, Instant::now() + SETTLE).await?;
            for ids in unsettled.chunks(SETTLED_AT_ONCE) {
                let before = compare::load(old, ids).await?;
                // So the new one has all that the old one had by then.
                feeder.feed_to_head(|_, _| ()).await?;
                let after = compare::load(new, ids).await?;
                compare::settle::<V>(ids, before, after, covered, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Has `row` be read, once it has all that `old` has.
    async fn switch(
        &self,
        row: &GenerationRow,
        old: &Generation<V>,
        feeder: &mut Feeder,
    ) -> Result<(), RebuildError> {
        let store = self.views.store();
        for _ in 0..ATTEMPTS {
            feeder
                .feed_to_head(|position, head| self.tell(row, RebuildPhase::Switching, position, head))
                .await?;
            let reached = store.reached(&old.table, self.views.log()).await?;
            if feeder.position() >= furthest(&reached) {
                if !store.promote(row, self.clock.now()).await? {
                    return Err(RebuildError::Overtaken);
                }
                if let Err(error) = self.views.adopt(self.log).await {
                    // Whoever follows the generations does it soon.
                    tracing::debug!(%error, "not switched yet");
                }
                return Ok(());
            }
        }
        Err(RebuildError::Feeding("the old one is always ahead".to_owned()))
    }

    fn lease(&self) -> Lease {
        Lease {
            holder: self.options.holder.clone(),
            until: lease_end(self.clock.now()),
        }
    }

    /// Takes the lease on `row`, and keeps it until dropped.
    async fn hold(&self, row: &GenerationRow) -> Result<Alive, RebuildError> {
        const NO_NEWS: Position = Position(0);
        let store = self.views.store().clone();
        let now = self.clock.now();
        if !store.build(row, &self.lease(), now, NO_NEWS, NO_NEWS).await? {
            return Err(RebuildError::Busy);
        }
        let (row, clock, holder) = (row.clone(), self.clock.clone(), self.options.holder.clone());
        Ok(Alive(tokio::spawn(async move {
            loop {
                sleep(RENEW_EVERY).await;
                let now = clock.now();
                let lease = Lease {
                    holder: holder.clone(),
                    until: lease_end(now),
                };
                // If it is lost, whoever builds hears of it when it notes how far it is.
                let _ = store.build(&row, &lease, now, NO_NEWS, NO_NEWS).await;
            }
        })))
    }

    fn tell(&self, row: &GenerationRow, phase: RebuildPhase, position: Position, target: Position) {
        self.progress.send_replace(Some(RebuildProgress {
            generation: row.generation,
            phase,
            position,
            target,
        }));
    }
}

fn lease_end(now: Timestamp) -> Timestamp {
    now.checked_add(LEASE).unwrap_or(now)
}

/// Gives signs of life until dropped.
struct Alive(JoinHandle<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Feeds a generation from the log itself, whatever else does.
struct Feeder {
    log: Log,
    subscription: Subscription,
    runner: Runner,
}

impl Feeder {
    async fn open(
        views: &Views,
        row: &GenerationRow,
        log: &Log,
        clock: &Clock,
    ) -> Result<Self, RebuildError> {
        let runner = Runner::open(views, vec![row.clone()], clock.clone())
            .await
            .map_err(ViewError::from)?;
        let (subscriber, types) = runner.subscriber();
        let checkpoint = Checkpoint::at(views.log(), runner.position());
        let subscription = Subscription::resume_at_of(log, &subscriber, types, Some(checkpoint))
            .await
            .map_err(ProjectError::from)?;
        Ok(Self {
            log: log.clone(),
            subscription,
            runner,
        })
    }

    fn position(&self) -> Position {
        self.runner.position()
    }

    /// Goes on to where the log ends now. Returns that.
    async fn feed_to_head(
        &mut self,
        mut step: impl FnMut(Position, Position),
    ) -> Result<Position, RebuildError> {
        let head = self.log.head().await?;
        let mut failed = 0;
        while self.position() < head {
            step(self.position(), head);
            if let Err(error) = self.batch().await {
                failed += 1;
                let fatal = matches!(error, ProjectError::Bus(_));
                if fatal || failed == ATTEMPTS {
                    return Err(error.into());
                }
                self.subscription.rewind();
            }
        }
        step(self.position(), head);
        Ok(head)
    }

    async fn batch(&mut self) -> Result<(), ProjectError> {
        let batch = self
            .subscription
            .next_batch(BATCH, Duration::from_secs(1))
            .await?;
        self.runner
            .handle(batch.entries.clone(), batch.checkpoint().clone())
            .await?;
        Ok(self.subscription.ack(&batch).await?)
    }
}
