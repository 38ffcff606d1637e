//! The database that the log lives in, for what stands beside the log: accounts, checkpoints, timers, effects, secrets,
//! dead letters. SQLite in the embedded profile, PostgreSQL in the cluster.
//!
//! The same SQL runs on both. Closures get a [`Session`], which is one transaction; what they return is durable once
//! [`Database::write`] resolves. The rules that keep one text right for two databases:
//!
//! * Placeholders are `?1`, `?2`, …; integers are 64 bits; times are integers; booleans are integers in columns.
//! * Tables are declared `STRICT` or `STRICT, WITHOUT ROWID`, with the types `INTEGER`, `TEXT` and `BLOB`. What
//!   PostgreSQL calls otherwise is translated ([`postgres_sql`]); nothing else is.
//! * On SQLite a write is alone. On PostgreSQL it is not, at `READ COMMITTED`: a closure that decides on what it has
//!   read takes [`Session::lock`] first, or writes under a condition.
//!
//! ```
//! # use database::{Database, DatabaseError, params};
//! # let dir = tempfile::tempdir().unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let file = sqlite_file::SqliteFile::open(dir.path().join("log.db"), sqlite_file::Options::default())?;
//! let database = Database::from(file);
//! database.migrate("notes", &["CREATE TABLE notes (id INTEGER NOT NULL, text TEXT NOT NULL) STRICT"]).await?;
//! let texts = database
//!     .write(|session| {
//!         session.execute("INSERT INTO notes (id, text) VALUES (?1, ?2)", &params![1, "durable once this resolves"])?;
//!         session.query("SELECT text FROM notes WHERE id = ?1", &params![1], |row| row.get::<String>(0))
//!     })
//!     .await?;
//! assert_eq!(texts, ["durable once this resolves"]);
//! # Ok::<_, DatabaseError>(())
//! # }).unwrap();
//! ```

mod error;
mod kept;
#[cfg(feature = "cluster")]
pub mod postgres;
mod session;
mod sql;
#[cfg(feature = "testing")]
pub mod testing;
mod value;

use std::future::Future;

use sqlite_file::SqliteFile;

pub use error::{DatabaseError, PostgresError};
pub use kept::{KeptRow, KeptTable, insert_rows, tuples};
#[cfg(feature = "cluster")]
pub use postgres::{Postgres, PostgresOptions};
pub use session::{Row, Session};
pub use sql::postgres_sql;
pub use value::{Column, FromValue, Value};

/// A handle on the database. Cloning is cheap.
#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(SqliteFile),
    #[cfg(feature = "cluster")]
    Postgres(Postgres),
}

impl From<SqliteFile> for Database {
    fn from(file: SqliteFile) -> Self {
        Self::Sqlite(file)
    }
}

impl From<&SqliteFile> for Database {
    fn from(file: &SqliteFile) -> Self {
        Self::Sqlite(file.clone())
    }
}

impl From<&Database> for Database {
    fn from(database: &Database) -> Self {
        database.clone()
    }
}

#[cfg(feature = "cluster")]
impl From<Postgres> for Database {
    fn from(postgres: Postgres) -> Self {
        Self::Postgres(postgres)
    }
}

impl Database {
    /// Brings one component's tables up to date: runs the `steps` that this database has not seen, each once, in order,
    /// in one transaction. Steps are only ever appended to the list. A PostgreSQL that was not opened to migrate is only
    /// checked: [`DatabaseError::Behind`]. A database of a newer version is [`DatabaseError::Newer`].
    pub async fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), DatabaseError> {
        match self {
            Self::Sqlite(file) => {
                let file = file.clone();
                let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                let migrated = tokio::task::spawn_blocking(move || {
                    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
                    file.migrate(component, &steps)
                });
                Ok(migrated
                    .await
                    .unwrap_or(Err(sqlite_file::SqliteError::Panicked))?)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.migrate(component, steps).await,
        }
    }

    /// Runs `job` in a transaction and resolves once it is durable. An `Err` from the job rolls all of it back. Once
    /// begun, the job runs to its end even when the returned future is dropped.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        match self {
            Self::Sqlite(file) => file
                .write(move |conn| job(&Session::sqlite(conn)).map_err(Failed::Job))
                .await
                .map_err(Failed::into_inner),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.write(job).await,
        }
    }

    /// Runs `job` in a transaction that only reads: all its queries see one snapshot.
    pub async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        match self {
            Self::Sqlite(file) => file
                .read(move |conn| job(&Session::sqlite(conn)).map_err(Failed::Job))
                .await
                .map_err(Failed::into_inner),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.read(job).await,
        }
    }

    /// As [`Database::write`] without waiting for the outcome: resolves once the job has a place, and calls `done` with
    /// the outcome, on whichever thread has it; keep `done` short. Jobs of one caller may overtake each other unless it
    /// waits for their outcomes.
    pub async fn submit<T, E, F, D>(&self, job: F, done: D) -> Result<(), DatabaseError>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        match self {
            Self::Sqlite(file) => file.reserve().await?.submit(
                move |conn| job(&Session::sqlite(conn)).map_err(Failed::Job),
                move |outcome: Result<T, Failed<E>>| done(outcome.map_err(Failed::into_inner)),
            ),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.submit(job, done).await?,
        }
        Ok(())
    }

    /// Runs one statement that is a transaction of its own and says how many rows it changed; durable once it resolves, and
    /// run to its end even when the returned future is dropped. Done twice it must be as if done once: where a connection
    /// breaks it is tried again. On PostgreSQL it takes half of the round trips of a [`Database::write`], and no thread.
    pub async fn execute(
        &self,
        sql: &'static str,
        params: impl Into<Vec<Value<'static>>>,
    ) -> Result<usize, DatabaseError> {
        let params = params.into();
        match self {
            Self::Sqlite(_) => self.write(move |session| session.execute(sql, &params)).await,
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.execute(sql, params).await,
        }
    }

    /// Runs one query and reads each of its rows; as [`Database::read`], with the savings of [`Database::execute`].
    pub async fn query<T, F>(
        &self,
        sql: &'static str,
        params: impl Into<Vec<Value<'static>>>,
        read: F,
    ) -> Result<Vec<T>, DatabaseError>
    where
        F: FnMut(&Row<'_>) -> Result<T, DatabaseError> + Send + 'static,
        T: Send + 'static,
    {
        let params = params.into();
        match self {
            Self::Sqlite(_) => self.read(move |session| session.query(sql, &params, read)).await,
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => {
                let rows = postgres.query(sql, params).await?;
                let mut read = read;
                rows.iter().map(|row| read(&Row::postgres(row))).collect()
            }
        }
    }

    /// Lets what is under way come to its end and closes the database for all its handles.
    pub async fn close(&self) -> Result<(), DatabaseError> {
        match self {
            Self::Sqlite(file) => Ok(file.close().await?),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => {
                postgres.close().await;
                Ok(())
            }
        }
    }

    /// Resolves if the database answers.
    pub fn ping(&self) -> impl Future<Output = Result<(), DatabaseError>> + Send + '_ {
        self.read(|session| session.query("SELECT 1", &[], |_| Ok(())).map(|_| ()))
    }
}

/// Lets the errors of SQLite's writer and of a job travel through one type.
enum Failed<E> {
    Job(E),
    Store(sqlite_file::SqliteError),
}

impl<E> From<sqlite_file::SqliteError> for Failed<E> {
    fn from(error: sqlite_file::SqliteError) -> Self {
        Self::Store(error)
    }
}

impl<E: From<DatabaseError>> Failed<E> {
    fn into_inner(self) -> E {
        match self {
            Self::Job(error) => error,
            Self::Store(error) => DatabaseError::from(error).into(),
        }
    }
}

/// The parameters of a statement: `&params![id, name]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { [$($crate::Value::from($value)),*] };
}
