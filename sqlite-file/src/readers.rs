//! A fixed set of read-only connections, lent to blocking threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{SqliteError, open};

pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// One permit per connection; closed with the file.
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path, count: usize) -> Result<Self, SqliteError> {
        let count = count.max(1);
        let idle = (0..count).map(|_| open::reader(path)).collect::<Result<_, _>>()?;
        Ok(Self {
            idle: Mutex::new(idle),
            permits: Arc::new(Semaphore::new(count)),
        })
    }

    pub(crate) async fn run<T, E, F>(readers: &Arc<Self>, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        let permit = Arc::clone(&readers.permits)
            .acquire_owned()
            .await
            .map_err(|_| SqliteError::Closed)?;
        let readers = Arc::clone(readers);
        tokio::task::spawn_blocking(move || {
            // Held to the end, also when the caller stops waiting: it stands for the connection.
            let _permit = permit;
            let conn = readers.take().ok_or(SqliteError::Closed)?;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let snapshot = conn.unchecked_transaction().map_err(SqliteError::from)?;
                let outcome = job(&snapshot);
                drop(snapshot);
                outcome
            }));
            readers.give_back(conn);
            outcome.unwrap_or_else(|_| Err(SqliteError::Panicked.into()))
        })
        .await
        .unwrap_or_else(|_| Err(SqliteError::Closed.into()))
    }

    pub(crate) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, conn: Connection) {
        if !self.permits.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(conn);
        }
    }
}
