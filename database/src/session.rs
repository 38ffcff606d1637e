//! One transaction on either database.

use std::str::FromStr;

use sqlite_file::rusqlite::{self, types::ToSqlOutput, types::ValueRef};
use sqlite_file::{Connection, SqliteError};

use crate::DatabaseError;
use crate::value::{Column, FromValue, Value};

/// One transaction. Statements block their thread, which is SQLite's writer or a blocking one of Tokio's.
pub struct Session<'a>(Inner<'a>);

enum Inner<'a> {
    Sqlite(&'a Connection),
    #[cfg(feature = "cluster")]
    Postgres(&'a crate::postgres::Transaction),
}

impl<'a> Session<'a> {
    pub(crate) fn sqlite(conn: &'a Connection) -> Self {
        Self(Inner::Sqlite(conn))
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn postgres(transaction: &'a crate::postgres::Transaction) -> Self {
        Self(Inner::Postgres(transaction))
    }

    /// Whether this is SQLite: for the few tables that are laid out otherwise there.
    pub fn is_sqlite(&self) -> bool {
        match &self.0 {
            Inner::Sqlite(_) => true,
            #[cfg(feature = "cluster")]
            Inner::Postgres(_) => false,
        }
    }

    /// Runs a statement and says how many rows it changed.
    pub fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, DatabaseError> {
        match &self.0 {
            Inner::Sqlite(conn) => Ok(sqlite(|| conn.prepare_cached(sql)?.execute(bound(params)))?),
            #[cfg(feature = "cluster")]
            Inner::Postgres(transaction) => transaction.execute(sql, params),
        }
    }

    /// Runs a query and reads each of its rows. Bound it: all rows are held.
    pub fn query<T, E: From<DatabaseError>>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        match &self.0 {
            Inner::Sqlite(conn) => {
                let from = |error| E::from(DatabaseError::from(SqliteError::from(error)));
                let mut statement = conn.prepare_cached(sql).map_err(from)?;
                let mut rows = statement.query(bound(params)).map_err(from)?;
                let mut found = Vec::new();
                while let Some(row) = rows.next().map_err(from)? {
                    found.push(read(&Row(RowInner::Sqlite(row)))?);
                }
                Ok(found)
            }
            #[cfg(feature = "cluster")]
            Inner::Postgres(transaction) => transaction
                .fetch(sql, params)?
                .iter()
                .map(|row| read(&Row::postgres(row)))
                .collect(),
        }
    }

    /// Runs a query that gives at most one row: of several, the first.
    pub fn query_opt<T, E: From<DatabaseError>>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        Ok(self.query(sql, params, read)?.into_iter().next())
    }

    /// Runs a query that always gives a row, such as a count.
    pub fn query_one<T, E: From<DatabaseError>>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.query_opt(sql, params, read)?
            .ok_or_else(|| DatabaseError::unexpected("0", "a row expected, none found").into())
    }

    /// Waits until no other write holds a lock of this name, and holds it to the end of this one. Take one lock only, or
    /// several always in the same order. On SQLite writes are alone anyway.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "SQLite needs no lock")
    )]
    pub fn lock(&self, name: &str) -> Result<(), DatabaseError> {
        match &self.0 {
            Inner::Sqlite(_) => Ok(()),
            #[cfg(feature = "cluster")]
            Inner::Postgres(transaction) => transaction
                .execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(?1, 0))",
                    &[name.into()],
                )
                .map(|_| ()),
        }
    }
}

fn sqlite<T>(run: impl FnOnce() -> Result<T, rusqlite::Error>) -> Result<T, SqliteError> {
    run().map_err(SqliteError::from)
}

fn bound<'p>(params: &'p [Value<'p>]) -> impl rusqlite::Params + 'p {
    rusqlite::params_from_iter(params)
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A row of a query.
pub struct Row<'a>(RowInner<'a>);

enum RowInner<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    #[cfg(feature = "cluster")]
    Postgres(&'a sqlx::postgres::PgRow),
}

#[cfg(feature = "cluster")]
impl<'a> Row<'a> {
    pub(crate) fn postgres(row: &'a sqlx::postgres::PgRow) -> Self {
        Self(RowInner::Postgres(row))
    }
}

impl Row<'_> {
    /// The column, by its number or its name.
    pub fn get<'c, T: FromValue>(&self, column: impl Into<Column<'c>>) -> Result<T, DatabaseError> {
        self.get_at(column.into())
    }

    /// The text in the column, parsed.
    pub fn parse<'c, T>(&self, column: impl Into<Column<'c>>) -> Result<T, DatabaseError>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let column = column.into();
        let text: String = self.get_at(column)?;
        text.parse()
            .map_err(|error: T::Err| DatabaseError::unexpected(column.to_string(), error.to_string()))
    }

    fn get_at<T: FromValue>(&self, column: Column<'_>) -> Result<T, DatabaseError> {
        match &self.0 {
            RowInner::Sqlite(row) => column.read(sqlite_value(row, column)?),
            #[cfg(feature = "cluster")]
            RowInner::Postgres(row) => column.read(crate::postgres::value(row, column)?),
        }
    }
}

fn sqlite_value<'r>(row: &'r rusqlite::Row<'_>, column: Column<'_>) -> Result<Value<'r>, DatabaseError> {
    let value = match column {
        Column::Number(number) => row.get_ref(number),
        Column::Name(name) => row.get_ref(name),
    };
    let wrong = |message: String| DatabaseError::unexpected(column.to_string(), message);
    match value.map_err(|error| wrong(error.to_string()))? {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(integer) => Ok(Value::Integer(integer)),
        ValueRef::Real(_) => Err(wrong("a real number".to_owned())),
        ValueRef::Text(text) => std::str::from_utf8(text)
            .map(Value::from)
            .map_err(|error| wrong(error.to_string())),
        ValueRef::Blob(bytes) => Ok(Value::from(bytes)),
    }
}
