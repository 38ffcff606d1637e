//! Failures of the store that may pass: which ones, and what is told about them meanwhile.

use std::time::Duration;

use database::{DatabaseError, PostgresError};
use event_bus::BusError;
use event_store::ReadError;
use sqlite_file::SqliteError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether trying again cannot help while this program runs: it is closed, too old, or its own defect.
pub(crate) fn lasting(error: &DatabaseError) -> bool {
    error.is_closed()
        || matches!(
            error,
            DatabaseError::Newer { .. }
                | DatabaseError::Behind { .. }
                | DatabaseError::Sqlite(SqliteError::Panicked)
                | DatabaseError::Postgres(PostgresError::Panicked)
        )
}

/// Whether the stream cannot be followed any further without someone's doing.
pub(crate) fn ends_the_stream(error: &BusError) -> bool {
    match error {
        BusError::Upgrade { .. }
        | BusError::ForeignCheckpoint { .. }
        | BusError::BeyondHead { .. }
        | BusError::ForeignRecord { .. }
        | BusError::Partitions { .. }
        | BusError::Log(ReadError::Unfinished | ReadError::Unreadable(_)) => true,
        BusError::Kafka(_) | BusError::Positions(_) => false,
        BusError::Log(ReadError::Store(error)) | BusError::Store(error) => lasting(error),
    }
}

/// What is tried again just now, for those who watch.
pub(crate) struct Trouble(watch::Sender<Option<String>>);

impl Trouble {
    pub(crate) fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// Tells of a failure and waits before the next try; less if cancelled.
    pub(crate) async fn pause(&self, text: String, wait: Duration, cancel: &CancellationToken) {
        self.0.send_replace(Some(text));
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// It has worked.
    pub(crate) fn over(&self) {
        self.0.send_if_modified(|trouble| trouble.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use event_schemas::Position;

    use super::*;

    #[test]
    fn only_what_no_try_can_heal_ends_the_stream() {
        let failed = DatabaseError::Sqlite(SqliteError::Sql {
            code: 10,
            message: "disk I/O error".to_owned(),
        });
        assert!(!ends_the_stream(&BusError::Log(ReadError::Store(failed.clone()))));
        assert!(!ends_the_stream(&BusError::Store(failed)));
        assert!(ends_the_stream(&BusError::Log(ReadError::Store(
            SqliteError::Closed.into()
        ))));
        assert!(ends_the_stream(&BusError::Upgrade {
            subscriber: "sagas".into(),
            position: Position(1),
            event_type: "OrderPlaced".to_owned(),
            event_version: "9".to_owned(),
        }));
    }
}
