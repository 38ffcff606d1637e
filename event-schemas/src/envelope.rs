//! What stands around an event: where it is, who caused it, and why.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Event;
use crate::ids::{CommandId, CorrelationId};
use crate::time::Timestamp;

/// The kinds of aggregate; also the first part of every event id and the topic's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregateType {
    Product,
    Inventory,
    Cart,
    Order,
    Payment,
}

impl AggregateType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Product,
        Self::Inventory,
        Self::Cart,
        Self::Order,
        Self::Payment,
    ];

    /// The name in the log, in ids and in topics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Inventory => "inventory",
            Self::Cart => "cart",
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }
}

impl fmt::Display for AggregateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no stream or event of this binary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ParseEnvelopeError(&'static str);

impl FromStr for AggregateType {
    type Err = ParseEnvelopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(ParseEnvelopeError(
                "one of product, inventory, cart, order, payment",
            ))
    }
}

/// The id of an aggregate within its type: a hyphenated UUID, or a SKU for inventory. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AggregateId(Arc<str>);

impl AggregateId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AggregateId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One aggregate's stream of events; written `<type>/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    pub aggregate_type: AggregateType,
    pub aggregate_id: AggregateId,
}

impl StreamId {
    /// The stream of the aggregate `id` of type `aggregate_type`.
    pub fn new(aggregate_type: AggregateType, id: impl Into<AggregateId>) -> Self {
        Self {
            aggregate_type,
            aggregate_id: id.into(),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.aggregate_id)
    }
}

impl FromStr for StreamId {
    type Err = ParseEnvelopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: ParseEnvelopeError = ParseEnvelopeError("<type>/<id>, such as inventory/MUG-1");
        let (kind, id) = text.split_once('/').ok_or(FORM)?;
        if id.is_empty() || id.len() > 64 || id.contains('/') {
            return Err(FORM);
        }
        Ok(Self::new(kind.parse()?, id))
    }
}

/// How many events an aggregate has had: the sequence of its last event, 0 before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The sequence of the event that follows this version.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event stands in the whole log: contiguous from 1, in commit order. Nothing may read meaning into the
/// order of two events of different aggregates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which log a position belongs to. A restored or imported log starts a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogIdentity {
    pub log_id: Uuid,
    pub epoch: u64,
}

/// One event for good; written `<type>/<id>/<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub stream: StreamId,
    /// The event's sequence in its stream, from 1.
    pub version: Version,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.version)
    }
}

impl FromStr for EventId {
    type Err = ParseEnvelopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: ParseEnvelopeError =
            ParseEnvelopeError("<type>/<id>/<sequence>, such as inventory/MUG-1/3");
        let (stream, version) = text.rsplit_once('/').ok_or(FORM)?;
        // One spelling an event: neither `+3` nor `03`, and sequences begin at 1.
        if version.starts_with(['+', '0']) {
            return Err(FORM);
        }
        Ok(Self {
            stream: stream.parse()?,
            version: Version(version.parse().map_err(|_| FORM)?),
        })
    }
}

/// Who does something. Without address or user agent: the log holds no contact data.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// An account id for people, the policy's or service's name for the system.
    pub id: Arc<str>,
}

impl Actor {
    /// The part of the system named `name` (a policy, a timer, a worker, the importer).
    pub fn system(name: &str) -> Self {
        Self {
            kind: ActorKind::System,
            id: name.into(),
        }
    }
}

/// The kinds of actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    Guest,
    Customer,
    Staff,
    Admin,
    /// A policy, timer or worker of OMISYS itself.
    System,
    /// A payment provider that reported a fact.
    Provider,
}

/// Why an event happened. Every value is text and the form is flat, as the `metadata` of `cqrs-es` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    pub actor_kind: ActorKind,
    pub actor_id: Arc<str>,
    /// The command's name, such as `Reserve`.
    pub command: Arc<str>,
    pub command_id: CommandId,
    pub correlation_id: CorrelationId,
    /// The event that caused the command, as [`EventId`] text; none for a command of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Arc<str>>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
}

/// An event as the log gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    pub position: Position,
    pub stream: StreamId,
    /// The event's sequence in its stream, from 1 without gaps.
    pub version: Version,
    pub event: Event,
    pub metadata: Metadata,
    pub recorded_at: Timestamp,
}

impl RecordedEvent {
    /// The event's id.
    pub fn id(&self) -> EventId {
        EventId {
            stream: self.stream.clone(),
            version: self.version,
        }
    }
}
