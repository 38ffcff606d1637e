//! A stored document: one part per source aggregate, and how far each has been folded.

use std::borrow::Cow;

use event_schemas::{AggregateType, RecordedEvent, StreamId, Version};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::view::{FoldError, View};

/// What one aggregate contributes to a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source<P> {
    #[serde(serialize_with = "stream_text", deserialize_with = "stream_of_text")]
    pub stream: StreamId,
    /// The sequence of the last event that was folded in.
    pub version: Version,
    pub part: P,
}

/// The parts of a document, ordered by stream, so that equal documents are equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document<P> {
    sources: Vec<Source<P>>,
}

impl<P> Default for Document<P> {
    fn default() -> Self {
        Self { sources: Vec::new() }
    }
}

impl<P> Document<P> {
    /// All sources, ordered by stream.
    pub fn sources(&self) -> &[Source<P>] {
        &self.sources
    }

    /// The first source of this type: the source, where a view takes at most one aggregate of the type per document.
    pub fn source(&self, kind: AggregateType) -> Option<&Source<P>> {
        self.sources
            .iter()
            .find(|source| source.stream.aggregate_type == kind)
    }

    /// How far `stream` has been folded in; 0 if not at all.
    pub fn version_of(&self, stream: &StreamId) -> Version {
        self.find(stream)
            .map_or(Version(0), |index| self.sources[index].version)
    }

    /// The last version of every stream in it.
    pub fn versions(&self) -> Vec<(StreamId, Version)> {
        self.sources
            .iter()
            .map(|source| (source.stream.clone(), source.version))
            .collect()
    }

    /// True before the first event.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Folds `event` in. False, and nothing changes, if it was folded in before: redelivery is normal.
    ///
    /// After an error the part of the event's aggregate is gone: drop the document and read it again.
    pub fn fold<V: View<Part = P>>(&mut self, event: &RecordedEvent) -> Result<bool, FoldError> {
        match self.find(&event.stream) {
            Ok(index) => {
                if self.sources[index].version >= event.version {
                    return Ok(false);
                }
                let Source { stream, part, .. } = self.sources.remove(index);
                let part = V::apply(Some(part), event)?;
                self.sources.insert(
                    index,
                    Source {
                        stream,
                        version: event.version,
                        part,
                    },
                );
            }
            Err(index) => {
                let part = V::apply(None, event)?;
                let source = Source {
                    stream: event.stream.clone(),
                    version: event.version,
                    part,
                };
                self.sources.insert(index, source);
            }
        }
        Ok(true)
    }

    /// The index of a stream's source, or where it would have to be.
    fn find(&self, stream: &StreamId) -> Result<usize, usize> {
        self.sources.binary_search_by(|source| source.stream.cmp(stream))
    }
}

fn stream_text<S: Serializer>(stream: &StreamId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(stream)
}

fn stream_of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StreamId, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}
