//! The public OpenAPI document: the services' own documents, made one.
//!
//! Works on JSON, because `utoipa`'s merge leaves a path out when another document has that path already, and here
//! the GET and the POST of one path come from different services.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// The methods that a path item may have.
pub(crate) const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// Two services document the same operation: which of them answers would be an accident.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path} is documented by two services")]
pub struct DuplicateOperation {
    /// In lower case.
    pub method: String,
    pub path: String,
}

/// One document of all `services`, each with a name (such as `query`). A component that two services define
/// differently keeps its name for the first and is prefixed with the service's name for the later one.
pub fn merge(services: &[(&str, &OpenApi)]) -> Result<Value, DuplicateOperation> {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut components: Map<String, Value> = Map::new();
    let mut tags: BTreeMap<String, Value> = BTreeMap::new();
    for (service, document) in services {
        // A document is strings, numbers and maps with string keys: it always serialises.
        let mut document = serde_json::to_value(document).unwrap_or_default();
        merge_components(service, &mut document, &mut components);
        if let Some(Value::Object(items)) = document.get_mut("paths").map(Value::take) {
            for (path, item) in items {
                merge_item(&mut paths, path, item)?;
            }
        }
        if let Some(Value::Array(list)) = document.get_mut("tags").map(Value::take) {
            for tag in list {
                if let Some(name) = tag["name"].as_str() {
                    tags.entry(name.to_owned()).or_insert(tag);
                }
            }
        }
    }
    if let Value::Object(items) = own_paths() {
        for (path, item) in items {
            merge_item(&mut paths, path, item)?;
        }
    }
    components.insert(
        "securitySchemes".to_owned(),
        json!({"bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token from /auth/login, /auth/guest or /auth/refresh.",
        }}),
    );
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "OMISYS",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An event-sourced commerce backend. Commands are POSTs and answer receipts; queries are \
                GETs from read models. Errors are RFC 9457 problems. Give a GET `at_least=<consistency token>` of a \
                receipt to read what you wrote.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    });
    if !tags.is_empty() {
        document["tags"] = tags.into_values().collect();
    }
    name_the_bearer(&mut document);
    Ok(document)
}

/// What the gateway answers itself.
fn own_paths() -> Value {
    let operation = |id: &str, summary: &str, access: &str, responses: Value, security: Value| {
        json!({"get": {
            "tags": ["ops"], "operationId": id, "summary": summary, "responses": responses, "security": security,
            "x-omisys-access": access,
        }})
    };
    let text = |description: &str| json!({"description": description});
    json!({
        "/livez": operation("livez", "Whether the process runs.", "public", json!({"200": text("It does.")}), json!([])),
        "/readyz": operation(
            "readyz",
            "Whether requests can be served. Names the parts of the system to those with `ops.read`.",
            "public",
            json!({"200": text("Ready, or ready but degraded."), "503": text("Down, or shutting down.")}),
            json!([{}, {"bearer": []}]),
        ),
        "/metrics": operation(
            "metrics",
            "Metrics in Prometheus' text format. Needs `ops.read`.",
            "ops.read",
            json!({"200": text("The metrics."), "401": text("No token."), "403": text("Without `ops.read`.")}),
            json!([{"bearer": []}]),
        ),
    })
}

fn merge_item(
    paths: &mut BTreeMap<String, Map<String, Value>>,
    path: String,
    item: Value,
) -> Result<(), DuplicateOperation> {
    let Value::Object(item) = item else { return Ok(()) };
    let merged = paths.entry(path.clone()).or_default();
    for (key, value) in item {
        if merged.contains_key(&key) && METHODS.contains(&key.as_str()) {
            return Err(DuplicateOperation { method: key, path });
        }
        merged.entry(key).or_insert(value);
    }
    Ok(())
}

fn merge_components(service: &str, document: &mut Value, components: &mut Map<String, Value>) {
    let Some(Value::Object(mut sections)) = document.get_mut("components").map(Value::take) else {
        return;
    };
    sections.remove("securitySchemes");
    // Names first: a definition may refer to another that is renamed.
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for (section, items) in &sections {
        let Some(items) = items.as_object() else { continue };
        for (name, definition) in items {
            let taken = components.get(section).and_then(|known| known.get(name));
            if taken.is_some_and(|known| known != definition) {
                let new = format!("{}{name}", capitalised(service));
                renamed.insert(
                    format!("#/components/{section}/{name}"),
                    format!("#/components/{section}/{new}"),
                );
            }
        }
    }
    let mut sections = Value::Object(sections);
    rename_references(&mut sections, &renamed);
    rename_references(document, &renamed);
    let Value::Object(sections) = sections else { return };
    for (section, items) in sections {
        let Value::Object(items) = items else { continue };
        let known = components
            .entry(section.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        let Some(known) = known.as_object_mut() else {
            continue;
        };
        for (name, definition) in items {
            let name = renamed
                .get(&format!("#/components/{section}/{name}"))
                .and_then(|reference| reference.rsplit('/').next().map(str::to_owned))
                .unwrap_or(name);
            known.entry(name).or_insert(definition);
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn rename_references(value: &mut Value, renamed: &BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(reference) if key == "$ref" => {
                        if let Some(new) = renamed.get(reference.as_str()) {
                            reference.clone_from(new);
                        }
                    }
                    other => rename_references(other, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// There is one way to authenticate; whatever a service calls it, the document says `bearer`.
fn name_the_bearer(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    let operations = paths
        .values_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut);
    for requirements in operations.filter_map(|operation| operation.get_mut("security")?.as_array_mut()) {
        for requirement in requirements {
            if requirement.as_object().is_some_and(|schemes| !schemes.is_empty()) {
                *requirement = json!({"bearer": []});
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: Value) -> OpenApi {
        serde_json::from_value(value).unwrap()
    }

    fn service(method: &str, schema: &Value) -> OpenApi {
        let reference = json!({"$ref": "#/components/schemas/Line"});
        let operation = json!({
            "security": [{"jwt": []}],
            "responses": {"200": {"description": "", "content": {"application/json": {"schema": reference}}}},
        });
        document(json!({
            "openapi": "3.1.0", "info": {"title": "", "version": ""},
            "paths": {"/v1/products": {method: operation}},
            "components": {"schemas": {"Line": schema}},
        }))
    }

    #[test]
    fn both_methods_of_a_path_stand_and_a_clashing_schema_is_renamed_with_its_references() {
        let command = service("post", &json!({"type": "string"}));
        let query = service("get", &json!({"type": "integer"}));
        let merged = merge(&[("command", &command), ("query", &query)]).unwrap();
        let path = &merged["paths"]["/v1/products"];
        let schema = |method: &str| {
            path[method]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].clone()
        };
        assert_eq!(schema("post"), "#/components/schemas/Line");
        assert_eq!(schema("get"), "#/components/schemas/QueryLine");
        assert_eq!(merged["components"]["schemas"]["Line"]["type"], "string");
        assert_eq!(merged["components"]["schemas"]["QueryLine"]["type"], "integer");
        assert_eq!(path["get"]["security"], json!([{"bearer": []}]));
    }

    #[test]
    fn equal_schemas_are_one() {
        let command = service("post", &json!({"type": "string"}));
        let query = service("get", &json!({"type": "string"}));
        let merged = merge(&[("command", &command), ("query", &query)]).unwrap();
        assert_eq!(merged["components"]["schemas"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn an_operation_has_one_service() {
        let one = service("get", &json!({"type": "string"}));
        let error = merge(&[("command", &one), ("query", &one)]).unwrap_err();
        assert_eq!(
            error,
            DuplicateOperation {
                method: "get".to_owned(),
                path: "/v1/products".to_owned()
            }
        );
    }
}
