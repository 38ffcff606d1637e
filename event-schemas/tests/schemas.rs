//! The committed JSON Schemas and the AsyncAPI document are what the types say, and the schema of a version that has
//! been written changes in no way that a reader of it would notice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use event_schemas::schemas;
use serde_json::{Map, Value, json};

/// Set it (to anything) to write what is missing or has changed compatibly.
const WRITE: &str = "OMISYS_WRITE_SCHEMAS";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_files_are_what_the_types_say() {
    let committed = |name: &str| fs::read_to_string(folder().join(name)).ok();
    let mut changed = schemas::files();
    changed.retain(|name, text| committed(name).as_ref() != Some(text));
    for schema in schemas::events() {
        let name = schema.path();
        let (Some(old), Some(new)) = (committed(&name), changed.get(&name)) else {
            continue;
        };
        assert!(
            compatible(&parsed(&old), &parsed(new)),
            "{name}: the schema of a version that has been written must not change incompatibly: raise the version \
             and add an upcaster, or add only optional fields (docs/event-evolution.md)"
        );
    }
    for (name, text) in changed {
        assert!(
            std::env::var_os(WRITE).is_some(),
            "{name} is not what the types say; {WRITE}=1 writes it anew"
        );
        let path = folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
}

#[test]
fn no_schema_is_left_behind() {
    let known = schemas::files();
    let stray: Vec<PathBuf> = files_below(&folder().join("schemas"))
        .into_iter()
        .filter(|path| !known.contains_key(path.strip_prefix(folder()).unwrap().to_str().unwrap()))
        .collect();
    assert!(
        stray.is_empty(),
        "not written any more, and not among the past ones of src/schemas/mod.rs: {stray:?}"
    );
}

#[test]
fn a_schema_names_its_event_and_asks_for_the_one_key_of_a_payload() {
    for schema in schemas::events() {
        let (document, name) = (&schema.document, schema.event_type);
        assert_eq!(
            document["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        let id = format!(
            "urn:omisys:event:{}:{name}:{}",
            schema.aggregate_type, schema.event_version
        );
        assert_eq!(document["$id"], id);
        assert_eq!(document["required"], json!([name]), "{name}");
        assert_eq!(document["additionalProperties"], false, "{name}");
        assert!(document["properties"][name].is_object(), "{name}");
    }
}

#[test]
fn every_event_of_the_log_is_a_message_of_the_channel_of_its_type() {
    let document = schemas::asyncapi();
    for schema in schemas::events() {
        let name = format!("{}.{}", schema.event_type, schema.event_version);
        let of_channel = &document["channels"][schema.aggregate_type.as_str()]["messages"][&name];
        assert_eq!(of_channel["$ref"], format!("#/components/messages/{name}"));
        let message = &document["components"]["messages"][&name];
        assert!(
            message["payload"]["properties"][schema.event_type].is_object(),
            "{name}"
        );
    }
}

#[test]
fn every_reference_of_the_asyncapi_document_leads_somewhere() {
    let document = schemas::asyncapi();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 100, "{} references", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_guide_names_every_header() {
    let guide = fs::read_to_string(folder().join("../docs/events.md")).unwrap();
    let document = schemas::asyncapi();
    let headers = document["components"]["schemas"]["EventHeaders"]["properties"]
        .as_object()
        .unwrap();
    for name in headers.keys() {
        assert!(
            guide.contains(&format!("`{name}`")),
            "docs/events.md lacks {name}"
        );
    }
}

#[test]
fn a_reader_notices_everything_but_optional_fields_and_remarks() {
    let old = json!({
        "title": "Moved 1.0",
        "type": "object",
        "properties": { "to": { "$ref": "#/$defs/Place" }, "why": { "enum": ["sold", "lost"] }, "description": { "type": "string" } },
        "required": ["to"],
        "$defs": {
            "Place": { "type": "string", "pattern": "^[a-z]+$" },
            "Money": { "type": "object", "properties": { "amount": { "maximum": 9 } }, "required": ["amount"], "additionalProperties": false },
        },
    });
    let changed = |pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(key);
        } else {
            parent.insert(key.to_owned(), value);
        }
        compatible(&old, &new)
    };
    assert!(changed("/description", json!("What moved.")));
    assert!(
        changed("/properties/by", json!({ "type": "string" })),
        "an optional field"
    );
    assert!(changed("/$defs/Person", json!({ "type": "string" })));
    assert!(!changed("/properties/to", Value::Null), "a field is gone");
    assert!(
        !changed("/properties/description", Value::Null),
        "also one named like a remark"
    );
    assert!(!changed("/required", json!(["to", "why"])), "a field is required");
    assert!(
        !changed("/required", json!([])),
        "a field is not required any more"
    );
    assert!(!changed(
        "/properties/why",
        json!({ "enum": ["sold", "lost", "eaten"] })
    ));
    assert!(!changed("/properties/why", json!({ "enum": ["sold"] })));
    assert!(!changed("/$defs/Place/pattern", json!("^[a-z]{1,9}$")));
    assert!(!changed("/$defs/Place/type", json!("integer")));
    assert!(!changed("/$defs/Place/minLength", json!(1)));
    assert!(
        !changed("/$defs/Money/properties/note", json!({ "type": "string" })),
        "older readers refuse it here"
    );
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// What a validator does not look at.
const REMARKS: [&str; 4] = ["title", "description", "deprecated", "default"];

/// Whether what fits `old` fits `new` and the other way round, optional fields that `new` adds aside.
fn compatible(old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return old == new;
    };
    let closed = old.get("additionalProperties") == Some(&Value::Bool(false));
    let keywords: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keywords
        .into_iter()
        .filter(|keyword| !REMARKS.contains(&keyword.as_str()))
        .all(
            |keyword| match (keyword.as_str(), old.get(keyword), new.get(keyword)) {
                ("properties", Some(Value::Object(old)), Some(Value::Object(new))) => kept(old, new, !closed),
                ("$defs", Some(Value::Object(old)), Some(Value::Object(new))) => kept(old, new, true),
                ("$defs", None, Some(_)) => true,
                ("oneOf" | "anyOf" | "allOf", Some(Value::Array(old)), Some(Value::Array(new))) => {
                    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| compatible(old, new))
                }
                (_, Some(old), Some(new)) => compatible(old, new),
                _ => false,
            },
        )
}

/// Whether every schema of `old` is in `new` under the same name, and nothing else unless it may be.
fn kept(old: &Map<String, Value>, new: &Map<String, Value>, more: bool) -> bool {
    let same = old
        .iter()
        .all(|(name, old)| new.get(name).is_some_and(|new| compatible(old, new)));
    same && (more || old.len() == new.len())
}
