//! A queued closure with its answer, behind one allocation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use crate::SqliteError;

/// How a job left the connection.
pub(crate) enum Ran {
    Ok,
    Err,
    Panicked,
}

pub(crate) trait Job: Send {
    /// Runs the closure, once, and keeps its result.
    fn run(&mut self, conn: &Connection) -> Ran;
    /// Whether the writer wraps this job in a savepoint.
    fn savepoint(&self) -> bool;
    /// Hands the kept result, or the transaction's failure, to `done`.
    fn finish(self: Box<Self>, failure: Option<&SqliteError>);
}

pub(crate) struct TypedJob<T, E, F, D> {
    work: Option<F>,
    outcome: Option<Result<T, E>>,
    done: D,
    savepoint: bool,
}

impl<T, E, F, D> TypedJob<T, E, F, D> {
    pub(crate) fn new(work: F, done: D, savepoint: bool) -> Self {
        Self {
            work: Some(work),
            outcome: None,
            done,
            savepoint,
        }
    }
}

impl<T, E, F, D> Job for TypedJob<T, E, F, D>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    D: FnOnce(Result<T, E>) + Send,
    T: Send,
    E: From<SqliteError> + Send,
{
    fn run(&mut self, conn: &Connection) -> Ran {
        let Some(work) = self.work.take() else {
            return Ran::Err;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(conn)));
        let ran = match &outcome {
            Ok(Ok(_)) => Ran::Ok,
            Ok(Err(_)) => Ran::Err,
            Err(_) => Ran::Panicked,
        };
        self.outcome = Some(outcome.unwrap_or_else(|_| Err(SqliteError::Panicked.into())));
        ran
    }

    fn savepoint(&self) -> bool {
        self.savepoint
    }

    fn finish(self: Box<Self>, failure: Option<&SqliteError>) {
        let this = *self;
        // A refusal may rest on a write that the failed transaction lost, so the failure replaces every result.
        let outcome = match (failure, this.outcome) {
            (None, Some(outcome)) => outcome,
            (Some(failure), _) => Err(failure.clone().into()),
            (None, None) => Err(SqliteError::Aborted.into()),
        };
        (this.done)(outcome);
    }
}
