//! The log as an event store of cqrs-es, so that its `CqrsFramework` runs on it.

use std::collections::HashMap;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use aggregates::Decide;
use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use event_schemas::{Actor, AggregateId, CommandId, CorrelationId, Metadata, StreamId, Version, derive_uuid};
use serde_json::Value;

use crate::streams::Streams;
use crate::{Append, AppendOutcome, Chain, Journal, Log, Unavailable};

/// Gives `cqrs_es::CqrsFramework` the log: group commit, positions and receipts included, but without the executor's
/// cache. For tools and tests that speak cqrs-es; OMISYS itself uses [`crate::Executor`].
///
/// The metadata that goes with a command has the fields of [`Metadata`]. Without any, the system is the actor, and the
/// command's id is derived from the stream and its version.
pub struct CqrsStore<A> {
    journal: Journal,
    streams: Arc<Streams>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> CqrsStore<A> {
    /// A store that reads and writes `log`.
    pub fn new(log: &Log) -> Self {
        Self {
            journal: log.journal(),
            streams: log.streams(),
            aggregate: PhantomData,
        }
    }
}

/// An aggregate that was loaded for a command.
#[derive(Debug)]
pub struct LoadedAggregate<A> {
    id: AggregateId,
    state: A,
    version: Version,
}

impl<A: Decide> AggregateContext<A> for LoadedAggregate<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.state
    }
}

impl<A: Decide> EventStore<A> for CqrsStore<A> {
    type AC = LoadedAggregate<A>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let id = AggregateId::from(aggregate_id);
        let stored = self
            .streams
            .serialized_after::<A>(&id, Version(0))
            .await
            .map_err(unavailable)?;
        stored
            .into_iter()
            .map(|mut event| {
                let metadata = serde_json::from_value(event.metadata.take()).map_err(unexpected)?;
                Ok(EventEnvelope {
                    aggregate_id: aggregate_id.to_owned(),
                    sequence: event.sequence,
                    payload: self.streams.decode::<A>(&id, event).map_err(unavailable)?,
                    metadata,
                })
            })
            .collect()
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Self::AC, AggregateError<A::Error>> {
        let id = AggregateId::from(aggregate_id);
        let (state, version) = self.streams.load::<A>(&id, None).await.map_err(unavailable)?;
        Ok(LoadedAggregate { id, state, version })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Self::AC,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let LoadedAggregate {
            id,
            version: expected,
            ..
        } = context;
        let stream = StreamId {
            aggregate_type: A::AGGREGATE_TYPE,
            aggregate_id: id,
        };
        let derived = !metadata.contains_key("command_id");
        let full = full_metadata(&stream, expected, metadata).map_err(unexpected)?;
        let flat: HashMap<String, String> = serde_json::to_value(&full)
            .and_then(serde_json::from_value)
            .map_err(unexpected)?;
        let envelopes = events
            .iter()
            .zip(1..)
            .map(|(event, ordinal)| EventEnvelope {
                aggregate_id: stream.aggregate_id.as_str().to_owned(),
                sequence: expected.0 as usize + ordinal,
                payload: event.clone(),
                metadata: flat.clone(),
            })
            .collect();
        let events = events.into_iter().map(Into::into).collect();
        let append = Append {
            stream,
            expected,
            events,
            metadata: full,
            fingerprint: None,
        };
        match self.journal.append(&Chain::new(), append).await {
            AppendOutcome::Appended(_) => Ok(envelopes),
            // Someone else's command at this version derives the same id: no repeat of this one.
            AppendOutcome::Duplicate(_) if derived => Err(AggregateError::AggregateConflict),
            // The first one's events are out already.
            AppendOutcome::Duplicate(_) => Ok(Vec::new()),
            AppendOutcome::Conflict { .. } | AppendOutcome::ChainBroken => {
                Err(AggregateError::AggregateConflict)
            }
            AppendOutcome::Unavailable(error) => Err(unavailable(error)),
        }
    }
}

/// What the caller gave, completed.
fn full_metadata(
    stream: &StreamId,
    expected: Version,
    given: HashMap<String, String>,
) -> serde_json::Result<Metadata> {
    let parts = [
        stream.aggregate_type.as_str().as_bytes(),
        stream.aggregate_id.as_str().as_bytes(),
    ];
    let version = expected.0.to_be_bytes();
    let command_id = CommandId::from_uuid(derive_uuid(
        "omisys/command/cqrs-es",
        &[parts[0], parts[1], &version],
    ));
    let actor = Actor::system("cqrs-es");
    let default = Metadata {
        actor_kind: actor.kind,
        actor_id: actor.id,
        command: "cqrs-es".into(),
        command_id,
        correlation_id: CorrelationId::for_command(command_id),
        causation_id: None,
        traceparent: None,
    };
    let mut full = serde_json::to_value(default)?;
    if let Value::Object(fields) = &mut full {
        fields.extend(
            given
                .into_iter()
                .map(|(name, value)| (name, Value::String(value))),
        );
    }
    serde_json::from_value(full)
}

fn unavailable<E: Error>(error: Unavailable) -> AggregateError<E> {
    match error {
        Unavailable::Store(_) | Unavailable::Closed => AggregateError::DatabaseConnectionError(error.into()),
        Unavailable::Unreadable(_) | Unavailable::Corrupt { .. } => {
            AggregateError::DeserializationError(error.into())
        }
        Unavailable::TooLarge { .. } | Unavailable::Defect(_) => {
            AggregateError::UnexpectedError(error.into())
        }
    }
}

fn unexpected<E: Error>(error: serde_json::Error) -> AggregateError<E> {
    AggregateError::UnexpectedError(error.into())
}
