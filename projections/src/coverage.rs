//! Whether a generation has everything of the log up to a position.

use std::sync::Arc;
use std::time::Duration;

use event_schemas::{AggregateType, Position};
use event_store::{Log, LogEntry};
use tokio::time::{Instant, sleep};

use crate::error::ViewError;
use crate::projector::has;
use crate::reader::Generation;
use crate::view::View;

/// Entries of the log that are looked at in one go.
const PAGE: usize = 2_000;

/// Between two looks at a generation that lacks something.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows a generation along the log.
///
/// In the cluster progress is kept for each partition, and one in which nothing happens does not move, so that no position
/// alone says whether all is there. Each event of the view's sources is asked for instead, once.
pub(crate) struct Coverage<V: View> {
    generation: Arc<Generation<V>>,
    log: Log,
    /// Everything up to here is in the documents.
    covered: Position,
    /// Whether the store is asked, for a generation that others feed; else what this process knows is enough, which says
    /// that its readers see it, too.
    stored: bool,
}

impl<V: View> Coverage<V> {
    pub(crate) fn of(generation: &Arc<Generation<V>>, log: &Log) -> Self {
        Self {
            generation: Arc::clone(generation),
            log: log.clone(),
            covered: Position(0),
            stored: false,
        }
    }

    /// As stored, whoever feeds it.
    pub(crate) fn stored(generation: &Arc<Generation<V>>, log: &Log) -> Self {
        Self {
            stored: true,
            ..Self::of(generation, log)
        }
    }

    /// Waits until everything up to `position` is in the documents; false if the time was over first.
    pub(crate) async fn reach(&mut self, position: Position, deadline: Instant) -> Result<bool, ViewError> {
        loop {
            self.advance(position).await?;
            if self.covered >= position {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(PAUSE).await;
        }
    }

    /// Goes on as far as the documents are, at most to `position`.
    async fn advance(&mut self, position: Position) -> Result<(), ViewError> {
        let reached = if self.stored {
            let generation = &self.generation;
            generation
                .store
                .reached(&generation.table, generation.log())
                .await?
        } else {
            self.generation.refresh().await?;
            self.generation.reached.borrow().clone()
        };
        self.covered = self.covered.max(reached.position());
        while self.covered < position {
            let page = self.log.read(self.covered, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                let stream = match &entry {
                    LogEntry::Event(event) => Some(event.stream.clone()),
                    LogEntry::Unreadable(event) => event.stream(),
                };
                if let Some(stream) = stream
                    && is_source::<V>(stream.aggregate_type)
                    && !has(&reached, self.generation.partitioning, &stream, entry.position())
                {
                    return Ok(());
                }
                self.covered = entry.position();
            }
        }
        Ok(())
    }
}

fn is_source<V: View>(aggregate_type: AggregateType) -> bool {
    V::SOURCES.contains(&aggregate_type)
}
