//! A document as it is served.

use std::sync::OnceLock;

use bytes::Bytes;
use event_schemas::{Position, StreamId, Version};
use serde::Serialize;

use crate::view::DocId;

/// A point in the log that a read must have reached: what a consistency token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyPoint {
    pub stream: StreamId,
    pub version: Version,
    pub position: Position,
}

/// A combined document with its revision.
#[derive(Debug)]
pub struct Served<D> {
    pub id: DocId,
    /// Which generation of the view it belongs to; revisions of two generations say nothing about each other.
    pub generation: u32,
    /// Counts the document's changes within its generation, from 1.
    pub rev: u64,
    /// How far each source has been folded in.
    pub sources: Vec<(StreamId, Version)>,
    pub doc: D,
    /// Bytes of the stored document: what the cache counts.
    pub(crate) weight: u32,
    json: OnceLock<Bytes>,
}

impl<D: Serialize> Served<D> {
    pub(crate) fn new(
        id: DocId,
        generation: u32,
        rev: u64,
        sources: Vec<(StreamId, Version)>,
        weight: usize,
        doc: D,
    ) -> Self {
        Self {
            id,
            generation,
            rev,
            sources,
            doc,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            json: OnceLock::new(),
        }
    }

    /// The entity tag, with its quotes: `"<generation>.<rev>"`.
    pub fn etag(&self) -> String {
        format!("\"{}.{}\"", self.generation, self.rev)
    }

    /// The document as JSON; serialised once however often it is served.
    pub fn json(&self) -> Bytes {
        // A document is plain data with text keys, which cannot fail to serialise; the empty answer is never seen.
        self.json
            .get_or_init(|| serde_json::to_vec(&self.doc).unwrap_or_default().into())
            .clone()
    }

    /// Whether what the point names has been folded in.
    pub fn reached(&self, point: &ConsistencyPoint) -> bool {
        self.sources
            .iter()
            .any(|(stream, version)| *stream == point.stream && *version >= point.version)
    }
}
