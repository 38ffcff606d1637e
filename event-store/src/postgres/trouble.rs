//! What a failed statement means for the entries that it was for.

use database::PostgresError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A key is taken: another process was quicker, or this very command is stored already. Nothing was stored.
    Taken,
    /// A deadlock or a serialisation failure: another transaction was preferred. Nothing was stored.
    Contention(PostgresError),
    /// The connection is gone. If the statement was a write, nobody knows whether it is stored, or will be: the server
    /// may still be at it.
    Lost(PostgresError),
    /// The server takes no such rows. Nothing was stored.
    Refused(PostgresError),
    /// The server cannot, at the moment: it is full, read-only, or held up by a lock. Nothing was stored.
    Failed(PostgresError),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(answer) = &error else {
            // No answer, or none that can be read: the connection is no good, and the outcome unknown.
            return match error {
                sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Self::Refused(error.into()),
                _ => Self::Lost(error.into()),
            };
        };
        let ended = answer
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|answer| matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic));
        // Codes: appendix A of PostgreSQL's documentation.
        let code = answer.code().unwrap_or_default().into_owned();
        let class = code.get(..2).unwrap_or_default();
        match (code.as_str(), class) {
            // The session was ended, or its end was noticed.
            _ if ended => Self::Lost(error.into()),
            ("40003", _) | (_, "08") => Self::Lost(error.into()),
            ("23505", _) => Self::Taken,
            ("40001" | "40P01", _) => Self::Contention(error.into()),
            // Data, integrity, a limit of the server's own, a trigger's complaint.
            (_, "22" | "23" | "54" | "P0") => Self::Refused(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}
