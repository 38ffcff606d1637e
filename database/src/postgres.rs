//! PostgreSQL through a pool of connections.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgTypeInfo, PgValueRef,
};
use sqlx::{Arguments as _, Decode, Encode, Executor as _, Row as _, Type, TypeInfo as _, ValueRef as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::Session;
use crate::value::{Column, Value};
use crate::{DatabaseError, PostgresError, postgres_sql};

/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// How often a transaction is begun on another connection, because the one from the pool had broken while it rested.
const BEGIN_TRIES: u32 = 20;
/// How long the server may take to answer a statement before it counts as gone; more than it gives itself.
const SILENCE: Duration = Duration::from_secs(45);
/// Serialises processes that migrate at the same moment.
const MIGRATION_LOCK: &str = "omisys/migrate";

/// How PostgreSQL is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// Connections of this process; more work waits.
    pub max_connections: u32,
    /// Whether [`crate::Database::migrate`] may change tables; otherwise it checks that they are up to date.
    pub migrate: bool,
}

impl std::fmt::Debug for PostgresOptions {
    /// Without the URL, which holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("max_connections", &self.max_connections)
            .field("migrate", &self.migrate)
            .finish_non_exhaustive()
    }
}

/// A PostgreSQL database. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    migrate: bool,
    /// Places for work that is under way, as many as there are connections twice over: the rest waits, without a thread.
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, so that a wrong URL or a missing server is heard of now.
    pub async fn connect(options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|_| PostgresError::Options("the URL cannot be read".to_owned()))?
            .application_name("omisys");
        // Durable once it resolves is said of every write, whatever the server's default is.
        let connect = connect.options([("synchronous_commit", "on")]);
        // A migration may take its time. Nothing else may: what hangs holds up whoever waits behind it.
        let connect = if options.migrate {
            connect
        } else {
            connect.options([
                ("statement_timeout", "30s"),
                ("lock_timeout", "15s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ])
        };
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(2))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(connect.clone())
            .await?;
        Ok(Self {
            pool,
            options: Arc::new(connect),
            migrate: options.migrate,
            places: Arc::new(Semaphore::new(2 * options.max_connections.max(2) as usize)),
        })
    }

    /// The connections, for an adapter with statements of its own.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How to connect, for an adapter that needs a connection of its own.
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// As [`crate::Database::migrate`].
    pub async fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), DatabaseError> {
        let steps: Vec<String> = steps.iter().map(|step| postgres_sql(step).into_owned()).collect();
        if self.migrate {
            self.run_steps(component, &steps).await
        } else {
            self.check_steps(component, steps.len()).await
        }
    }

    /// Whether tables may be changed through this handle.
    pub fn migrates(&self) -> bool {
        self.migrate
    }

    async fn run_steps(&self, component: &'static str, steps: &[String]) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await?;
        transaction
            .execute(sqlx::raw_sql(
                "CREATE TABLE IF NOT EXISTS schema_versions (component TEXT NOT NULL PRIMARY KEY, version BIGINT NOT NULL)",
            ))
            .await?;
        let found: Option<i64> =
            sqlx::query_scalar("SELECT version FROM schema_versions WHERE component = $1")
                .bind(component)
                .fetch_optional(&mut *transaction)
                .await?;
        let found = found.map_or(0, |found| usize::try_from(found).unwrap_or(usize::MAX));
        if found > steps.len() {
            return Err(newer(component, found, steps.len()));
        }
        for step in &steps[found..] {
            transaction.execute(sqlx::raw_sql(step)).await?;
        }
        sqlx::query(
            "INSERT INTO schema_versions (component, version) VALUES ($1, $2)
             ON CONFLICT (component) DO UPDATE SET version = excluded.version",
        )
        .bind(component)
        .bind(i64::try_from(steps.len()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await.map_err(commit_error)
    }

    async fn check_steps(&self, component: &'static str, known: usize) -> Result<(), DatabaseError> {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('schema_versions') IS NOT NULL")
            .fetch_one(&self.pool)
            .await?;
        let found: Option<i64> = if there {
            sqlx::query_scalar("SELECT version FROM schema_versions WHERE component = $1")
                .bind(component)
                .fetch_optional(&self.pool)
                .await?
        } else {
            None
        };
        let found = found.map_or(0, |found| usize::try_from(found).unwrap_or(usize::MAX));
        match found.cmp(&known) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(newer(component, found, known)),
            std::cmp::Ordering::Less => Err(DatabaseError::Behind {
                component,
                found,
                known,
            }),
        }
    }

    pub(crate) async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let place = self.place().await?;
        // A task of its own: dropping the caller's future must not cut a transaction in half.
        let run = self.clone().run(WRITE, true, place, job);
        tokio::spawn(run).await.unwrap_or_else(|_| Err(panicked().into()))
    }

    pub(crate) async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let place = self.place().await?;
        self.clone().run(READ, false, place, job).await
    }

    pub(crate) async fn submit<T, E, F, D>(&self, job: F, done: D) -> Result<(), DatabaseError>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let place = self.place().await?;
        let run = self.clone().run(WRITE, true, place, job);
        tokio::spawn(async move { done(run.await) });
        Ok(())
    }

    pub(crate) async fn execute(
        &self,
        sql: &'static str,
        params: Vec<Value<'static>>,
    ) -> Result<usize, DatabaseError> {
        let run = self.alone(sql, params, |pool, sql, arguments| async move {
            sqlx::query_with(&sql, arguments).execute(&pool).await
        });
        let done = run.await?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    pub(crate) async fn query(
        &self,
        sql: &'static str,
        params: Vec<Value<'static>>,
    ) -> Result<Vec<PgRow>, DatabaseError> {
        let run = self.alone(sql, params, |pool, sql, arguments| async move {
            sqlx::query_with(&sql, arguments).fetch_all(&pool).await
        });
        run.await
    }

    /// One statement without a transaction around it, in a task that nobody cuts short; again where a connection breaks.
    async fn alone<T, R>(
        &self,
        sql: &'static str,
        params: Vec<Value<'static>>,
        run: impl Fn(PgPool, Arc<str>, PgArguments) -> R + Send + 'static,
    ) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let place = self.place().await?;
        let pool = self.pool.clone();
        let answered = tokio::spawn(async move {
            let _place = place;
            let sql: Arc<str> = postgres_sql(sql).into();
            let mut tries = 0;
            loop {
                let asked = run(pool.clone(), Arc::clone(&sql), arguments(&params)?);
                let answer = tokio::time::timeout(SILENCE, asked).await;
                tries += 1;
                match answer.map_err(|_| silent())?.map_err(PostgresError::from) {
                    Err(PostgresError::Connection(_)) if tries < BEGIN_TRIES => {}
                    answer => return Ok(answer?),
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err(panicked()))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, DatabaseError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| PostgresError::Closed.into())
    }

    async fn run<T, E, F>(
        self,
        begin: &'static str,
        commits: bool,
        place: OwnedSemaphorePermit,
        job: F,
    ) -> Result<T, E>
    where
        F: FnOnce(&Session<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
    {
        let (inner, place) = self.begin(begin, place).await?;
        let transaction = Transaction {
            inner: RefCell::new(inner),
            failed: RefCell::new(None),
            runtime: Handle::current(),
        };
        let worked = tokio::task::spawn_blocking(move || {
            let _place = place;
            let outcome = catch_unwind(AssertUnwindSafe(|| job(&Session::postgres(&transaction))))
                .unwrap_or_else(|_| Err(panicked().into()));
            // PostgreSQL answers the commit of a transaction in which a statement failed, and rolls it back.
            let outcome = match transaction.failed.into_inner() {
                Some(failed) if commits && outcome.is_ok() => {
                    Err(DatabaseError::from(PostgresError::Aborted(failed)).into())
                }
                _ => outcome,
            };
            (outcome, transaction.inner.into_inner())
        });
        let (outcome, inner) = worked.await.map_err(|_| panicked())?;
        if outcome.is_ok() && commits {
            let committed = tokio::time::timeout(SILENCE, inner.commit()).await;
            committed
                .map_err(|_| PostgresError::CommitUnknown("no answer".to_owned()).into())
                .and_then(|committed| committed.map_err(commit_error))?;
        } else {
            // Rolled back behind us, before anybody else gets the connection.
            drop(inner);
        }
        outcome
    }

    /// A transaction on a connection that works. The server may have been restarted while the pool's connections rested;
    /// nothing has been asked for yet, so another one will do.
    async fn begin(
        &self,
        statement: &'static str,
        mut place: OwnedSemaphorePermit,
    ) -> Result<(sqlx::Transaction<'static, sqlx::Postgres>, OwnedSemaphorePermit), DatabaseError> {
        let mut tries = 0;
        loop {
            let pool = self.pool.clone();
            // A task of its own, which nobody cuts short: sqlx counts a transaction once the server has answered, so a
            // connection given back while it waits would bring the transaction along to whoever gets it next.
            // It has the caller's place, so that however many callers give up, these are bounded.
            let begun = tokio::spawn(async move { (pool.begin_with(statement).await, place) });
            let begun = tokio::time::timeout(SILENCE, begun).await;
            let (begun, back) = begun.map_err(|_| silent())?.map_err(|_| panicked())?;
            tries += 1;
            match begun.map_err(PostgresError::from) {
                Err(PostgresError::Connection(_)) if tries < BEGIN_TRIES => place = back,
                begun => return Ok((begun?, back)),
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.places.close();
        self.pool.close().await;
    }
}

fn silent() -> PostgresError {
    PostgresError::Connection("no answer".to_owned())
}

fn panicked() -> DatabaseError {
    PostgresError::Panicked.into()
}

fn newer(component: &'static str, found: usize, known: usize) -> DatabaseError {
    DatabaseError::Newer {
        component,
        found,
        known,
    }
}

/// What a failed commit says: an answer of the server is one, silence is none.
pub fn commit_error(error: sqlx::Error) -> DatabaseError {
    match PostgresError::from(error) {
        PostgresError::Connection(message) => PostgresError::CommitUnknown(message).into(),
        other => other.into(),
    }
}

/// A transaction whose statements block.
pub(crate) struct Transaction {
    inner: RefCell<sqlx::Transaction<'static, sqlx::Postgres>>,
    /// What a statement failed of.
    failed: RefCell<Option<String>>,
    runtime: Handle,
}

impl Transaction {
    pub(crate) fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, DatabaseError> {
        let (sql, arguments) = (postgres_sql(sql), arguments(params)?);
        let mut inner = self.inner.borrow_mut();
        let done = self.answer(sqlx::query_with(&sql, arguments).execute(&mut **inner))?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    pub(crate) fn fetch(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<PgRow>, DatabaseError> {
        let (sql, arguments) = (postgres_sql(sql), arguments(params)?);
        let mut inner = self.inner.borrow_mut();
        self.answer(sqlx::query_with(&sql, arguments).fetch_all(&mut **inner))
    }

    fn answer<T>(&self, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(SILENCE, asked).await });
        let answer = answered
            .map_err(|_| silent())
            .and_then(|answer| answer.map_err(PostgresError::from));
        Ok(answer.inspect_err(|error| *self.failed.borrow_mut() = Some(error.to_string()))?)
    }
}

fn arguments(params: &[Value<'_>]) -> Result<PgArguments, DatabaseError> {
    let mut arguments = PgArguments::default();
    for param in params {
        match param {
            Value::Null => arguments.add(Null),
            Value::Integer(integer) => arguments.add(integer),
            Value::Text(text) => arguments.add(text.as_ref()),
            Value::Blob(bytes) => arguments.add(bytes.as_ref()),
        }
        .map_err(|error| PostgresError::Options(error.to_string()))?;
    }
    Ok(arguments)
}

/// A null whose type the server infers.
struct Null;

impl Type<sqlx::Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, sqlx::Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

/// A column as a value.
pub(crate) fn value<'r>(row: &'r PgRow, column: Column<'_>) -> Result<Value<'r>, DatabaseError> {
    let wrong = |message: String| DatabaseError::unexpected(column.to_string(), message);
    let raw = match column {
        Column::Number(number) => row.try_get_raw(number),
        Column::Name(name) => row.try_get_raw(name),
    }
    .map_err(|error| wrong(error.to_string()))?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    decode(raw).map_err(|error| wrong(error.to_string()))
}

fn decode(raw: PgValueRef<'_>) -> Result<Value<'_>, BoxDynError> {
    let kind = raw.type_info().into_owned();
    match kind.name() {
        "INT8" => Ok(Value::Integer(decoded::<i64>(raw)?)),
        "INT4" => Ok(Value::Integer(decoded::<i32>(raw)?.into())),
        "BOOL" => Ok(Value::Integer(decoded::<bool>(raw)?.into())),
        "BYTEA" => Ok(Value::from(decoded::<&[u8]>(raw)?)),
        "TEXT" | "VARCHAR" | "NAME" => Ok(Value::from(decoded::<&str>(raw)?)),
        other => Err(format!("the type {other} is not used here").into()),
    }
}

fn decoded<'r, T: Decode<'r, sqlx::Postgres>>(raw: PgValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(raw)
}
