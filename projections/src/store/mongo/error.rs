use mongodb::error::{Error, ErrorKind, WriteFailure};

/// The code of a duplicate key: for a guarded upsert, the document has moved.
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// Replicas that shut down, step down, or have just done so.
const NOT_NOW: [i32; 9] = [91, 189, 10_058, 10_107, 11_600, 11_602, 13_435, 13_436, 64];

/// What MongoDB or the way to it refuses. Texts hold no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MongoError {
    /// The URL is wrong.
    #[error("the MongoDB options are wrong: {0}")]
    Options(String),
    /// No server, no connection, or it broke: a write may have been stored or not. Its guard makes a repeat harmless.
    #[error("MongoDB is not available: {0}")]
    Unavailable(String),
    /// It took too long. As for [`MongoError::Unavailable`].
    #[error("MongoDB did not answer in time")]
    TimedOut,
    /// The server refused.
    #[error("MongoDB error {code}: {name}")]
    Refused { code: i32, name: String },
    /// The documents of this generation were dropped under a process that works with them. It has to begin again, from
    /// what is stored now.
    #[error("{0} is gone from MongoDB: its documents have to be folded again")]
    Gone(String),
    /// What came back is not what was asked for.
    #[error("an unexpected answer of MongoDB: {0}")]
    Unexpected(String),
}

impl MongoError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut => true,
            Self::Options(_) | Self::Refused { .. } | Self::Gone(_) | Self::Unexpected(_) => false,
        }
    }

    pub(super) fn is_duplicate(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: DUPLICATE_KEY,
                ..
            }
        )
    }

    pub(super) fn refused(code: i32, name: &str) -> Self {
        if NOT_NOW.contains(&code) {
            Self::Unavailable(format!("{code} {name}"))
        } else {
            Self::Refused {
                code,
                name: name.to_owned(),
            }
        }
    }
}

impl From<Error> for MongoError {
    /// By kind: the driver's own text quotes the server's answer, and with it documents.
    fn from(error: Error) -> Self {
        match error.kind.as_ref() {
            ErrorKind::InvalidArgument { message, .. } => Self::Options(message.clone()),
            ErrorKind::Io(error) => Self::Unavailable(error.to_string()),
            ErrorKind::ServerSelection { .. } => Self::Unavailable("no server can be reached".to_owned()),
            ErrorKind::ConnectionPoolCleared { .. } => Self::Unavailable("the connections broke".to_owned()),
            ErrorKind::DnsResolve { .. } => Self::Unavailable("the name does not resolve".to_owned()),
            ErrorKind::Shutdown => Self::Unavailable("the client was shut down".to_owned()),
            ErrorKind::Authentication { .. } => Self::refused(18, "AuthenticationFailed"),
            ErrorKind::Command(error) => Self::refused(error.code, &error.code_name),
            ErrorKind::Write(WriteFailure::WriteError(error)) => {
                Self::refused(error.code, error.code_name.as_deref().unwrap_or_default())
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
                Self::Unavailable(format!("not on a majority: {} {}", error.code, error.code_name))
            }
            ErrorKind::InvalidResponse { .. } => Self::Unexpected("an answer that cannot be read".to_owned()),
            ErrorKind::Bson(_) => Self::Unexpected("a document that cannot be read".to_owned()),
            _ => Self::Unexpected("an error of another kind".to_owned()),
        }
    }
}
