//! Waking the requests that wait for an order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_schemas::OrderId;
use tokio::sync::watch;

/// Orders that requests may wait for at once. Beyond it a request is answered without waiting, which RFC 7240 allows.
const MAX_WAITED_FOR: usize = 20_000;

/// Which orders are waited for. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OrderChanges {
    waited_for: Arc<Mutex<HashMap<OrderId, watch::Sender<()>>>>,
}

/// One request's wait for one order. Changes that come between two looks are one.
#[derive(Debug)]
pub struct OrderWatch {
    changes: OrderChanges,
    order: OrderId,
    receiver: watch::Receiver<()>,
}

impl OrderChanges {
    /// From now on no change of `order` goes unnoticed; look at the order after this. `None`: too many wait already.
    pub fn watch(&self, order: OrderId) -> Option<OrderWatch> {
        let mut waited_for = self.lock();
        if !waited_for.contains_key(&order) && waited_for.len() >= MAX_WAITED_FOR {
            return None;
        }
        let receiver = waited_for
            .entry(order)
            .or_insert_with(|| watch::channel(()).0)
            .subscribe();
        Some(OrderWatch {
            changes: self.clone(),
            order,
            receiver,
        })
    }

    /// Something has happened to `order` or its payment.
    pub(super) fn changed(&self, order: OrderId) {
        if let Some(sender) = self.lock().get(&order) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<()>>> {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrderWatch {
    /// Resolves when the order has changed since the last call (or since the watch began). Cancel-safe.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives as long as a watch does; should it be gone, nothing more will come.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for OrderWatch {
    fn drop(&mut self) {
        let mut waited_for = self.changes.lock();
        // This receiver is still counted.
        if waited_for
            .get(&self.order)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waited_for.remove(&self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use event_schemas::{CommandId, derive_uuid};

    use super::*;

    #[tokio::test]
    async fn every_waiter_is_woken_and_nothing_stays_behind() {
        let order = OrderId::for_command(CommandId::from_uuid(derive_uuid("test", &[])));
        let changes = OrderChanges::default();
        let mut watches: Vec<OrderWatch> = (0..300).filter_map(|_| changes.watch(order)).collect();
        assert_eq!(watches.len(), 300);
        changes.changed(order);
        changes.changed(order);
        for watch in &mut watches {
            watch.changed().await;
        }
        drop(watches);
        assert!(changes.lock().is_empty());
    }
}
