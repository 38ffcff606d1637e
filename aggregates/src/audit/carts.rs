use std::collections::HashMap;

use event_schemas::{
    AggregateId, AggregateType, CartEvent, OrderEvent, OrderId, RecordedEvent, StreamId, Timestamp,
};

use super::orders::Orders;
use super::{CART_ANSWERED, Findings, MERGE_ARRIVES, MERGED_ONCE};

#[derive(Debug, Default)]
pub(super) struct Carts {
    /// Checked out, and neither ordered nor reopened: which cart, and since when.
    unanswered: HashMap<OrderId, (AggregateId, Timestamp)>,
    /// By source and target: when lines were given that have not arrived, oldest first.
    under_way: HashMap<(AggregateId, AggregateId), Vec<Timestamp>>,
}

impl Carts {
    pub(super) fn observe(
        &mut self,
        recorded: &RecordedEvent,
        event: &CartEvent,
        orders: &Orders,
        found: &mut Findings,
    ) {
        let cart = &recorded.stream.aggregate_id;
        match event {
            CartEvent::CartCheckedOut(checked_out) if !orders.is_placed(checked_out.order_id) => {
                self.unanswered
                    .insert(checked_out.order_id, (cart.clone(), recorded.recorded_at));
            }
            CartEvent::CartReopened { order_id, .. } | CartEvent::CartRenewed { order_id } => {
                self.unanswered.remove(order_id);
            }
            CartEvent::CartMergedInto { target, .. } => {
                let given = (cart.clone(), AggregateId::from(*target));
                self.under_way
                    .entry(given)
                    .or_default()
                    .push(recorded.recorded_at);
            }
            CartEvent::CartMerged { from, .. } => {
                let given = (AggregateId::from(*from), cart.clone());
                match self.under_way.get_mut(&given) {
                    Some(times) if times.len() > 1 => {
                        times.remove(0);
                    }
                    Some(_) => {
                        self.under_way.remove(&given);
                    }
                    None => found.add(MERGED_ONCE, &recorded.stream, || {
                        format!("cart {from} gave nothing")
                    }),
                }
            }
            _ => {}
        }
    }

    pub(super) fn order_event(&mut self, order_id: OrderId, event: &OrderEvent) {
        if matches!(event, OrderEvent::OrderPlaced(_)) {
            self.unanswered.remove(&order_id);
        }
    }

    pub(super) fn finish(&self, due: Timestamp, found: &mut Findings) {
        for (order_id, (cart, since)) in &self.unanswered {
            if *since <= due {
                let stream = StreamId::new(AggregateType::Cart, cart.clone());
                found.add(CART_ANSWERED, &stream, || {
                    format!("order {order_id} was never placed")
                });
            }
        }
        for ((source, target), times) in &self.under_way {
            if times.iter().any(|since| *since <= due) {
                let stream = StreamId::new(AggregateType::Cart, source.clone());
                found.add(MERGE_ARRIVES, &stream, || {
                    format!("its lines did not arrive in cart {target}")
                });
            }
        }
    }
}
