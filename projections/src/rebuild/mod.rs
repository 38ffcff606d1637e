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

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use event_bus::{BusError, Subscription};
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
use crate::store::{GenerationRow, Lease, Stage, ViewSchema, choose};
use crate::view::View;
use crate::views::{Views, with_view};
use bulk::{Bulk, Limits, Stopped};

/// Positions after which everything is stored and noted: what a kill costs at most.
const CHECKPOINT: u64 = 100_000;

/// How near the head the fast way leads.
const CLOSE: u64 = 5_000;

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
    /// Whether the new generation is to be read although it differs from the old one.
    pub accept_differences: bool,
}

impl RebuildOptions {
    /// What fits a small machine: a quarter of a gigabyte of documents, and all cores.
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            memory_bytes: 256 << 20,
            parallel: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
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
    /// Events of the log that are in it.
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

/// The generation to go on with rather than begin another: newer than the one that is read, and not read.
fn begun<'r>(
    rows: &'r [GenerationRow],
    schema: &ViewSchema,
    serving: &GenerationRow,
) -> Option<&'r GenerationRow> {
    rows.iter()
        .filter(|row| row.is_of(schema, serving.reached.log))
        .filter(|row| !row.serving && row.generation > serving.generation)
        .max_by_key(|row| row.generation)
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
        let (schema, store) = (ViewSchema::of::<V>(), self.views.store());
        let rows = self.views.rows().await?;
        let Some(serving) = choose(&rows, &schema, self.views.log()) else {
            let generation = self.reader.generation();
            return Err(ViewError::Gone {
                view: V::NAME,
                generation,
            }
            .into());
        };
        let (row, resumed) = match begun(&rows, &schema, serving) {
            Some(row) => (row.clone(), row.stage != Stage::Requested),
            None => {
                let lease = Some(self.lease());
                let row = store
                    .begin(schema, self.views.log(), Stage::Building, lease)
                    .await?;
                (row, false)
            }
        };
        tracing::info!(
            view = V::NAME,
            generation = row.generation,
            resumed,
            "folded from the log"
        );
        let old = self.views.generation(self.reader, serving);
        let new = self.views.generation(self.reader, &row);
        let mut feeder = match row.stage {
            Stage::Requested | Stage::Building => self.build(&row, &new, resumed).await?,
            Stage::Following => Feeder::open(self.views, &row, self.log, self.clock).await?,
        };
        let comparison = if old.table.outdated {
            None
        } else {
            Some(self.compare(&old, &new, &mut feeder).await?)
        };
        let equal = comparison.as_ref().is_none_or(Comparison::equal);
        let serving = equal || self.options.accept_differences;
        if serving {
            self.switch(&row, &old, &mut feeder).await?;
        }
        Ok(Rebuilt {
            view: V::NAME,
            generation: row.generation,
            events: feeder.position().0,
            documents: store.count(&new.table).await?,
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
        let store = self.views.store();
        let mut target = self.log.head().await?;
        let mut folded = row.reached.position();
        let mut alive = self.note(row, folded, target).await?;
        let limits = Limits {
            memory_bytes: self.options.memory_bytes,
            parallel: self.options.parallel,
        };
        let mut bulk = Bulk::start(new, self.log, limits, resumed);
        while folded < target {
            let next = Position(target.0.min(folded.0 + CHECKPOINT));
            let step = |position| self.tell(row, RebuildPhase::Folding, position, target);
            let outcome = async {
                bulk.fold(folded, next, step).await?;
                bulk.store().await
            };
            match outcome.await {
                Ok(()) => {}
                // From here on as a projector does it, which knows what to do about such an event.
                Err(Stopped::Poison) => break,
                Err(Stopped::Failed(error)) => return Err(error),
            }
            folded = next;
            alive = self.note(row, folded, target).await?;
            if folded == target {
                let head = self.log.head().await?;
                if head.0 - target.0 > CLOSE {
                    target = head;
                }
            }
        }
        drop(bulk);
        let checkpoint = event_bus::Checkpoint::at(self.views.log(), folded);
        new.reached_to(&checkpoint);
        let mut feeder = Feeder::open(self.views, row, self.log, self.clock).await?;
        feeder
            .to_head(|position, head| self.tell(row, RebuildPhase::CatchingUp, position, head))
            .await?;
        if !store.follow(&new.table, &self.lease()).await? {
            return Err(RebuildError::Busy);
        }
        drop(alive);
        Ok(feeder)
    }

    async fn compare(
        &self,
        old: &Arc<Generation<V>>,
        new: &Arc<Generation<V>>,
        feeder: &mut Feeder,
    ) -> Result<Comparison, RebuildError> {
        let head = feeder.to_head(|_, _| ()).await?;
        self.progress.send_modify(|progress| {
            if let Some(progress) = progress {
                progress.phase = RebuildPhase::Comparing;
            }
        });
        let (mut found, unsettled) = compare::compare(old, new).await?;
        if !unsettled.is_empty() {
            // Now that both have everything that either had when they were compared, if somebody feeds the old one.
            feeder.to_head(|_, _| ()).await?;
            let mut coverage = Coverage::stored(old, self.log);
            if coverage.reach(head, Instant::now() + SETTLE).await? {
                compare::settle(old, new, unsettled, &mut found).await?;
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
                .to_head(|position, head| self.tell(row, RebuildPhase::Switching, position, head))
                .await?;
            let reached = store.reached(&old.table, self.views.log()).await?;
            if feeder.position() >= furthest(&reached) {
                store.promote(row).await?;
                self.views.adopt(self.log).await?;
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

    /// Notes how far the build is, and keeps the lease on it until dropped.
    async fn note(
        &self,
        row: &GenerationRow,
        folded: Position,
        target: Position,
    ) -> Result<Alive, RebuildError> {
        let store = self.views.store().clone();
        if !store
            .build(row, &self.lease(), self.clock.now(), folded, target)
            .await?
        {
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
                // If it is lost, the next note says so.
                let _ = store.build(&row, &lease, now, folded, target).await;
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
        let checkpoint = event_bus::Checkpoint::at(views.log(), runner.position());
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
    async fn to_head(&mut self, mut step: impl FnMut(Position, Position)) -> Result<Position, RebuildError> {
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
