//! Rows that are brought from one database to another: by a backup, an export, a restore.

use std::fmt::Write as _;

use crate::value::FromValue;
use crate::{DatabaseError, Session, Value};

/// A row, column by column.
pub type KeptRow = Vec<Value<'static>>;

/// A table whose rows cannot be derived from anything else. Whoever makes the table declares it beside its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptTable {
    pub name: &'static str,
    /// All of them, those of the primary key first.
    pub columns: &'static [&'static str],
    /// How many columns the primary key has; none of them is ever null.
    pub key: usize,
    /// A condition on what is kept, where others keep rows in the same table.
    pub filter: Option<&'static str>,
}

/// Parameters of one statement, well below what either database takes.
const MAX_PARAMS: usize = 5_000;

impl KeptTable {
    /// Up to `max` rows after the row `after`, by key.
    pub fn page(
        &self,
        session: &Session<'_>,
        after: Option<&KeptRow>,
        max: usize,
    ) -> Result<Vec<KeptRow>, DatabaseError> {
        let key = self.columns.get(..self.key).unwrap_or_default().join(", ");
        let mut params: Vec<Value<'static>> = after.into_iter().flatten().take(self.key).cloned().collect();
        let mut conditions: Vec<String> = self.filter.iter().map(ToString::to_string).collect();
        if after.is_some() {
            conditions.push(format!("({key}) > ({})", placeholders(1, self.key)));
        }
        let mut sql = format!("SELECT {} FROM {}", self.columns.join(", "), self.name);
        if !conditions.is_empty() {
            let _ = write!(sql, " WHERE {}", conditions.join(" AND "));
        }
        params.push(max.into());
        let _ = write!(sql, " ORDER BY {key} LIMIT ?{}", params.len());
        session.query(&sql, &params, |row| {
            (0..self.columns.len()).map(|column| row.get(column)).collect()
        })
    }

    /// Puts `rows` in, in one transaction of the caller's. One that is there already is an error.
    pub fn insert(&self, session: &Session<'_>, rows: &[KeptRow]) -> Result<(), DatabaseError> {
        insert_rows(
            session,
            &format!("{} ({})", self.name, self.columns.join(", ")),
            self.columns.len(),
            rows,
        )
    }

    /// Whether it holds no row that is kept.
    pub fn is_empty(&self, session: &Session<'_>) -> Result<bool, DatabaseError> {
        Ok(self.page(session, None, 1)?.is_empty())
    }

    /// Deletes what is kept.
    pub fn clear(&self, session: &Session<'_>) -> Result<(), DatabaseError> {
        let condition = self
            .filter
            .map(|filter| format!(" WHERE {filter}"))
            .unwrap_or_default();
        session.execute(&format!("DELETE FROM {}{condition}", self.name), &[])?;
        Ok(())
    }
}

/// Inserts `rows` `into` (a table with its columns), as many in one statement as it may have parameters.
pub fn insert_rows(
    session: &Session<'_>,
    into: &str,
    columns: usize,
    rows: &[KeptRow],
) -> Result<(), DatabaseError> {
    for chunk in rows.chunks((MAX_PARAMS / columns.max(1)).max(1)) {
        let values = tuples(chunk.len(), columns);
        let params: Vec<Value<'_>> = chunk.iter().flatten().map(Value::borrowed).collect();
        session.execute(&format!("INSERT INTO {into} VALUES {values}"), &params)?;
    }
    Ok(())
}

/// The places of so many rows of `columns` parameters each, numbered from the first: `(?1, ?2), (?3, ?4)`.
pub fn tuples(rows: usize, columns: usize) -> String {
    let tuples: Vec<String> = (0..rows)
        .map(|row| format!("({})", placeholders(row * columns + 1, columns)))
        .collect();
    tuples.join(", ")
}

fn placeholders(first: usize, count: usize) -> String {
    let numbers: Vec<String> = (first..first + count)
        .map(|number| format!("?{number}"))
        .collect();
    numbers.join(", ")
}

impl FromValue for Value<'static> {
    fn from_value(value: Value<'_>) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Integer(integer) => Self::Integer(integer),
            Value::Text(text) => Self::from(text.into_owned()),
            Value::Blob(bytes) => Self::from(bytes.into_owned()),
        })
    }
}

impl Value<'_> {
    fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(integer) => Value::Integer(*integer),
            Self::Text(text) => Value::from(text.as_ref()),
            Self::Blob(bytes) => Value::from(bytes.as_ref()),
        }
    }
}
