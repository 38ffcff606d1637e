//! A batch of the log, folded into all views and stored.

use std::mem;
use std::sync::Arc;

use database::DatabaseError;
use event_bus::{BusError, Checkpoint, DeadLetters, NewDeadLetter, Partitioning};
use event_schemas::{AggregateType, Clock, EventId, Position, RecordedEvent};
use event_store::LogEntry;

use super::fold::{Fold, ViewFold};
use super::poison::{Bad, has, is_new, poison, scope, unreadable, withheld};
use super::prepared::Prepared;
use crate::error::ViewError;
use crate::reader::{ViewProgress, ViewReader, furthest};
use crate::store::{GenerationRow, ViewStore};
use crate::view::{DocId, View};
use crate::views::{Views, with_view};

/// How often a document that keeps moving is folded again before the whole batch is.
const MAX_ATTEMPTS: usize = 8;

/// Batches up to this size are folded right on the async worker; larger ones would hold it up.
const INLINE_EVENTS: usize = 64;

/// Why a batch is not stored. It comes again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("a document kept moving")]
    Contended,
    #[error("folding panicked")]
    Panicked,
}

impl From<DatabaseError> for ProjectError {
    fn from(error: DatabaseError) -> Self {
        Self::View(error.into())
    }
}

/// Folds batches into views.
pub(crate) struct Runner {
    views: Views,
    /// What it feeds.
    rows: Vec<GenerationRow>,
    store: ViewStore,
    partitioning: Partitioning,
    clock: Clock,
    folds: Vec<Box<dyn Fold>>,
    /// Those of each fold.
    letters: Vec<DeadLetters>,
}

impl Runner {
    /// Feeds these generations, which this version of their views folds.
    pub(crate) async fn open(
        views: &Views,
        rows: Vec<GenerationRow>,
        clock: Clock,
    ) -> Result<Self, DatabaseError> {
        let folds = folds(views, &rows);
        let mut letters = Vec::with_capacity(folds.len());
        for fold in &folds {
            let subscriber = subscriber(fold.name(), fold.table().generation);
            letters.push(DeadLetters::open(views.database(), &subscriber).await?);
        }
        Ok(Self {
            views: views.clone(),
            rows,
            store: views.store().clone(),
            partitioning: views.partitioning(),
            clock,
            folds,
            letters,
        })
    }

    /// Where the view that is furthest behind stands in the log: for a reader of the log itself.
    pub(crate) fn position(&self) -> Position {
        let positions = self.folds.iter().map(|fold| fold.reached().position());
        positions.min().unwrap_or_default()
    }

    /// How far each view has come.
    pub(super) fn progress(&self) -> impl Iterator<Item = ViewProgress> {
        self.folds.iter().map(|fold| ViewProgress {
            view: fold.name(),
            generation: fold.table().generation,
            position: furthest(fold.reached()),
        })
    }

    /// The name as a subscriber, and the aggregates that it reads, of a runner of one generation.
    pub(crate) fn subscriber(&self) -> (String, &'static [AggregateType]) {
        let first = self.folds.first().map(|fold| {
            let subscriber = subscriber(fold.name(), fold.table().generation);
            (subscriber, fold.sources())
        });
        first.unwrap_or_default()
    }

    /// The dead letters of each view.
    pub(super) fn letters(&self) -> Vec<(&'static str, DeadLetters)> {
        self.folds
            .iter()
            .map(|fold| fold.name())
            .zip(self.letters.iter().cloned())
            .collect()
    }

    /// Folds and stores the batch; durable, and visible to readers, once it resolves. After an error nothing is known to be
    /// stored, and the batch has to come again; what was stored of it then folds to nothing.
    pub(crate) async fn handle(
        &mut self,
        entries: Vec<LogEntry>,
        checkpoint: Checkpoint,
    ) -> Result<(), ProjectError> {
        let result = self.project(&Arc::new(entries), checkpoint).await;
        if result.is_err() {
            self.forget();
        }
        result
    }

    /// Folds one event of a parked aggregate into the view whose dead letter it is. The text of an error is for the letter.
    pub(super) async fn redo(&mut self, view: &str, event: Arc<RecordedEvent>) -> Result<(), String> {
        let result = self.project_one(view, event).await;
        if result.is_err() {
            self.forget();
        }
        result
    }

    async fn project(
        &mut self,
        entries: &Arc<Vec<LogEntry>>,
        checkpoint: Checkpoint,
    ) -> Result<(), ProjectError> {
        self.reload_letters(entries).await?;
        let partitioning = self.partitioning;
        let folds = self.folds.iter();
        let mut bad: Vec<Bad> = folds
            .map(|fold| unreadable(fold.as_ref(), partitioning, entries))
            .collect();
        let mut fresh = false;
        // Every round but the last finds another stream that does not fold.
        loop {
            let wanted = self.plan(entries, &bad);
            let prepared = self.prepare(entries, wanted).await?;
            if prepared.is_poisoned() && !fresh {
                // Another process may have moved the documents on since they were in memory here. What is stored decides.
                fresh = true;
                continue;
            }
            if let Some(prepared) = prepared.checked(entries, &mut bad) {
                if bad.iter().any(|bad| !bad.is_empty()) {
                    // What does not fold on documents that were dropped is no poison.
                    self.still_there().await?;
                }
                self.park(entries, &bad).await?;
                self.store(entries, prepared, Some(&checkpoint)).await?;
                for fold in &mut self.folds {
                    fold.stored(&checkpoint);
                }
                return Ok(());
            }
        }
    }

    /// Fails if what it feeds is gone.
    pub(super) async fn still_there(&self) -> Result<(), ViewError> {
        let tables: Vec<_> = self.folds.iter().map(|fold| Arc::clone(fold.table())).collect();
        self.store.still_there(&tables).await
    }

    /// Learns what others have healed before anything is parked behind what we believe to be parked, and what others have
    /// parked.
    async fn reload_letters(&self, entries: &[LogEntry]) -> Result<(), ProjectError> {
        if self.partitioning == Partitioning::Log {
            return Ok(());
        }
        let events = || entries.iter().filter_map(LogEntry::event);
        for letters in self.letters.iter().filter(|letters| !letters.none_parked()) {
            if events().any(|event| letters.is_parked(&scope(&event.stream))) {
                letters.reload().await?;
            }
        }
        Ok(())
    }

    /// Learns what others have parked in partitions that are ours now.
    #[cfg(feature = "cluster")]
    pub(super) async fn reassigned(&self) -> Result<(), ProjectError> {
        for letters in &self.letters {
            letters.reload().await?;
        }
        Ok(())
    }

    /// Nothing has come for a while: what is left to be told is told.
    #[cfg(feature = "cluster")]
    pub(super) async fn idle(&self) {
        for fold in &self.folds {
            if let Some((cache, _)) = fold.cache_writes() {
                cache.settle().await;
            }
        }
    }

    async fn project_one(&mut self, view: &str, event: Arc<RecordedEvent>) -> Result<(), String> {
        let entries = Arc::new(vec![LogEntry::Event(event)]);
        let wanted = self.folds.iter_mut().map(|fold| {
            let only = fold.name() == view;
            fold.plan(&entries, &|_| !only)
        });
        let wanted = wanted.collect();
        let prepared = self
            .prepare(&entries, wanted)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(poison) = prepared.poison.iter().flatten().next() {
            return Err(poison.reason.clone());
        }
        self.store(&entries, prepared, None)
            .await
            .map_err(|error| error.to_string())?;
        for fold in &mut self.folds {
            let reached = fold.reached().clone();
            fold.stored(&reached);
        }
        Ok(())
    }

    /// Groups the batch by document, for each view. Returns the documents to load.
    fn plan(&mut self, entries: &[LogEntry], bad: &[Bad]) -> Vec<Vec<DocId>> {
        let partitioning = self.partitioning;
        let views = self.folds.iter_mut().zip(&self.letters).zip(bad);
        let wanted = views.map(|((fold, letters), bad)| {
            let reached = fold.reached().clone();
            let has = |event: &RecordedEvent| has(&reached, partitioning, &event.stream, event.position);
            fold.plan(entries, &|event| has(event) || withheld(letters, bad, event))
        });
        wanted.collect()
    }

    /// Loads the documents, and folds the plan into them.
    async fn prepare(
        &mut self,
        entries: &Arc<Vec<LogEntry>>,
        wanted: Vec<Vec<DocId>>,
    ) -> Result<Prepared, ProjectError> {
        let tables = self.folds.iter().map(|fold| Arc::clone(fold.table()));
        let wanted: Vec<_> = tables.zip(wanted).collect();
        let loaded = if wanted.iter().all(|(_, ids)| ids.is_empty()) {
            wanted.iter().map(|_| Vec::new()).collect()
        } else {
            self.store.load_all(wanted).await?
        };
        let small = entries.len() <= INLINE_EVENTS;
        let entries = Arc::clone(entries);
        let mut folds = mem::take(&mut self.folds);
        let work = move || {
            let prepared = Prepared::fold(&mut folds, &entries, loaded);
            (folds, prepared)
        };
        let (folds, prepared) = if small {
            work()
        } else {
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| ProjectError::Panicked)?
        };
        self.folds = folds;
        Ok(prepared?)
    }

    /// Writes what was prepared; documents that have moved meanwhile are loaded and folded again.
    async fn store(
        &mut self,
        entries: &Arc<Vec<LogEntry>>,
        mut prepared: Prepared,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), ProjectError> {
        for _ in 0..MAX_ATTEMPTS {
            let moved = self.store.write(prepared.writes, checkpoint.cloned()).await?;
            if moved.iter().all(Vec::is_empty) {
                for fold in &mut self.folds {
                    fold.moved(&[]);
                }
                return self.announce(checkpoint).await;
            }
            let wanted = self
                .folds
                .iter_mut()
                .zip(&moved)
                .map(|(fold, moved)| fold.moved(moved))
                .collect();
            prepared = self.prepare(entries, wanted).await?;
            if prepared.is_poisoned() {
                // What folded before no longer does: begin the batch again, which finds out what to park.
                break;
            }
        }
        Err(ProjectError::Contended)
    }

    /// All documents are stored: tells readers in other processes, and only then how far the documents have come. Dying in
    /// between brings the batch again, and with it another try to tell.
    async fn announce(&self, checkpoint: Option<&Checkpoint>) -> Result<(), ProjectError> {
        #[cfg(feature = "cluster")]
        for fold in &self.folds {
            if let Some((cache, writes)) = fold.cache_writes() {
                cache.written(writes).await;
            }
        }
        if let Some(checkpoint) = checkpoint {
            let tables: Vec<_> = self.folds.iter().map(|fold| Arc::clone(fold.table())).collect();
            self.store.advance(&tables, checkpoint).await?;
        }
        Ok(())
    }

    /// Parks what does not fold and what comes behind it. Before anything of the batch is stored: once the checkpoint has
    /// passed an event, only its dead letter remembers that it has not been folded.
    async fn park(&self, entries: &[LogEntry], bad: &[Bad]) -> Result<(), ProjectError> {
        for ((fold, letters), bad) in self.folds.iter().zip(&self.letters).zip(bad) {
            if bad.is_empty() && letters.none_parked() {
                continue;
            }
            for entry in entries
                .iter()
                .filter(|entry| is_new(fold.as_ref(), self.partitioning, entry))
            {
                if let Some(letter) = self.letter(fold.as_ref(), letters, bad, entry) {
                    if let Some(reason) = &letter.reason {
                        tracing::error!(view = fold.name(), event = %letter.event_id, reason, "parked");
                    }
                    letters.park(letter).await?;
                }
            }
        }
        Ok(())
    }

    /// The dead letter for this entry, if it has to be one.
    fn letter(
        &self,
        fold: &dyn Fold,
        letters: &DeadLetters,
        bad: &Bad,
        entry: &LogEntry,
    ) -> Option<NewDeadLetter> {
        let (stream, version, event_type, reason) = match entry {
            LogEntry::Event(event) => {
                if !withheld(letters, bad, event) || !fold.routes(event) {
                    return None;
                }
                let first = bad
                    .get(&event.stream)
                    .filter(|(version, _)| *version == event.version);
                let reason = first.map(|(_, reason)| reason.clone());
                (
                    event.stream.clone(),
                    event.version,
                    event.event.name().to_owned(),
                    reason,
                )
            }
            LogEntry::Unreadable(event) => {
                let (stream, reason) = poison(fold, event)?;
                (stream, event.version, event.event_type.clone(), Some(reason))
            }
        };
        Some(NewDeadLetter {
            scope: scope(&stream).into(),
            position: entry.position(),
            event_id: EventId { stream, version },
            event_type,
            reason,
            parked_at: self.clock.now(),
        })
    }

    /// Begins again from what is stored.
    fn forget(&mut self) {
        self.folds = folds(&self.views, &self.rows);
    }
}

/// For tests that let something happen between folding and writing.
#[cfg(test)]
impl Runner {
    pub(super) async fn folded(&mut self, entries: &Arc<Vec<LogEntry>>) -> Prepared {
        let none: Vec<Bad> = self.folds.iter().map(|_| Bad::new()).collect();
        let wanted = self.plan(entries, &none);
        self.prepare(entries, wanted).await.unwrap()
    }

    pub(super) async fn write(
        &mut self,
        entries: &Arc<Vec<LogEntry>>,
        prepared: Prepared,
        checkpoint: Checkpoint,
    ) -> Result<(), ProjectError> {
        self.store(entries, prepared, Some(&checkpoint)).await?;
        self.folds.iter_mut().for_each(|fold| fold.stored(&checkpoint));
        Ok(())
    }

    pub(super) async fn write_once(
        &mut self,
        prepared: Prepared,
        checkpoint: Checkpoint,
    ) -> Result<crate::store::Moved, ProjectError> {
        Ok(self.store.write(prepared.writes, Some(checkpoint)).await?)
    }

    pub(super) async fn write_without_checkpoint(
        &mut self,
        entries: &Arc<Vec<LogEntry>>,
        prepared: Prepared,
    ) -> Result<(), ProjectError> {
        self.store(entries, prepared, None).await
    }
}

fn folds(views: &Views, rows: &[GenerationRow]) -> Vec<Box<dyn Fold>> {
    fn fold<V: View>(views: &Views, reader: &ViewReader<V>, row: &GenerationRow) -> Box<dyn Fold> {
        Box::new(ViewFold::new(views.generation(reader, row)))
    }
    rows.iter()
        .filter_map(|row| with_view!(views, row.view.as_str(), |reader| fold(views, reader, row)))
        .collect()
}

/// The subscriber that a generation's dead letters are kept under: a new one begins with nothing parked.
pub(crate) fn subscriber(view: &str, generation: u32) -> String {
    format!("{view}.g{generation}")
}
