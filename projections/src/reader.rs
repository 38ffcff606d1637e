//! Reading one view, whichever of its generations serves.

mod generation;
#[cfg(feature = "cluster")]
mod shared;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_schemas::Position;
use event_store::Log;
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use crate::changes::{Changes, DocWatch};
use crate::coverage::Coverage;
use crate::error::{ViewError, WaitError};
use crate::query::{After, Query};
use crate::served::{ConsistencyPoint, Served};
use crate::view::{DocId, View};

pub(crate) use generation::{Generation, furthest, parse, serve};

/// How long a generation that is to take over is waited for, at each try, while reads go on and while they wait for it.
const OPEN_PATIENCE: Duration = Duration::from_millis(200);
const CLOSED_PATIENCE: Duration = Duration::from_millis(250);

/// How far a view has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewProgress {
    pub view: &'static str,
    /// The one that is read.
    pub generation: u32,
    /// Everything up to here is in the documents. In the cluster, the furthest that any partition has come: one in which
    /// nothing happens does not move.
    pub position: Position,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Found<D> {
    pub items: Vec<Arc<Served<D>>>,
    /// Where the next page begins; none on the last.
    pub next: Option<After>,
}

/// Reads one view. Cloning is cheap and shares the cache.
///
/// A view has one or more generations, each a fold of the log of its own, and reads come from one of them. When another
/// takes over, no read fails, and none shows less than one before it: see [`ViewReader::switch`].
#[derive(Debug)]
pub struct ViewReader<V: View> {
    current: watch::Sender<Arc<Generation<V>>>,
    /// Held by each read, and closed while another generation takes over.
    gate: Arc<RwLock<()>>,
    changes: Changes,
    /// Those that this process reads or feeds, so that the two share a cache.
    open: Arc<Mutex<BTreeMap<u32, Arc<Generation<V>>>>>,
}

impl<V: View> Clone for ViewReader<V> {
    fn clone(&self) -> Self {
        Self {
            current: self.current.clone(),
            gate: Arc::clone(&self.gate),
            changes: self.changes.clone(),
            open: Arc::clone(&self.open),
        }
    }
}

impl<V: View> ViewReader<V> {
    /// Reads the generation that `open` makes with the view's changes.
    pub(crate) fn new(open: impl FnOnce(Changes) -> Generation<V>) -> Self {
        let changes = Changes::default();
        let generation = Arc::new(open(changes.clone()));
        let known = BTreeMap::from([(generation.number(), Arc::clone(&generation))]);
        Self {
            current: watch::Sender::new(generation),
            gate: Arc::default(),
            changes,
            open: Arc::new(Mutex::new(known)),
        }
    }

    /// The generation that is read now.
    pub(crate) fn current(&self) -> Arc<Generation<V>> {
        Arc::clone(&self.current.borrow())
    }

    /// The generation `number`, as this process has it; `open` makes it if it has not.
    pub(crate) fn generation_of(
        &self,
        number: u32,
        open: impl FnOnce(Changes) -> Generation<V>,
    ) -> Arc<Generation<V>> {
        let mut known = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = known
            .entry(number)
            .or_insert_with(|| Arc::new(open(self.changes.clone())));
        Arc::clone(generation)
    }

    /// Forgets the generations that are not among `there`, but for the one that is read, and those that are newer than what
    /// `there` can know of.
    pub(crate) fn forget_others(&self, there: &[u32]) {
        let (current, newest) = (self.generation(), there.iter().max().copied().unwrap_or_default());
        let mut known = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|number, _| *number == current || *number > newest || there.contains(number));
    }

    /// Reads `next` from now on, if it has everything that anybody can have read here; false if it has not, also not within
    /// the moment that reads are made to wait for it.
    ///
    /// While the gate is closed nobody reads; what was read before is in the log up to its head of then. Once `next` has
    /// all of that, no later read can show less.
    pub(crate) async fn switch(&self, log: &Log, next: &Arc<Generation<V>>) -> Result<bool, ViewError> {
        let mut coverage = Coverage::of(next, log);
        // Most of the way with the gate open.
        if !coverage
            .reach(log.head().await?, Instant::now() + OPEN_PATIENCE)
            .await?
        {
            return Ok(false);
        }
        let closed = self.gate.write().await;
        let deadline = Instant::now() + CLOSED_PATIENCE;
        if !coverage.reach(log.head().await?, deadline).await? {
            return Ok(false);
        }
        self.current.send_replace(Arc::clone(next));
        drop(closed);
        // Those who wait for a change wait for one of the new documents.
        self.changes.notify_all();
        Ok(true)
    }

    /// The document `id`; none if there is none, or nothing that can be shown yet.
    pub async fn get(&self, id: &DocId) -> Result<Option<Arc<Served<V::Doc>>>, ViewError> {
        let _open = self.gate.read().await;
        let generation = self.current();
        generation.get(id).await.map_err(rebuilding(&generation))
    }

    /// The documents `ids`, in their order.
    pub async fn get_many(&self, ids: &[DocId]) -> Result<Vec<Option<Arc<Served<V::Doc>>>>, ViewError> {
        let _open = self.gate.read().await;
        let generation = self.current();
        generation.get_many(ids).await.map_err(rebuilding(&generation))
    }

    /// A page of a list. Goes to the store: lists are as fresh as the view, and no cache holds them.
    pub async fn find(&self, query: &Query) -> Result<Found<V::Doc>, ViewError> {
        let _open = self.gate.read().await;
        let generation = self.current();
        generation.find(query).await.map_err(rebuilding(&generation))
    }

    /// The document `id`, at least as far as `point`; waits for it until `deadline`.
    ///
    /// None once the view has passed the point and has no such document.
    pub async fn get_at_least(
        &self,
        id: &DocId,
        point: &ConsistencyPoint,
        deadline: Instant,
    ) -> Result<Option<Arc<Served<V::Doc>>>, WaitError> {
        let mut switched = self.current.subscribe();
        loop {
            let generation = Arc::clone(&switched.borrow_and_update());
            let found = tokio::select! {
                found = generation.get_at_least(id, point, deadline) => found?,
                // The one that serves now may have it already.
                _ = switched.changed() => continue,
            };
            let _open = self.gate.read().await;
            if !switched.has_changed().unwrap_or_default() {
                return Ok(found);
            }
        }
    }

    /// Waits until everything up to `point` is in the documents: for lists.
    pub async fn reach(&self, point: &ConsistencyPoint, deadline: Instant) -> Result<(), WaitError> {
        let mut switched = self.current.subscribe();
        loop {
            let generation = Arc::clone(&switched.borrow_and_update());
            tokio::select! {
                reached = generation.reach(point, deadline) => return reached,
                _ = switched.changed() => {}
            }
        }
    }

    /// Waits until everything up to `position` is in the documents, whatever its partition: where the projector is in this
    /// process and follows the log itself.
    pub async fn reach_position(&self, position: Position, deadline: Instant) -> Result<(), WaitError> {
        let mut switched = self.current.subscribe();
        loop {
            let generation = Arc::clone(&switched.borrow_and_update());
            tokio::select! {
                reached = generation.reach_position(position, deadline) => return reached,
                _ = switched.changed() => {}
            }
        }
    }

    /// Tells when the document `id` changes, whether it is there already or not.
    pub fn watch(&self, id: &DocId) -> DocWatch {
        let watch = self.changes.watch(id);
        #[cfg(feature = "cluster")]
        if self.current.borrow().is_shared() && self.changes.begin_polling() {
            tokio::spawn(shared::poll(self.current.subscribe(), self.changes.clone()));
        }
        watch
    }

    /// How far the documents have come, as far as this process knows; see [`ViewProgress::position`].
    pub fn position(&self) -> Position {
        self.current.borrow().position()
    }

    /// How far the view has come, with its name: asks the store where another process may have written.
    pub async fn progress(&self) -> Result<ViewProgress, ViewError> {
        self.current().refresh().await?;
        Ok(self.known_progress())
    }

    /// As [`Self::progress`], as far as this process knows.
    pub(crate) fn known_progress(&self) -> ViewProgress {
        let generation = self.current();
        ViewProgress {
            view: V::NAME,
            generation: generation.number(),
            position: generation.position(),
        }
    }

    /// The generation that is read.
    pub fn generation(&self) -> u32 {
        self.current.borrow().number()
    }
}

/// What another version of the view stored may have a form that this one cannot read: until it is folded again.
fn rebuilding<V: View>(generation: &Arc<Generation<V>>) -> impl Fn(ViewError) -> ViewError {
    let outdated = generation.table.outdated;
    move |error| match error {
        ViewError::Corrupt { view, .. } if outdated => ViewError::Rebuilding { view },
        ViewError::Store(_) if outdated => ViewError::Rebuilding { view: V::NAME },
        error => error,
    }
}
