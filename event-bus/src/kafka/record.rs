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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use event_schemas::schemas;

    use super::*;

    fn written(metadata: &str) -> BTreeSet<String> {
        let event = RawEvent {
            position: Position(7),
            aggregate_type: "cart".to_owned(),
            aggregate_id: AggregateId::from("01890a5d-ac96-774b-bcce-000000000003"),
            version: Version(2),
            event_type: "CartCleared".to_owned(),
            event_version: "1.0".to_owned(),
            payload: r#"{"CartCleared":{}}"#.to_owned(),
            metadata: metadata.to_owned(),
            recorded_at: Timestamp::UNIX_EPOCH,
        };
        let log = LogIdentity {
            log_id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
            epoch: 1,
        };
        let headers = headers(&event, log, Position(3));
        headers.iter().map(|header| header.key.to_owned()).collect()
    }

    #[test]
    fn the_asyncapi_document_lists_the_headers_that_are_written() {
        let document = schemas::asyncapi();
        let schema = &document["components"]["schemas"]["EventHeaders"];
        let properties = schema["properties"].as_object().unwrap().keys().cloned();
        let full = r#"{"actor_kind":"customer","actor_id":"a","command":"Clear",
            "command_id":"01890a5d-ac96-774b-bcce-000000000001","correlation_id":"01890a5d-ac96-774b-bcce-000000000001",
            "causation_id":"cart/a/1","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#;
        assert_eq!(properties.collect::<BTreeSet<_>>(), written(full));
        let required = schema["required"].as_array().unwrap().iter();
        let required = required.map(|name| name.as_str().unwrap().to_owned());
        assert_eq!(
            required.collect::<BTreeSet<_>>(),
            written("{}"),
            "what is always there"
        );
    }
}
