use rusqlite::ffi;

/// What can go wrong below the closures. Messages are for logs, never for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqliteError {
    /// The file cannot be opened, created or locked down.
    #[error("cannot open {path}: {message}")]
    Open { path: String, message: String },
    /// A statement failed. `code` is SQLite's extended result code (0 when the error arose in the driver).
    #[error("sqlite error {code}: {message}")]
    Sql { code: i32, message: String },
    /// The shared transaction could not begin or commit: nothing of it is visible, but after a crash of the machine
    /// right now it may turn out to be durable. Retry under the same id, never under a new one.
    #[error("commit failed with sqlite error {code}: {message}")]
    Commit { code: i32, message: String },
    /// Another job tore down the shared transaction; nothing of this one was kept.
    #[error("the shared transaction was aborted by another job")]
    Aborted,
    /// The job itself panicked; nothing of it was kept.
    #[error("the job panicked")]
    Panicked,
    /// The writer's queue is full.
    #[error("the write queue is full")]
    QueueFull,
    /// The file has been closed.
    #[error("the file is closed")]
    Closed,
    /// The file was written by a newer version of `component`.
    #[error("{component} has schema {found}, this program knows {known}: upgrade")]
    Newer {
        component: &'static str,
        found: usize,
        known: usize,
    },
}

impl SqliteError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Commit { .. } | Self::Aborted | Self::QueueFull => true,
            Self::Sql { code, .. } => matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED),
            Self::Open { .. } | Self::Panicked | Self::Closed | Self::Newer { .. } => false,
        }
    }

    /// Whether a UNIQUE or PRIMARY KEY constraint refused the statement.
    pub fn is_unique_violation(&self) -> bool {
        const ROWID: i32 = ffi::SQLITE_CONSTRAINT_ROWID;
        matches!(
            self,
            Self::Sql {
                code: ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ROWID,
                ..
            }
        )
    }

    pub(crate) fn commit(error: &rusqlite::Error) -> Self {
        let (code, message) = parts(error);
        Self::Commit { code, message }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        let (code, message) = parts(&error);
        Self::Sql { code, message }
    }
}

fn parts(error: &rusqlite::Error) -> (i32, String) {
    (
        error.sqlite_error().map_or(0, |cause| cause.extended_code),
        error.to_string(),
    )
}
