//! The statements for one table. Names come from the code of the views, never from a request.

use std::fmt::Write as _;

use super::ViewSchema;
use crate::error::ViewError;
use crate::query::{Direction, KeyKind, KeyValue, Query};

#[derive(Debug)]
pub(super) struct Statements {
    pub(super) table: String,
    pub(super) create: String,
    pub(super) index: String,
    pub(super) load: String,
    pub(super) scan: String,
    pub(super) insert: String,
    /// With new keys, and without: an index is left alone if its columns are not set.
    pub(super) update: String,
    pub(super) update_body: String,
}

impl Statements {
    pub(super) fn new(schema: &ViewSchema, generation: u32) -> Self {
        let table = table(schema.name, generation);
        let columns: String = schema.keys.iter().fold(String::new(), |mut columns, key| {
            let _ = write!(columns, ", k_{}", key.name);
            columns
        });
        let places: String = (0..schema.keys.len()).fold(String::new(), |mut places, index| {
            let _ = write!(places, ", ?{}", index + 4);
            places
        });
        let sets: String = schema
            .keys
            .iter()
            .enumerate()
            .fold(String::new(), |mut sets, (index, key)| {
                let _ = write!(sets, ", k_{} = ?{}", key.name, index + 4);
                sets
            });
        Self {
            create: create(schema, &table),
            index: index(schema, &table),
            load: format!("SELECT rev, body FROM {table} WHERE id = ?1"),
            scan: format!("SELECT id, rev, body{columns} FROM {table} WHERE id > ?1 ORDER BY id LIMIT ?2"),
            insert: format!(
                "INSERT INTO {table} (id, rev, body{columns}) VALUES (?1, ?2 + 1, ?3{places}) ON CONFLICT (id) DO NOTHING"
            ),
            update: format!("UPDATE {table} SET rev = rev + 1, body = ?3{sets} WHERE id = ?1 AND rev = ?2"),
            update_body: format!("UPDATE {table} SET rev = rev + 1, body = ?3 WHERE id = ?1 AND rev = ?2"),
            table,
        }
    }
}

/// The name of a generation's table.
pub(super) fn table(view: &str, generation: u32) -> String {
    format!("{view}_g{generation}")
}

/// Keys stand before the body, so that reading them alone never follows the pages of a large document.
fn create(schema: &ViewSchema, table: &str) -> String {
    let mut sql = format!("CREATE TABLE {table} (id TEXT NOT NULL PRIMARY KEY, rev INTEGER NOT NULL");
    for key in schema.keys {
        let kind = match key.kind {
            KeyKind::Text => "TEXT",
            KeyKind::Integer => "INTEGER",
        };
        let _ = write!(sql, ", k_{} {kind}", key.name);
    }
    sql.push_str(", body TEXT NOT NULL) STRICT;");
    sql
}

/// Apart, for documents that are stored by the thousand are faster indexed at the end.
fn index(schema: &ViewSchema, table: &str) -> String {
    let mut sql = String::new();
    for (index, keys) in schema.indexes.iter().enumerate() {
        let _ = write!(sql, "CREATE INDEX IF NOT EXISTS {table}_i{index} ON {table} (");
        for key in *keys {
            let _ = write!(sql, "k_{key}, ");
        }
        sql.push_str("id);");
    }
    sql
}

/// The statement for a page, one document longer than asked, with its parameters. Columns: id, rev, body, order key.
pub(super) fn page(
    schema: &ViewSchema,
    table: &str,
    query: &Query,
) -> Result<(String, Vec<KeyValue>), ViewError> {
    let mut builder = Page {
        schema,
        conditions: Vec::new(),
        parameters: Vec::new(),
    };
    for (key, value) in &query.equals {
        builder.compare(key, "=", value)?;
    }
    if let Some((key, from, until)) = &query.range {
        for (operator, bound) in [(">=", from), ("<", until)] {
            if let Some(bound) = bound {
                builder.compare(key, operator, bound)?;
            }
        }
    }
    if let Some((key, words)) = &query.words {
        builder.check(key)?;
        for word in words {
            let place = builder.parameter(&KeyValue::Text(word.clone()));
            builder.conditions.push(format!("instr(k_{key}, {place}) > 0"));
        }
    }
    let (direction, beyond) = match query.direction {
        Direction::Ascending => ("ASC", ">"),
        Direction::Descending => ("DESC", "<"),
    };
    let order = match query.order {
        Some(key) => {
            builder.check(key)?;
            // Documents that no list shows have no keys.
            builder.conditions.push(format!("k_{key} IS NOT NULL"));
            format!("k_{key}")
        }
        None => "NULL".to_owned(),
    };
    if let Some(after) = &query.after {
        let id = builder.parameter(&KeyValue::Text(after.id.clone()));
        if query.order.is_some() {
            let key = builder.parameter(&after.key);
            builder
                .conditions
                .push(format!("({order}, id) {beyond} ({key}, {id})"));
        } else {
            builder.conditions.push(format!("id {beyond} {id}"));
        }
    }
    let mut sql = format!("SELECT id, rev, body, {order} FROM {table}");
    for (index, condition) in builder.conditions.iter().enumerate() {
        let _ = write!(sql, " {} {condition}", if index == 0 { "WHERE" } else { "AND" });
    }
    let by_key = if query.order.is_some() {
        format!("{order} {direction}, ")
    } else {
        String::new()
    };
    let _ = write!(sql, " ORDER BY {by_key}id {direction} LIMIT {}", query.limit + 1);
    Ok((sql, builder.parameters))
}

struct Page<'a> {
    schema: &'a ViewSchema,
    conditions: Vec<String>,
    parameters: Vec<KeyValue>,
}

impl Page<'_> {
    fn check(&self, key: &'static str) -> Result<(), ViewError> {
        if self.schema.keys.iter().any(|known| known.name == key) {
            Ok(())
        } else {
            Err(ViewError::UnknownKey {
                view: self.schema.name,
                key,
            })
        }
    }

    fn compare(&mut self, key: &'static str, operator: &str, value: &KeyValue) -> Result<(), ViewError> {
        self.check(key)?;
        let place = self.parameter(value);
        self.conditions.push(format!("k_{key} {operator} {place}"));
        Ok(())
    }

    fn parameter(&mut self, value: &KeyValue) -> String {
        self.parameters.push(value.clone());
        format!("?{}", self.parameters.len())
    }
}
