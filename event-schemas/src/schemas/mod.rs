//! JSON Schemas (draft 2020-12) of every event, made from the types, and the `AsyncAPI` document of the stream.
//!
//! This crate's folder holds them as they are committed, `schemas/` and `asyncapi.json`; a test compares.

mod asyncapi;
mod form;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{AggregateType, CartEvent, InventoryEvent, Metadata, OrderEvent, PaymentEvent, ProductEvent};

pub use asyncapi::DOCUMENT as ASYNCAPI_FILE;
pub(crate) use form::{Time, text, uuid};

/// The payload of one version of one event type, as the log and the stream hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSchema {
    pub aggregate_type: AggregateType,
    pub event_type: &'static str,
    pub event_version: &'static str,
    /// JSON Schema.
    pub document: Value,
}

impl EventSchema {
    /// Where the document is kept, below this crate's folder and below the folder of an export.
    pub fn path(&self) -> String {
        format!(
            "schemas/{}/{}.{}.json",
            self.aggregate_type, self.event_type, self.event_version
        )
    }
}

/// A version that logs hold and that this binary does not write any more: its schema stays as it was.
struct Past {
    aggregate_type: AggregateType,
    event_type: &'static str,
    event_version: &'static str,
    /// The committed file.
    document: &'static str,
}

/// Every version that was superseded by another or whose type has left the code. None yet. An entry takes its document
/// from the committed file, by `include_str!("../../schemas/<aggregate>/<type>.<version>.json")`.
const PAST: &[Past] = &[];

/// The schema of every version that a log may hold: what this binary writes, then what earlier ones wrote.
pub fn events() -> Vec<EventSchema> {
    let mut schemas: Vec<EventSchema> = AggregateType::ALL.into_iter().flat_map(written).collect();
    schemas.extend(PAST.iter().map(|past| EventSchema {
        aggregate_type: past.aggregate_type,
        event_type: past.event_type,
        event_version: past.event_version,
        document: serde_json::from_str(past.document).unwrap_or_default(),
    }));
    schemas
}

/// Every file of an export by its path in the folder: a schema an event version, the metadata's, and the `AsyncAPI` document.
pub fn files() -> BTreeMap<String, String> {
    let events = events();
    let mut documents = BTreeMap::from([
        ("schemas/metadata.json".to_owned(), metadata()),
        (ASYNCAPI_FILE.to_owned(), asyncapi::document(&events)),
    ]);
    documents.extend(events.into_iter().map(|schema| (schema.path(), schema.document)));
    documents
        .into_iter()
        .map(|(path, document)| (path, format!("{:#}\n", form::sorted(document))))
        .collect()
}

/// The `AsyncAPI` 3 document of the stream.
pub fn asyncapi() -> Value {
    asyncapi::document(&events())
}

fn written(aggregate_type: AggregateType) -> Vec<EventSchema> {
    match aggregate_type {
        AggregateType::Product => variants::<ProductEvent>(aggregate_type, ProductEvent::TYPES),
        AggregateType::Inventory => variants::<InventoryEvent>(aggregate_type, InventoryEvent::TYPES),
        AggregateType::Cart => variants::<CartEvent>(aggregate_type, CartEvent::TYPES),
        AggregateType::Order => variants::<OrderEvent>(aggregate_type, OrderEvent::TYPES),
        AggregateType::Payment => variants::<PaymentEvent>(aggregate_type, PaymentEvent::TYPES),
    }
}

/// One document a variant of the enum `T`.
fn variants<T: JsonSchema>(
    aggregate_type: AggregateType,
    types: &'static [(&'static str, &'static str)],
) -> Vec<EventSchema> {
    let mut root = generated::<T>();
    let definitions = take_object(&mut root, DEFINITIONS);
    let Some(Value::Array(variants)) = root.remove("oneOf") else {
        return Vec::new();
    };
    let find = |event_type: &str| {
        variants
            .iter()
            .find(|variant| !variant["properties"][event_type].is_null())
    };
    let document = |(event_type, event_version): &(&'static str, &'static str)| {
        let mut body = find(event_type)?.as_object()?.clone();
        // A variant that holds a struct is described by it.
        let inner = &definitions.get(*event_type).unwrap_or(&Value::Null)["description"];
        if !inner.is_null() {
            body.entry("description").or_insert_with(|| inner.clone());
        }
        body.insert("title".to_owned(), format!("{event_type} {event_version}").into());
        let id = format!("urn:omisys:event:{aggregate_type}:{event_type}:{event_version}");
        Some(EventSchema {
            aggregate_type,
            event_type,
            event_version,
            document: finished(&id, body, &definitions),
        })
    };
    types.iter().filter_map(document).collect()
}

fn metadata() -> Value {
    let mut body = generated::<Metadata>();
    let definitions = take_object(&mut body, DEFINITIONS);
    finished("urn:omisys:metadata", body, &definitions)
}

const DEFINITIONS: &str = "$defs";

/// What schemars makes of `T`, in the form of ours.
fn generated<T: JsonSchema>() -> Map<String, Value> {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut root = generator.into_root_schema_for::<T>().to_value();
    form::normalize(&mut root);
    match root {
        Value::Object(root) => root,
        _ => Map::new(),
    }
}

/// `body` as a document of its own, with those of `definitions` that it needs.
fn finished(id: &str, mut body: Map<String, Value>, definitions: &Map<String, Value>) -> Value {
    let mut needed = Map::new();
    let mut names: Vec<String> = references(&Value::Object(body.clone()));
    while let Some(name) = names.pop() {
        if let Some(definition) = definitions.get(&name).filter(|_| !needed.contains_key(&name)) {
            names.extend(references(definition));
            needed.insert(name, definition.clone());
        }
    }
    if !needed.is_empty() {
        body.insert(DEFINITIONS.to_owned(), needed.into());
    }
    body.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    body.insert("$id".to_owned(), id.into());
    Value::Object(body)
}

/// The definitions that `value` names.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => target
                    .strip_prefix("#/$defs/")
                    .map(str::to_owned)
                    .into_iter()
                    .collect(),
                _ => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn take_object(from: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match from.remove(key) {
        Some(Value::Object(taken)) => taken,
        _ => Map::new(),
    }
}
