//! Loads under way, so that many who miss the same document at once cause one load.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::view::DocId;

type Cells<T> = HashMap<DocId, Arc<OnceCell<T>>>;

/// Holds as many entries as there are loads under way.
pub(crate) struct Flights<T> {
    cells: Arc<Mutex<Cells<T>>>,
}

impl<T> Clone for Flights<T> {
    fn clone(&self) -> Self {
        Self {
            cells: Arc::clone(&self.cells),
        }
    }
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self {
            cells: Arc::default(),
        }
    }

    /// What `load` gives, or what a load of `id` gives that is under way. Whoever waits takes over when the one that
    /// loads is dropped or fails.
    pub(crate) async fn share<E>(
        &self,
        id: &DocId,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let cell = Arc::clone(lock(&self.cells).entry(id.clone()).or_default());
        let seat = Seat {
            cells: &self.cells,
            id,
            cell,
        };
        seat.cell.get_or_try_init(|| load).await.cloned()
    }
}

/// One who waits for a load. The first to have it, or the last to leave, makes room for the next load.
struct Seat<'a, T> {
    cells: &'a Mutex<Cells<T>>,
    id: &'a DocId,
    cell: Arc<OnceCell<T>>,
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut cells = lock(self.cells);
        let ours = cells
            .get(self.id)
            .is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // The map's and our own.
        let last = Arc::strong_count(&self.cell) <= 2;
        if ours && (self.cell.initialized() || last) {
            cells.remove(self.id);
        }
    }
}

fn lock<T>(cells: &Mutex<Cells<T>>) -> MutexGuard<'_, Cells<T>> {
    cells.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn those_who_come_meanwhile_share_one_load() {
        let (flights, loads, go) = (Flights::<u32>::new(), AtomicU32::new(0), Notify::new());
        let id = DocId::from("a");
        let load = async || {
            go.notified().await;
            Ok::<_, ()>(loads.fetch_add(1, Ordering::SeqCst))
        };
        let land = async {
            while Arc::strong_count(&lock(&flights.cells)[&id]) < 4 {
                tokio::task::yield_now().await;
            }
            go.notify_one();
        };
        let (one, two, three, ()) = tokio::join!(
            flights.share(&id, load()),
            flights.share(&id, load()),
            flights.share(&id, load()),
            land
        );
        assert_eq!((one, two, three), (Ok(0), Ok(0), Ok(0)));
        assert!(lock(&flights.cells).is_empty());
        // Nothing is kept: the next one loads anew.
        assert_eq!(flights.share(&id, async { Ok::<_, ()>(7) }).await, Ok(7));
        assert_eq!(flights.share(&id, async { Err(8) }).await, Err(8));
        assert!(lock(&flights.cells).is_empty());
    }

    #[tokio::test]
    async fn a_load_that_is_dropped_leaves_nothing() {
        let flights = Flights::<u32>::new();
        let id = DocId::from("a");
        {
            let never = flights.share(&id, std::future::pending::<Result<u32, ()>>());
            tokio::pin!(never);
            assert!(futures_util::poll!(&mut never).is_pending());
        }
        assert!(lock(&flights.cells).is_empty());
    }
}
