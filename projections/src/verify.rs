//! Whether a view's stored documents are what the log folds to.

use std::collections::{HashMap, HashSet};

use event_bus::{Checkpoint, DeadLetters};
use event_schemas::{Position, RecordedEvent, StreamId, Version};
use event_store::{Log, LogEntry, ReadError, UnreadableReason};

use crate::document::Document;
use crate::error::ViewError;
use crate::projector::has;
use crate::query::KeyValue;
use crate::reader::{Generation, furthest, parse};
use crate::store::StoredDocument;
use crate::view::{DocId, View};

/// Events and documents read at a time.
const PAGE: usize = 2_000;

/// Differences that are listed; more are only counted.
const LISTED: usize = 1_000;

/// What comparing a view with the log came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub view: &'static str,
    /// How far the view had come when it began.
    pub position: Position,
    /// Events of the log that were read, and are in the view by its own account.
    pub events: u64,
    /// Events of the log, up to its head when it began, that the view has not come to yet.
    pub waiting: u64,
    /// Stored documents that were compared.
    pub documents: u64,
    /// How many differ.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Verification {
    /// Whether the stored documents are what the log folds to.
    pub const fn equal(&self) -> bool {
        self.different == 0
    }
}

/// A stored document that is not what the log folds to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("{id} is not stored")]
    Missing { id: DocId },
    #[error("{id} is stored, but no event makes it")]
    Unexpected { id: DocId },
    #[error("{id} has not got {stream} beyond version {version}")]
    Behind {
        id: DocId,
        stream: StreamId,
        version: Version,
    },
    #[error("{id} is stored with other contents")]
    Contents { id: DocId },
    #[error("{id} is stored under other keys")]
    Keys { id: DocId },
    #[error("{id} cannot be read")]
    Unreadable { id: DocId },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    View(#[from] ViewError),
    /// The log holds an event that a newer binary wrote.
    #[error("the event at position {0} is newer than this binary: upgrade")]
    Upgrade(Position),
    #[error("there is no view {0}")]
    UnknownView(String),
}

/// Folds the log in memory and compares with what is stored, while commands may keep coming. `letters` are the view's:
/// what is parked is not in the documents, rightly.
pub(crate) async fn verify<V: View>(
    reader: &Generation<V>,
    log: &Log,
    letters: &DeadLetters,
) -> Result<Verification, VerifyError> {
    // What this process knows may be old, in the embedded profile, too: another one may fold.
    let stored = reader.store.reached(&reader.table, reader.log()).await?;
    let mut reached = reader.reached.borrow().clone();
    reached.merge(&stored);
    let mut found = Verification {
        view: V::NAME,
        position: furthest(&reached),
        events: 0,
        waiting: 0,
        documents: 0,
        different: 0,
        differences: Vec::new(),
    };
    let mut folded = fold_log(log, reader, &reached, letters, &mut found).await?;
    let mut after = String::new();
    loop {
        let page = reader.store.scan(&reader.table, after, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = last.id.to_string();
        for (stored, keys) in &page {
            found.documents += 1;
            let expected = folded.remove(&stored.id);
            if let Some(difference) = compare::<V>(log, stored, keys, expected).await? {
                found.add(difference);
            }
        }
    }
    for id in folded.into_keys() {
        found.add(Difference::Missing { id });
    }
    Ok(found)
}

impl Verification {
    fn add(&mut self, difference: Difference) {
        self.different += 1;
        if self.differences.len() < LISTED {
            self.differences.push(difference);
        }
    }
}

/// All documents of the view as what it has of the log folds to.
async fn fold_log<V: View>(
    log: &Log,
    reader: &Generation<V>,
    reached: &Checkpoint,
    letters: &DeadLetters,
    found: &mut Verification,
) -> Result<HashMap<DocId, Document<V::Part>>, VerifyError> {
    let parked = letters.list().await.map_err(ViewError::from)?;
    let parked: HashMap<String, Position> = parked
        .into_iter()
        .map(|parked| (parked.scope.to_string(), parked.first.position))
        .collect();
    let is_parked = |event: &RecordedEvent| {
        !parked.is_empty()
            && parked
                .get(&event.stream.to_string())
                .is_some_and(|position| event.position >= *position)
    };
    let mut documents: HashMap<DocId, Document<V::Part>> = HashMap::new();
    // Documents with an event that does not fold and is not parked: somebody gave up on it. They are compared one by one.
    let mut skipped: HashSet<DocId> = HashSet::new();
    let head = log.head().await?;
    let mut after = Position(0);
    while after < head {
        let entries = log.read(after, PAGE).await?;
        let Some(last) = entries.last() else { break };
        after = last.position();
        for entry in entries.into_iter().filter(|entry| entry.position() <= head) {
            match entry {
                LogEntry::Event(event) => {
                    if !has(reached, reader.partitioning, &event.stream, event.position) {
                        // A partition that carries nothing for the view is not followed.
                        found.waiting += u64::from(V::SOURCES.contains(&event.stream.aggregate_type));
                        continue;
                    }
                    found.events += 1;
                    let Some(id) = V::route(&event).filter(|_| !is_parked(&event)) else {
                        continue;
                    };
                    if skipped.contains(&id) {
                        continue;
                    }
                    if documents
                        .entry(id.clone())
                        .or_default()
                        .fold::<V>(&event)
                        .is_err()
                    {
                        documents.remove(&id);
                        skipped.insert(id);
                    }
                }
                LogEntry::Unreadable(event)
                    if event
                        .stream()
                        .is_none_or(|stream| !V::SOURCES.contains(&stream.aggregate_type)) => {}
                LogEntry::Unreadable(event) => match event.reason {
                    // What the view has not come to does not matter.
                    UnreadableReason::Newer if event.position > reached.position() => found.waiting += 1,
                    UnreadableReason::Newer => return Err(VerifyError::Upgrade(event.position)),
                    UnreadableReason::Poison(_) => {}
                },
            }
        }
    }
    Ok(documents)
}

async fn compare<V: View>(
    log: &Log,
    stored: &StoredDocument,
    keys: &[KeyValue],
    expected: Option<Document<V::Part>>,
) -> Result<Option<Difference>, VerifyError> {
    let id = || stored.id.clone();
    let Ok(document) = parse::<V>(&stored.id, &stored.body) else {
        return Ok(Some(Difference::Unreadable { id: id() }));
    };
    let mut expected = expected.unwrap_or_default();
    for (stream, version) in expected.versions() {
        if document.version_of(&stream) < version {
            let version = document.version_of(&stream);
            return Ok(Some(Difference::Behind {
                id: id(),
                stream,
                version,
            }));
        }
    }
    // The document may have moved on since the log was folded: take along what it has seen.
    for (stream, version) in document.versions() {
        let seen = expected.version_of(&stream);
        if seen < version {
            for event in log.read_stream(&stream, seen, Some(version)).await? {
                if V::route(&event).as_ref() == Some(&stored.id) {
                    let before = expected.clone();
                    if expected.fold::<V>(&event).is_err() {
                        expected = before;
                    }
                }
            }
        }
    }
    if expected.is_empty() {
        return Ok(Some(Difference::Unexpected { id: id() }));
    }
    let body = serde_json::to_string(&expected).map_err(|error| ViewError::Corrupt {
        view: V::NAME,
        id: stored.id.to_string(),
        message: error.to_string(),
    })?;
    if body != stored.body {
        return Ok(Some(Difference::Contents { id: id() }));
    }
    let expected_keys = V::keys(&expected).unwrap_or_else(|| vec![KeyValue::Absent; V::KEYS.len()]);
    Ok((expected_keys != keys).then(|| Difference::Keys { id: id() }))
}
