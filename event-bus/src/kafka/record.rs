//! An event as a Kafka record: a `CloudEvents` 1.0 event in binary mode, with what a subscriber needs besides.
//!
//! Key: the aggregate's id. Value: the event's JSON as the log has it. Headers, all of them text:
//!
//! | header | holds |
//! |---|---|
//! | `ce_specversion`, `ce_id`, `ce_source`, `ce_type`, `ce_time`, `content-type` | as `CloudEvents` asks; the id is `<type>/<id>/<sequence>` |
//! | `omisys_event_version` | the schema version of the event |
//! | `omisys_position` | where it stands in the log |
//! | `omisys_after` | the position of the event before it in this partition: nothing of the partition lies between |
//! | `omisys_log_id`, `omisys_epoch` | which log this is |
//! | `omisys_metadata` | the event's metadata as the log has it, JSON |
//! | `omisys_correlation_id`, `omisys_causation_id`, `traceparent` | from the metadata, for others |

use event_schemas::{AggregateId, LogIdentity, Metadata, Position, Timestamp, Version};
use event_store::RawEvent;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};

use super::Kafka;
use crate::PartitionKey;

/// A record that was read.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) partition: PartitionKey,
    pub(super) offset: i64,
    pub(super) after: Position,
    pub(super) log: LogIdentity,
    pub(super) raw: RawEvent,
}

/// The headers of `event`, which follows the event at `after` in its partition.
pub(super) fn headers(event: &RawEvent, log: LogIdentity, after: Position) -> OwnedHeaders {
    let metadata: Option<Metadata> = serde_json::from_str(&event.metadata).ok();
    let id = format!(
        "{}/{}/{}",
        event.aggregate_type, event.aggregate_id, event.version
    );
    let text = |headers: OwnedHeaders, key: &str, value: &str| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    };
    let mut headers = OwnedHeaders::new_with_capacity(15);
    let log_id = log.log_id.to_string();
    for (key, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", &format!("/omisys/logs/{log_id}")),
        ("ce_type", &event.event_type),
        ("ce_time", &event.recorded_at.to_string()),
        ("content-type", "application/json"),
        ("omisys_event_version", &event.event_version),
        ("omisys_position", &event.position.to_string()),
        ("omisys_after", &after.to_string()),
        ("omisys_log_id", &log_id),
        ("omisys_epoch", &log.epoch.to_string()),
        ("omisys_metadata", &event.metadata),
    ] {
        headers = text(headers, key, value);
    }
    // Metadata that fits no schema is delivered as it is: the subscriber says so.
    if let Some(metadata) = metadata {
        headers = text(
            headers,
            "omisys_correlation_id",
            &metadata.correlation_id.to_string(),
        );
        if let Some(causation) = &metadata.causation_id {
            headers = text(headers, "omisys_causation_id", causation);
        }
        if let Some(traceparent) = &metadata.traceparent {
            headers = text(headers, "traceparent", traceparent);
        }
    }
    headers
}

/// The record in `message`; none if the relay did not make it so.
pub(super) fn read(kafka: &Kafka, message: &BorrowedMessage<'_>) -> Option<Record> {
    let partition = kafka.key(message.topic(), message.partition())?;
    let mut found: [Option<&str>; FIELDS.len()] = [None; FIELDS.len()];
    for header in message.headers()?.iter() {
        if let Some(place) = FIELDS.iter().position(|field| *field == header.key) {
            *found.get_mut(place)? = Some(std::str::from_utf8(header.value?).ok()?);
        }
    }
    let [id, kind, time, version, position, after, log_id, epoch, metadata] = found;
    let (aggregate_type, rest) = id?.split_once('/')?;
    let (aggregate_id, sequence) = rest.rsplit_once('/')?;
    Some(Record {
        partition,
        offset: message.offset(),
        after: Position(after?.parse().ok()?),
        log: LogIdentity {
            log_id: log_id?.parse().ok()?,
            epoch: epoch?.parse().ok()?,
        },
        raw: RawEvent {
            position: Position(position?.parse().ok()?),
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id: AggregateId::from(aggregate_id),
            version: Version(sequence.parse().ok()?),
            event_type: kind?.to_owned(),
            event_version: version?.to_owned(),
            payload: std::str::from_utf8(message.payload()?).ok()?.to_owned(),
            metadata: metadata?.to_owned(),
            recorded_at: time?.parse::<Timestamp>().ok()?,
        },
    })
}

/// In the order in which [`read`] takes them apart.
const FIELDS: [&str; 9] = [
    "ce_id",
    "ce_type",
    "ce_time",
    "omisys_event_version",
    "omisys_position",
    "omisys_after",
    "omisys_log_id",
    "omisys_epoch",
    "omisys_metadata",
];
