//! The stream as an `AsyncAPI` 3 document: topics, keys, headers, messages.
//!
//! Its schemas are of the default dialect, a superset of JSON Schema draft-07, which every tool reads: definitions are
//! shared below `components`, and nothing stands beside a reference.

use serde_json::{Map, Value, json};

use super::form::UUID;
use super::{DEFINITIONS, EventSchema, take_object};
use crate::AggregateType;

/// The document's name in the folder of an export.
pub const DOCUMENT: &str = "asyncapi.json";

const KAFKA_BINDING: &str = "0.5.0";

pub(super) fn document(events: &[EventSchema]) -> Value {
    let mut definitions = Map::from_iter([
        ("EventHeaders".to_owned(), headers()),
        ("Metadata".to_owned(), Value::Null),
    ]);
    let metadata = payload("Metadata", super::metadata(), &mut definitions);
    definitions.insert("Metadata".to_owned(), metadata);
    let mut messages = Map::new();
    for event in events {
        messages.insert(name(event), message(event, &mut definitions));
    }
    let mut channels = Map::new();
    let mut operations = Map::new();
    for aggregate_type in AggregateType::ALL {
        let names: Vec<String> = events
            .iter()
            .filter(|event| event.aggregate_type == aggregate_type)
            .map(name)
            .collect();
        let channel = format!("#/channels/{aggregate_type}");
        let sent = names
            .iter()
            .map(|name| json!({ "$ref": format!("{channel}/messages/{name}") }));
        operations.insert(
            format!("relay-{aggregate_type}"),
            json!({
                "action": "send",
                "channel": { "$ref": channel },
                "summary": format!("The relay copies every event of type `{aggregate_type}` from the log, at least once."),
                "messages": sent.collect::<Vec<_>>(),
            }),
        );
        channels.insert(aggregate_type.to_string(), channel_of(aggregate_type, &names));
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:omisys:events",
        "info": {
            "title": "OMISYS events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every event of the log, copied to a Kafka topic per aggregate type. The key is the aggregate's id, so that one \
                aggregate's events come in order; events of different aggregates have no order that anything may rely on. Delivery is at \
                least once: a repeat has the same `omisys_position`. Events come in the version that they were written in, old ones in an old one.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{brokers}",
                "protocol": "kafka",
                "variables": {
                    "brokers": { "default": "localhost:9092", "description": "`host:port`, several separated by commas." },
                },
            },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": definitions },
    })
}

fn name(event: &EventSchema) -> String {
    format!("{}.{}", event.event_type, event.event_version)
}

fn channel_of(aggregate_type: AggregateType, messages: &[String]) -> Value {
    let messages: Map<String, Value> = messages
        .iter()
        .map(|name| {
            (
                name.clone(),
                json!({ "$ref": format!("#/components/messages/{name}") }),
            )
        })
        .collect();
    json!({
        "address": format!("{{prefix}}.{aggregate_type}"),
        "title": format!("Events of type {aggregate_type}"),
        "parameters": {
            "prefix": { "default": "omisys", "description": "`[kafka] topic_prefix` of the installation." },
        },
        "messages": messages,
        "bindings": { "kafka": { "topicConfiguration": { "cleanup.policy": ["delete"] }, "bindingVersion": KAFKA_BINDING } },
    })
}

fn message(event: &EventSchema, definitions: &mut Map<String, Value>) -> Value {
    let key = if event.aggregate_type == AggregateType::Inventory {
        json!({ "$ref": "#/components/schemas/Sku" })
    } else {
        json!({ "type": "string", "format": "uuid", "pattern": UUID })
    };
    let mut message = json!({
        "name": event.event_type,
        "title": event.document["title"],
        "headers": {
            "allOf": [
                { "$ref": "#/components/schemas/EventHeaders" },
                {
                    "type": "object",
                    "properties": {
                        "ce_type": { "const": event.event_type },
                        "omisys_event_version": { "const": event.event_version },
                    },
                },
            ],
        },
        "payload": payload(&name(event), event.document.clone(), definitions),
        "correlationId": {
            "description": "The same for everything that one request of a client caused.",
            "location": "$message.header#/omisys_correlation_id",
        },
        "bindings": { "kafka": { "key": key, "bindingVersion": KAFKA_BINDING } },
    });
    if !event.document["description"].is_null() {
        message["summary"] = event.document["description"].clone();
    }
    message
}

/// A document's body, its definitions moved to the shared ones. Those of an older version that differ from what has the
/// name now get names of their own.
fn payload(owner: &str, document: Value, shared: &mut Map<String, Value>) -> Value {
    let Value::Object(mut body) = document else {
        return document;
    };
    let own = take_object(&mut body, DEFINITIONS);
    let moved = |suffix: &str| -> Vec<(String, Value)> {
        own.iter()
            .map(|(name, definition)| (format!("{name}{suffix}"), draft_07(definition.clone(), suffix)))
            .collect()
    };
    let differs = moved("")
        .iter()
        .any(|(name, definition)| shared.get(name).is_some_and(|known| known != definition));
    let suffix = if differs {
        format!("-{owner}")
    } else {
        String::new()
    };
    shared.extend(moved(&suffix));
    body.remove("$schema");
    body.remove("$id");
    draft_07(Value::Object(body), &suffix)
}

/// Points references at the shared definitions, `suffix` behind their names; what stands beside a reference, which
/// draft-07 ignores, goes around it.
fn draft_07(value: Value, suffix: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Map<String, Value> = fields
                .into_iter()
                .map(|(key, value)| (key, draft_07(value, suffix)))
                .collect();
            let name = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.strip_prefix("#/$defs/"));
            if let Some(name) = name {
                let reference = json!({ "$ref": format!("#/components/schemas/{name}{suffix}") });
                fields.remove("$ref");
                if fields.is_empty() {
                    return reference;
                }
                fields.insert("allOf".to_owned(), json!([reference]));
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.into_iter().map(|item| draft_07(item, suffix)).collect(),
        scalar => scalar,
    }
}

/// What the relay writes beside every event. A test of `event-bus` compares.
fn headers() -> Value {
    let number = "^(0|[1-9][0-9]*)$";
    json!({
        "description": "CloudEvents 1.0 in binary mode, and what a subscriber needs besides. Every value is text in UTF-8.",
        "type": "object",
        "properties": {
            "ce_specversion": { "type": "string", "const": "1.0" },
            "ce_id": {
                "description": "`<type>/<id>/<sequence>`, which names the event for good.",
                "type": "string",
                "pattern": "^(product|inventory|cart|order|payment)/[^/]{1,64}/[1-9][0-9]*$",
            },
            "ce_source": { "description": "`/omisys/logs/<log id>`.", "type": "string", "format": "uri-reference" },
            "ce_type": { "description": "The event type.", "type": "string" },
            "ce_time": { "description": "When it was recorded, UTC.", "type": "string", "format": "date-time" },
            "content-type": { "type": "string", "const": "application/json" },
            "omisys_event_version": {
                "description": "The schema version of the payload, `major.minor`.",
                "type": "string",
                "pattern": "^[0-9]+\\.[0-9]+$",
            },
            "omisys_position": {
                "description": "Where it stands in the log: contiguous from 1, in commit order. A repeat has the same.",
                "type": "string",
                "pattern": "^[1-9][0-9]*$",
            },
            "omisys_after": {
                "description": "The position of the event before it in this partition, 0 for the first. Who has not seen that one lacks something.",
                "type": "string",
                "pattern": number,
            },
            "omisys_log_id": { "description": "Which log it is of.", "type": "string", "format": "uuid" },
            "omisys_epoch": {
                "description": "A restored or imported log starts a new one: positions of another epoch say nothing about this one.",
                "type": "string",
                "pattern": number,
            },
            "omisys_metadata": {
                "description": "Who caused the event, by which command, because of what: JSON text of `#/components/schemas/Metadata`.",
                "type": "string",
                "contentMediaType": "application/json",
            },
            "omisys_correlation_id": { "description": "As in the metadata.", "type": "string", "format": "uuid" },
            "omisys_causation_id": {
                "description": "As in the metadata: the event that caused the command, if one did.",
                "type": "string",
            },
            "traceparent": { "description": "W3C trace context, if the command had one.", "type": "string" },
        },
        "required": [
            "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "omisys_event_version",
            "omisys_position", "omisys_after", "omisys_log_id", "omisys_epoch", "omisys_metadata",
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_version: &'static str, pattern: &str) -> EventSchema {
        EventSchema {
            aggregate_type: AggregateType::Cart,
            event_type: "ItemRemoved",
            event_version,
            document: json!({
                "properties": { "ItemRemoved": { "properties": { "sku": { "$ref": "#/$defs/Sku", "description": "Which." } } } },
                "$defs": { "Sku": { "$ref": "#/$defs/Code" }, "Code": { "pattern": pattern } },
            }),
        }
    }

    #[test]
    fn what_a_past_version_meant_by_a_name_stays_apart_from_what_it_means_now() {
        let document = document(&[
            event("2.0", "^[a-z]$"),
            event("1.1", "^[a-z]$"),
            event("1.0", "^[A-Z]$"),
        ]);
        let of_sku = |message: &str| {
            let pointer =
                format!("/components/messages/{message}/payload/properties/ItemRemoved/properties/sku");
            document.pointer(&pointer).cloned().unwrap_or_default()
        };
        let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        for shared in ["ItemRemoved.2.0", "ItemRemoved.1.1"] {
            assert_eq!(
                of_sku(shared),
                json!({ "allOf": [reference("Sku")], "description": "Which." })
            );
        }
        assert_eq!(
            of_sku("ItemRemoved.1.0")["allOf"],
            json!([reference("Sku-ItemRemoved.1.0")])
        );
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Sku-ItemRemoved.1.0"], reference("Code-ItemRemoved.1.0"));
        assert_eq!(schemas["Code-ItemRemoved.1.0"]["pattern"], "^[A-Z]$");
        assert_eq!(schemas["Code"]["pattern"], "^[a-z]$");
    }
}
