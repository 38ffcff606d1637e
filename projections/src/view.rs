//! What every view is: a routing of events to documents, and a pure fold.

use std::fmt::Debug;

use event_schemas::{AggregateId, AggregateType, RecordedEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::document::Document;
use crate::query::{Key, KeyValue};

/// Names a document within its view: an aggregate's id.
pub type DocId = AggregateId;

/// A read model: events routed to documents, and folded there.
///
/// A document holds one part per source aggregate. A part is folded from that aggregate's events only and is created
/// by whichever of them comes first; parts are combined when read. So every interleaving that keeps the order within
/// each aggregate folds to the same bytes.
pub trait View: Send + Sync + 'static {
    /// The name in stores, metrics and on the command line.
    const NAME: &'static str;
    /// Counts up whenever `route`, `apply` or the form of a part changes: stored documents are then folded anew.
    const VERSION: u32;
    /// The aggregates whose events the view reads.
    const SOURCES: &'static [AggregateType];
    /// What documents can be filtered and ordered by, besides their id.
    const KEYS: &'static [Key] = &[];
    /// Which keys are indexed, each index in its order; the id comes last in all of them.
    const INDEXES: &'static [&'static [&'static str]] = &[];

    /// What one source aggregate contributes to a document.
    type Part: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static;
    /// The document as it is read.
    type Doc: Serialize + Clone + PartialEq + Debug + Send + Sync + 'static;

    /// The document that the event belongs to, by the event alone; none if the view does not need it.
    fn route(event: &RecordedEvent) -> Option<DocId>;

    /// The part after the event; `part` is none for the first event of an aggregate that reached this document.
    fn apply(part: Option<Self::Part>, event: &RecordedEvent) -> Result<Self::Part, FoldError>;

    /// The document as it is read; none while the part that makes it presentable has not been seen.
    fn combine(id: &DocId, document: &Document<Self::Part>) -> Option<Self::Doc>;

    /// The values of [`Self::KEYS`], in their order; none for a document that no list shows.
    fn keys(document: &Document<Self::Part>) -> Option<Vec<KeyValue>> {
        let _ = document;
        Self::KEYS.is_empty().then(Vec::new)
    }
}

/// Why an event does not fit the part it belongs to. Poison: no later try will do better with this code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Nothing that could begin the aggregate came before.
    #[error("{event_type} came before the event that begins its aggregate")]
    NotBegun { event_type: &'static str },
    /// The event names a line, variant, attempt or the like that was never added.
    #[error("{event_type} names {what}, which is not there")]
    Unknown { event_type: &'static str, what: String },
    /// A quantity or an amount left its range.
    #[error("{event_type} leads out of the range of numbers")]
    OutOfRange { event_type: &'static str },
    /// The event was routed to a view that has no use for it: a defect of the view.
    #[error("{event_type} does not belong in {view}")]
    Misrouted {
        event_type: &'static str,
        view: &'static str,
    },
}
