//! Typed queries as filters. Nothing a client writes becomes a field name or an operator.

use mongodb::bson::{Bson, Document, doc};

use crate::error::ViewError;
use crate::query::{Direction, KeyKind, KeyValue, Query};
use crate::store::ViewSchema;

/// A page as MongoDB is asked for it.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    pub(super) filter: Document,
    pub(super) sort: Document,
    /// The field that the list is ordered by; none: by id.
    pub(super) order: Option<String>,
}

/// The field of a key.
pub(super) fn field(key: &str) -> String {
    format!("k_{key}")
}

/// An absent key is stored as null, so that changing to it needs no operator of its own.
pub(super) fn value(value: &KeyValue) -> Bson {
    match value {
        KeyValue::Integer(value) => Bson::Int64(*value),
        KeyValue::Text(text) => Bson::String(text.clone()),
        KeyValue::Absent => Bson::Null,
    }
}

/// The stored value of a key.
pub(super) fn key(value: Option<Bson>) -> KeyValue {
    match value {
        Some(Bson::Int64(value)) => KeyValue::Integer(value),
        Some(Bson::Int32(value)) => KeyValue::Integer(value.into()),
        Some(Bson::String(text)) => KeyValue::Text(text),
        _ => KeyValue::Absent,
    }
}

/// The filter and order of a page.
pub(super) fn page(schema: &ViewSchema, query: &Query) -> Result<Page, ViewError> {
    let mut all: Vec<Document> = Vec::new();
    for (key, value) in &query.equals {
        check(schema, key)?;
        all.push(compare(field(key), "$eq", value));
    }
    if let Some((key, from, until)) = &query.range {
        check(schema, key)?;
        for (operator, bound) in [("$gte", from), ("$lt", until)] {
            if let Some(bound) = bound {
                all.push(compare(field(key), operator, bound));
            }
        }
    }
    if let Some((key, words)) = &query.words {
        check(schema, key)?;
        let contains = |word: &String| doc! { field(key): { "$regex": literally(word) } };
        all.extend(words.iter().map(contains));
    }
    let (direction, beyond) = match query.direction {
        Direction::Ascending => (1, "$gt"),
        Direction::Descending => (-1, "$lt"),
    };
    let mut sort = Document::new();
    let order = match query.order {
        Some(key) => {
            let kind = check(schema, key)?;
            let field = field(key);
            // Documents that no list shows have no keys. Comparisons stay within a type, so this leaves out null, and
            // the index still serves.
            let lowest = match kind {
                KeyKind::Text => Bson::String(String::new()),
                KeyKind::Integer => Bson::Int64(i64::MIN),
            };
            all.push(doc! { &field: { "$gte": lowest } });
            sort.insert(&field, direction);
            Some(field)
        }
        None => None,
    };
    sort.insert("_id", direction);
    if let Some(after) = &query.after {
        let by_id = doc! { "_id": { beyond: after.id.as_str() } };
        all.push(match &order {
            None => by_id,
            Some(field) => {
                let same_key = compare(field.clone(), "$eq", &after.key);
                let further = compare(field.clone(), beyond, &after.key);
                doc! { "$or": [further, { "$and": [same_key, by_id] }] }
            }
        });
    }
    let filter = if all.is_empty() {
        Document::new()
    } else {
        doc! { "$and": all }
    };
    Ok(Page { filter, sort, order })
}

fn check(schema: &ViewSchema, key: &'static str) -> Result<KeyKind, ViewError> {
    let known = schema.keys.iter().find(|known| known.name == key);
    known.map(|known| known.kind).ok_or(ViewError::UnknownKey {
        view: schema.name,
        key,
    })
}

/// An absent value compares with nothing.
fn compare(field: String, operator: &str, with: &KeyValue) -> Document {
    match with {
        KeyValue::Absent => doc! { "_id": { "$in": [] } },
        with => doc! { field: { operator: value(with) } },
    }
}

/// A pattern that matches `text` and nothing else.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() && !letter.is_ascii_alphanumeric() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_taken_literally() {
        assert_eq!(literally("a.b*(c"), "a\\.b\\*\\(c");
        assert_eq!(literally("größe7"), "größe7");
    }
}
