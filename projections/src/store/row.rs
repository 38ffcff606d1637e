//! What stores know of a generation, beside its documents.

use std::fmt;
use std::str::FromStr;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position, Timestamp};

use super::ViewSchema;

/// What is to be done with a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Somebody asked for it; a projector or the command line builds it.
    Requested,
    /// It is being folded from the log; no projector feeds it.
    Building,
    /// Projectors feed it, until it is dropped. If it has never been read, it is to be, once it has been compared.
    Following,
    /// Fed, and not to be read: it differs from what is, and somebody has to look.
    Blocked,
}

impl Stage {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Building => "building",
            Self::Following => "following",
            Self::Blocked => "blocked",
        }
    }

    /// Whether projectors feed it.
    pub(crate) const fn is_fed(self) -> bool {
        match self {
            Self::Requested | Self::Building => false,
            Self::Following | Self::Blocked => true,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Requested, Self::Building, Self::Following, Self::Blocked]
            .into_iter()
            .find(|stage| stage.name() == text)
            .ok_or_else(|| format!("a generation that is {text}"))
    }
}

/// Who builds a generation, and until when nobody else may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) holder: String,
    pub(crate) until: Timestamp,
}

/// A generation as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GenerationRow {
    pub(crate) view: String,
    pub(crate) generation: u32,
    /// Of the view that folds it.
    pub(crate) version: u32,
    pub(crate) stage: Stage,
    /// Whether it is read, by processes of its version.
    pub(crate) serving: bool,
    /// How far the documents have come; its log is the one that they are folded from.
    pub(crate) reached: Checkpoint,
    /// Where the log ended when building began; 0 before.
    pub(crate) target: Position,
    pub(crate) lease: Option<Lease>,
    /// When it was said that it is to be read.
    pub(crate) promoted_at: Option<Timestamp>,
    /// Tells it apart from one that had its number before the store lost its data; none where that cannot be.
    pub(crate) incarnation: Option<String>,
}

impl GenerationRow {
    /// The generation's own name, `<view>.g<N>`: also that of its subscriber.
    pub(crate) fn name(&self) -> String {
        format!("{}.g{}", self.view, self.generation)
    }

    /// Whether this binary may write it.
    pub(crate) fn is_of(&self, schema: &ViewSchema, log: LogIdentity) -> bool {
        self.view == schema.name && self.version == schema.version && self.reached.log == log
    }

    /// Whether somebody is building it, or about to, at `now`.
    pub(crate) fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.until > now)
    }
}

/// The generation that a process of this version reads: the newest of the log that serves, of its own version if there is
/// one, else of the one before it. A later version's is never read: its documents may have any form.
pub(crate) fn choose<'r>(
    rows: &'r [GenerationRow],
    schema: &ViewSchema,
    log: LogIdentity,
) -> Option<&'r GenerationRow> {
    rows.iter()
        .filter(|row| {
            row.view == schema.name && row.serving && row.reached.log == log && row.version <= schema.version
        })
        .max_by_key(|row| (row.version, row.generation))
}

/// The generation to go on with rather than begin another: newer than the one that is read, and never read.
pub(crate) fn begun<'r>(
    rows: &'r [GenerationRow],
    schema: &ViewSchema,
    log: LogIdentity,
) -> Option<&'r GenerationRow> {
    let serving = choose(rows, schema, log).map_or(0, |serving| serving.generation);
    rows.iter()
        .filter(|row| row.is_of(schema, log) && !row.serving && row.generation > serving)
        .max_by_key(|row| row.generation)
}
