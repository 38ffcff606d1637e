//! How many orders a customer, or an address, holds unpaid: so that nobody reserves a shop empty.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_schemas::{ActorKind, CustomerId, Metadata, OrderId, OrderPlaced, Timestamp};

/// Unpaid orders a customer may have at once.
pub const MAX_UNPAID_PER_CUSTOMER: usize = 5;
/// Unpaid orders that may have been placed from one address (IPv6: one /64) at once.
pub const MAX_UNPAID_PER_ADDRESS: usize = 20;

/// Unpaid orders that are remembered; a shop with more of them takes no more from customers for now.
const MAX_TRACKED: usize = 500_000;
/// How long past its payment deadline an order is still counted, in case its cancellation is late.
const DEADLINE_GRACE: Duration = Duration::from_secs(15 * 60);

/// Why another unpaid order is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpaidLimit {
    #[error("the customer has {MAX_UNPAID_PER_CUSTOMER} unpaid orders")]
    Customer,
    #[error("{MAX_UNPAID_PER_ADDRESS} unpaid orders came from this address")]
    Address,
    #[error("too many unpaid orders are open")]
    Shop,
}

/// The unpaid orders that customers placed (not staff, importers or tests through the executor).
///
/// Orders enter when they are admitted here or seen in the log, and leave when the log says paid or cancelled.
/// Customers are known again after a restart, since the log names them; addresses are not, because they never enter
/// the log: after a restart the address limit begins anew, and each replica has its own. Of what another replica has
/// just admitted the log tells within moments; until then a customer may get past the limit by as many orders as there
/// are replicas. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct UnpaidOrders {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    orders: HashMap<OrderId, Entry>,
    by_customer: HashMap<CustomerId, Vec<OrderId>>,
    by_address: HashMap<IpAddr, Vec<OrderId>>,
}

#[derive(Debug)]
struct Entry {
    customer: CustomerId,
    address: Option<IpAddr>,
    counted_until: Timestamp,
    /// Requests that are placing this order right now.
    permits: u32,
    /// Known to be in the log.
    placed: bool,
}

/// Leave to place one order. Dropped without [`Permit::placed`], the order counts only if the log has it.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    unpaid: UnpaidOrders,
    order: OrderId,
}

impl UnpaidOrders {
    /// Counts `order` from now on, if its customer and address have room for one more. An order that is counted
    /// already (a repeat of its request) is always admitted.
    pub fn admit(
        &self,
        order: OrderId,
        customer: CustomerId,
        address: IpAddr,
        payment_deadline: Timestamp,
        now: Timestamp,
    ) -> Result<Permit, UnpaidLimit> {
        let mut state = self.lock();
        if let Some(entry) = state.orders.get_mut(&order) {
            entry.permits += 1;
        } else {
            if state.open(|state| state.by_customer.get(&customer), now) >= MAX_UNPAID_PER_CUSTOMER {
                return Err(UnpaidLimit::Customer);
            }
            if state.open(|state| state.by_address.get(&address), now) >= MAX_UNPAID_PER_ADDRESS {
                return Err(UnpaidLimit::Address);
            }
            let entry = Entry {
                customer,
                address: Some(address),
                counted_until: counted_until(payment_deadline),
                permits: 1,
                placed: false,
            };
            if !state.insert(order, entry) {
                return Err(UnpaidLimit::Shop);
            }
        }
        Ok(Permit {
            unpaid: self.clone(),
            order,
        })
    }

    /// The log says that `placed` was placed.
    pub(super) fn on_placed(&self, placed: &OrderPlaced, metadata: &Metadata, now: Timestamp) {
        let by_customer =
            placed.cart_id.is_some() || matches!(metadata.actor_kind, ActorKind::Guest | ActorKind::Customer);
        let counted_until = counted_until(placed.payment_deadline);
        if !by_customer || counted_until <= now {
            return;
        }
        let mut state = self.lock();
        if let Some(entry) = state.orders.get_mut(&placed.order_id) {
            entry.placed = true;
            return;
        }
        let entry = Entry {
            customer: placed.customer,
            address: None,
            counted_until,
            permits: 0,
            placed: true,
        };
        if !state.insert(placed.order_id, entry) {
            tracing::warn!("more unpaid orders than are counted");
        }
    }

    /// The log says that the order was paid or cancelled.
    pub(super) fn on_closed(&self, order: OrderId) {
        self.lock().remove(order);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the maps consistent even if it panics half way: they are only counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted_until(payment_deadline: Timestamp) -> Timestamp {
    payment_deadline
        .saturating_add(DEADLINE_GRACE)
        .unwrap_or(Timestamp::MAX)
}

impl State {
    /// How many of the listed orders count now; forgets those whose time is over.
    fn open(&mut self, listed: impl Fn(&Self) -> Option<&Vec<OrderId>>, now: Timestamp) -> usize {
        let Some(orders) = listed(self) else { return 0 };
        let over: Vec<OrderId> = orders
            .iter()
            .filter(|order| {
                self.orders
                    .get(order)
                    .is_none_or(|entry| entry.counted_until <= now)
            })
            .copied()
            .collect();
        for order in over {
            self.remove(order);
        }
        listed(self).map_or(0, Vec::len)
    }

    fn insert(&mut self, order: OrderId, entry: Entry) -> bool {
        if self.orders.len() >= MAX_TRACKED {
            return false;
        }
        self.by_customer.entry(entry.customer).or_default().push(order);
        if let Some(address) = entry.address {
            self.by_address.entry(address).or_default().push(order);
        }
        self.orders.insert(order, entry);
        true
    }

    fn remove(&mut self, order: OrderId) {
        let Some(entry) = self.orders.remove(&order) else {
            return;
        };
        forget(&mut self.by_customer, &entry.customer, order);
        if let Some(address) = entry.address {
            forget(&mut self.by_address, &address, order);
        }
    }
}

fn forget<K: Eq + Hash>(lists: &mut HashMap<K, Vec<OrderId>>, key: &K, order: OrderId) {
    if let Some(orders) = lists.get_mut(key) {
        orders.retain(|listed| *listed != order);
        if orders.is_empty() {
            lists.remove(key);
        }
    }
}

impl Permit {
    /// The order is in the log, placed by this very request (not a replay): it counts until the log says otherwise.
    pub fn placed(self) {
        // If it is gone already, the log has told of its end meanwhile.
        if let Some(entry) = self.unpaid.lock().orders.get_mut(&self.order) {
            entry.placed = true;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.unpaid.lock();
        let Some(entry) = state.orders.get_mut(&self.order) else {
            return;
        };
        entry.permits = entry.permits.saturating_sub(1);
        if entry.permits == 0 && !entry.placed {
            state.remove(self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use event_schemas::{CommandId, derive_uuid};

    use super::*;

    fn order(n: u32) -> OrderId {
        OrderId::for_command(CommandId::from_uuid(derive_uuid("test", &[&n.to_be_bytes()])))
    }

    fn customer(n: u32) -> CustomerId {
        CustomerId::from_uuid(derive_uuid("test customer", &[&n.to_be_bytes()]))
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn counted(unpaid: &UnpaidOrders) -> usize {
        unpaid.lock().orders.len()
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn admit(unpaid: &UnpaidOrders, n: u32, who: u32, from: u8) -> Result<Permit, UnpaidLimit> {
        let deadline = NOW + Duration::from_secs(1_800);
        unpaid.admit(order(n), customer(who), address(from), deadline, NOW)
    }

    #[test]
    fn the_sixth_order_of_a_customer_is_refused_even_while_five_are_being_placed() {
        let unpaid = UnpaidOrders::default();
        let permits: Vec<Permit> = (0..5).map(|n| admit(&unpaid, n, 1, 1).unwrap()).collect();
        assert_eq!(admit(&unpaid, 5, 1, 1).unwrap_err(), UnpaidLimit::Customer);
        assert!(admit(&unpaid, 6, 2, 1).is_ok(), "another customer has room");
        drop(permits);
        assert_eq!(counted(&unpaid), 0, "what was not placed is forgotten");
    }

    #[test]
    fn placed_orders_count_until_closed() {
        let unpaid = UnpaidOrders::default();
        for n in 0..5 {
            admit(&unpaid, n, 1, 1).unwrap().placed();
        }
        assert_eq!(admit(&unpaid, 5, 1, 1).unwrap_err(), UnpaidLimit::Customer);
        unpaid.on_closed(order(3));
        assert!(admit(&unpaid, 5, 1, 1).is_ok());
    }

    #[test]
    fn a_repeat_of_a_counted_order_is_admitted_and_counted_once() {
        let unpaid = UnpaidOrders::default();
        for n in 0..5 {
            admit(&unpaid, n, 1, 1).unwrap().placed();
        }
        drop(admit(&unpaid, 2, 1, 1).unwrap());
        assert_eq!(counted(&unpaid), 5);
    }

    #[test]
    fn an_address_is_limited_over_all_customers() {
        let unpaid = UnpaidOrders::default();
        for n in 0..20 {
            admit(&unpaid, n, n, 1).unwrap().placed();
        }
        assert_eq!(admit(&unpaid, 20, 20, 1).unwrap_err(), UnpaidLimit::Address);
        assert!(admit(&unpaid, 20, 20, 2).is_ok());
    }

    #[test]
    fn an_order_that_closed_before_its_request_ended_stays_forgotten() {
        let unpaid = UnpaidOrders::default();
        let permit = admit(&unpaid, 1, 1, 1).unwrap();
        unpaid.on_closed(order(1));
        permit.placed();
        assert_eq!(counted(&unpaid), 0);
    }

    #[test]
    fn nothing_counts_for_ever() {
        let unpaid = UnpaidOrders::default();
        for n in 0..5 {
            admit(&unpaid, n, 1, 1).unwrap().placed();
        }
        let later = NOW + Duration::from_secs(3 * 3_600);
        let deadline = later + Duration::from_secs(1_800);
        assert!(
            unpaid
                .admit(order(9), customer(1), address(1), deadline, later)
                .is_ok()
        );
    }
}
