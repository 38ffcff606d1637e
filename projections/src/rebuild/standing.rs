//! What generations there are, and the task that builds what is to be built.

use std::collections::HashMap;
use std::time::Duration;

use event_bus::DeadLetters;
use event_schemas::{Clock, Position};
use event_store::Log;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{RebuildError, RebuildOptions};
use crate::error::ViewError;
use crate::reader::furthest;
use crate::store::{GenerationRow, Stage, ViewSchema, begun, choose};
use crate::views::{SCHEMAS, Views, schema_of};

/// Between two looks for something to build.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a build that failed; doubles up to the latter.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// How long a generation stays after another was promoted: every process has switched by then, or does not run.
const GRACE: Duration = Duration::from_secs(60);

/// A generation, for those who look after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationStatus {
    /// `<view>.g<N>`
    pub name: String,
    pub view: String,
    pub generation: u32,
    /// Of the view that folds it.
    pub version: u32,
    /// `requested`, `building`, `following`, or `blocked` if it differs from what is read.
    pub stage: &'static str,
    /// Whether it is read.
    pub serving: bool,
    /// Everything up to here is in it; in the cluster, the furthest that any partition has come.
    pub position: Position,
    /// Where the log ended when building began.
    pub target: Position,
    /// Who builds it.
    pub builder: Option<String>,
}

impl From<GenerationRow> for GenerationStatus {
    fn from(row: GenerationRow) -> Self {
        Self {
            name: row.name(),
            generation: row.generation,
            version: row.version,
            stage: row.stage.name(),
            serving: row.serving,
            position: furthest(&row.reached),
            target: row.target,
            builder: row.lease.map(|lease| lease.holder),
            view: row.view,
        }
    }
}

/// Why a generation is not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    #[error("there is no generation {0}")]
    Unknown(String),
    #[error("{0} is read: another has to take over first")]
    Serving(String),
    /// There may be processes that have not heard of the new one yet.
    #[error("{0} was read until a moment ago: in a minute nobody does")]
    TooEarly(String),
    #[error("{0} is being built")]
    Building(String),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl Views {
    /// All generations of all views, by view and number.
    pub async fn generations(&self) -> Result<Vec<GenerationStatus>, ViewError> {
        let mut rows = self.rows().await?;
        rows.sort_by(|one, other| (&one.view, one.generation).cmp(&(&other.view, other.generation)));
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Asks for the view `name` to be rebuilt by whoever runs [`Rebuilds`]. Returns the generation that will be read: the one
    /// that is under way already, or that is to be compared again, if there is one.
    pub async fn request_rebuild(&self, name: &str) -> Result<u32, RebuildError> {
        let schema = schema_of(name).ok_or_else(|| RebuildError::UnknownView(name.to_owned()))?;
        let row = self
            .store()
            .begin(schema, self.log(), Stage::Requested, None)
            .await?;
        if row.stage == Stage::Blocked {
            self.store().unblock(&row).await?;
        }
        Ok(row.generation)
    }

    /// Deletes the generation `name` (`<view>.g<N>`), which must not be read, and what waits for it in the dead letters.
    pub async fn drop_generation(&self, name: &str, clock: &Clock) -> Result<(), DropError> {
        let (rows, now) = (self.rows().await?, clock.now());
        let row = rows.iter().find(|row| row.name() == name);
        let row = row.ok_or_else(|| DropError::Unknown(name.to_owned()))?;
        // One of another log cannot be read, whatever it says.
        let schema = schema_of(&row.view).filter(|_| row.reached.log == self.log());
        if let Some(schema) = schema {
            let read = choose(&rows, &schema, self.log());
            let is_read = read.is_some_and(|read| read.generation == row.generation);
            // What a later version reads is for that to drop.
            if is_read || (row.serving && row.version > schema.version) {
                return Err(DropError::Serving(name.to_owned()));
            }
            let since = read.filter(|read| read.generation > row.generation);
            if let Some(since) = since.and_then(|read| read.promoted_at)
                && since.checked_add(GRACE).is_ok_and(|end| now < end)
            {
                return Err(DropError::TooEarly(name.to_owned()));
            }
        }
        if row.is_leased(now) {
            return Err(DropError::Building(name.to_owned()));
        }
        if !self.store().drop_generation(row).await? {
            return Err(DropError::Serving(name.to_owned()));
        }
        DeadLetters::forget(self.database(), name)
            .await
            .map_err(ViewError::from)?;
        Ok(())
    }
}

/// Builds what somebody asked for, what a process that is gone had begun, and, if it is to, views whose documents another
/// version folded. One at a time; any number of processes may run it.
#[derive(Clone)]
pub struct Rebuilds {
    pub views: Views,
    pub log: Log,
    pub clock: Clock,
    /// As for [`Views::rebuild`].
    pub options: RebuildOptions,
    /// Whether views of another version are rebuilt without being asked for.
    pub automatic: bool,
}

impl Rebuilds {
    /// Runs until `cancel`. What is under way then is taken up by the next.
    pub async fn run(self, cancel: CancellationToken) {
        let mut failed: HashMap<&'static str, (Instant, Duration)> = HashMap::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let rows = match self.views.rows().await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::debug!(%error, "no look at the generations");
                    continue;
                }
            };
            let due = SCHEMAS.into_iter().find(|schema| {
                let rests = failed
                    .get(schema.name)
                    .is_some_and(|(until, _)| *until > Instant::now());
                !rests && self.is_wanted(&rows, schema)
            });
            let Some(schema) = due else { continue };
            let progress = watch::Sender::new(None);
            let rebuild = self
                .views
                .rebuild(&self.log, schema.name, &self.options, &self.clock, &progress);
            let outcome = tokio::select! {
                () = cancel.cancelled() => return,
                outcome = rebuild => outcome,
            };
            match outcome {
                Ok(built) => {
                    failed.remove(schema.name);
                    if built.serving {
                        tracing::info!(view = built.view, generation = built.generation, "rebuilt");
                    } else {
                        tracing::error!(
                            view = built.view,
                            generation = built.generation,
                            different = built.comparison.map_or(0, |found| found.different),
                            "the rebuilt view differs from what is read, which goes on: see `omisys rebuild --diff`"
                        );
                    }
                }
                Err(error) => {
                    tracing::warn!(view = schema.name, %error, "not rebuilt; tried again");
                    let pause = failed
                        .get(schema.name)
                        .map_or(RETRY_FIRST, |(_, pause)| (*pause * 2).min(RETRY_MOST));
                    failed.insert(schema.name, (Instant::now() + pause, pause));
                }
            }
        }
    }

    fn is_wanted(&self, rows: &[GenerationRow], schema: &ViewSchema) -> bool {
        let Some(serving) = choose(rows, schema, self.views.log()) else {
            return false;
        };
        let outdated = self.automatic && serving.version != schema.version;
        match begun(rows, schema, self.views.log()) {
            None => outdated,
            Some(row) if row.is_leased(self.clock.now()) => false,
            // Of the latter, whoever built it died before it could be read.
            Some(row) => matches!(row.stage, Stage::Requested | Stage::Building | Stage::Following),
        }
    }
}
