use sqlite_file::SqliteError;

/// What can go wrong with the database. Messages are for logs, never for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Sqlite(SqliteError),
    #[error(transparent)]
    Postgres(PostgresError),
    /// A column does not hold what the program expects.
    #[error("column {column}: {message}")]
    Unexpected { column: String, message: String },
    /// The tables of `component` were made by a newer version.
    #[error("{component} has schema {found}, this program knows {known}: upgrade")]
    Newer {
        component: &'static str,
        found: usize,
        known: usize,
    },
    /// The tables of `component` are not up to date.
    #[error("{component} has schema {found}, this program needs {known}: run `omisys migrate`")]
    Behind {
        component: &'static str,
        found: usize,
        known: usize,
    },
}

/// What PostgreSQL or the way to it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// The URL or the options are wrong.
    #[error("the PostgreSQL options are wrong: {0}")]
    Options(String),
    /// No connection, or it broke, or the server ended it, before a commit was asked for: nothing was stored.
    #[error("no connection to PostgreSQL: {0}")]
    Connection(String),
    /// All connections are taken.
    #[error("no PostgreSQL connection became free in time")]
    PoolTimeout,
    /// Another transaction was preferred; nothing was stored.
    #[error("a deadlock or a serialisation failure: {0}")]
    Contention(String),
    /// A unique constraint refused the statement.
    #[error("the unique constraint {constraint} was violated")]
    Unique { constraint: String },
    /// The server has no room, no time, or takes no writes just now.
    #[error("PostgreSQL is not available: {code} {message}")]
    Unavailable { code: String, message: String },
    /// A statement failed.
    #[error("PostgreSQL error {code}: {message}")]
    Sql { code: String, message: String },
    /// The connection broke while the commit was under way: stored or not, nobody knows. Retry under the same id, never
    /// under a new one.
    #[error("the outcome of a commit is unknown: {0}")]
    CommitUnknown(String),
    /// The job panicked; nothing of it was kept.
    #[error("the job panicked")]
    Panicked,
    /// A job went on after a statement had failed, and called it a success: PostgreSQL keeps nothing of it.
    #[error("a job went on after a failed statement: {0}")]
    Aborted(String),
    #[error("the connections are closed")]
    Closed,
}

impl DatabaseError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.retryable(),
            Self::Postgres(error) => error.retryable(),
            Self::Unexpected { .. } | Self::Newer { .. } | Self::Behind { .. } => false,
        }
    }

    /// Whether a UNIQUE or PRIMARY KEY constraint refused the statement.
    pub fn is_unique_violation(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.is_unique_violation(),
            Self::Postgres(error) => matches!(error, PostgresError::Unique { .. }),
            Self::Unexpected { .. } | Self::Newer { .. } | Self::Behind { .. } => false,
        }
    }

    /// Whether the database was closed by this program.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Sqlite(SqliteError::Closed) | Self::Postgres(PostgresError::Closed)
        )
    }

    /// A column holds what it never should.
    pub fn unexpected(column: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unexpected {
            column: column.into(),
            message: message.into(),
        }
    }
}

impl PostgresError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connection(_)
            | Self::PoolTimeout
            | Self::Contention(_)
            | Self::Unavailable { .. }
            | Self::CommitUnknown(_) => true,
            Self::Options(_)
            | Self::Unique { .. }
            | Self::Sql { .. }
            | Self::Panicked
            | Self::Aborted(_)
            | Self::Closed => false,
        }
    }
}

impl From<SqliteError> for DatabaseError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Newer {
                component,
                found,
                known,
            } => Self::Newer {
                component,
                found,
                known,
            },
            other => Self::Sqlite(other),
        }
    }
}

impl From<PostgresError> for DatabaseError {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

#[cfg(feature = "cluster")]
impl PostgresError {
    fn unavailable(code: &str, message: String) -> Self {
        Self::Unavailable {
            code: code.to_owned(),
            message,
        }
    }
}

#[cfg(feature = "cluster")]
impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default().into_owned();
                let message = error.message().to_owned();
                let code = code.as_str();
                // Codes: appendix A of PostgreSQL's documentation.
                match code {
                    "23505" => Self::Unique {
                        constraint: error.constraint().unwrap_or_default().to_owned(),
                    },
                    "40001" | "40P01" | "55P03" => Self::Contention(message),
                    // The connection's end, the server's, or its start; too many connections; no memory.
                    "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" => Self::Connection(message),
                    _ if code.starts_with("08") => Self::Connection(message),
                    // Cancelled, for want of time; read-only, as after a failover; no room; the disk or the system.
                    "57014" | "25006" => Self::unavailable(code, message),
                    _ if code.starts_with("53") || code.starts_with("58") => Self::unavailable(code, message),
                    _ => Self::Sql {
                        code: code.to_owned(),
                        message,
                    },
                }
            }
            sqlx::Error::Io(error) => Self::Connection(error.to_string()),
            sqlx::Error::Tls(error) => Self::Connection(error.to_string()),
            // What a half-closed connection looks like.
            sqlx::Error::Protocol(message) => Self::Connection(message),
            sqlx::Error::WorkerCrashed => Self::Connection("the driver's worker crashed".to_owned()),
            sqlx::Error::PoolTimedOut => Self::PoolTimeout,
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::Configuration(error) => Self::Options(error.to_string()),
            other => Self::Sql {
                code: String::new(),
                message: other.to_string(),
            },
        }
    }
}

#[cfg(feature = "cluster")]
impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error.into())
    }
}
