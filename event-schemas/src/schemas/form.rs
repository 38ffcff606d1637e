//! The form of our schemas, and the values that have a form of their own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// A value of text that fits `pattern`; `description` is its type's comment.
pub(crate) fn text(description: &str, pattern: &str) -> Schema {
    json_schema!({ "description": description, "type": "string", "pattern": pattern })
}

/// An id.
pub(crate) fn uuid(description: &str) -> Schema {
    json_schema!({
        "description": description,
        "type": "string",
        "format": "uuid",
        // For validators that take a format for a remark.
        "pattern": UUID,
    })
}

pub(super) const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

/// [`crate::Timestamp`], which is not ours to describe.
pub(crate) struct Time;

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "UTC.", "type": "string", "format": "date-time", "pattern": "Z$" })
    }
}

/// Bounds in place of the names of Rust's integers; no null, since what is absent is left out; comments as they read.
pub(super) fn normalize(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            bounds(fields);
            without_null(fields);
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text
                    .trim()
                    .replace('\n', " ")
                    .replace("[`", "`")
                    .replace("`]", "`");
            }
            fields.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}

fn bounds(fields: &mut Map<String, Value>) {
    let (least, most) = match fields.get("format").and_then(Value::as_str) {
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint64") => (json!(0), json!(u64::MAX)),
        Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
        _ => return,
    };
    fields.remove("format");
    fields.insert("minimum".to_owned(), least);
    fields.insert("maximum".to_owned(), most);
}

fn without_null(fields: &mut Map<String, Value>) {
    let null = json!("null");
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|kind| *kind != null);
        if let [kind] = types.as_slice() {
            let kind = kind.clone();
            fields.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(either)) = fields.get("anyOf") {
        let mut rest = either.iter().filter(|schema| schema["type"] != null);
        if let (Some(Value::Object(only)), None) = (rest.next(), rest.next()) {
            let only = only.clone();
            fields.remove("anyOf");
            fields.extend(only);
        }
    }
    if fields.get("default").is_some_and(Value::is_null) {
        fields.remove("default");
    }
}

/// With its keys in order, whatever the features of `serde_json` in this build.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        scalar => scalar,
    }
}
