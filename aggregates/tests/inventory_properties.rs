#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;

use aggregates::inventory::invariants::INVARIANTS;
use aggregates::inventory::{InventoryCommand as Command, StockItem};
use event_schemas::InventoryEvent as Event;
use event_schemas::{Code, OrderId, ProductId, Reference, ReleaseReason, ReturnCondition, Timestamp};
use proptest::prelude::*;

use support::Run;

fn order_id() -> impl Strategy<Value = OrderId> {
    (0..4_u8).prop_map(|number| OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10]))
}

fn quantity() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0..12_u32, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn delta() -> impl Strategy<Value = i64> {
    prop_oneof![20 => -12..12_i64, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn command() -> impl Strategy<Value = Command> {
    let product = (0..2_u8).prop_map(|number| ProductId::generate(Timestamp::UNIX_EPOCH, &[number; 10]));
    let reference = Reference::new("delivery").unwrap();
    let reason = Code::new("count").unwrap();
    let condition = prop_oneof![Just(ReturnCondition::Resaleable), Just(ReturnCondition::Damaged)];
    prop_oneof![
        2 => product.prop_map(|product_id| Command::AssignSku { product_id }),
        4 => quantity().prop_map(move |quantity| Command::Receive { quantity, reference: reference.clone() }),
        2 => delta().prop_map(move |delta| Command::Adjust { delta, reason: reason.clone() }),
        8 => (order_id(), quantity()).prop_map(|(order_id, quantity)| Command::Reserve { order_id, quantity }),
        3 => order_id()
            .prop_map(|order_id| Command::Release { order_id, reason: ReleaseReason::OrderCancelled }),
        4 => (order_id(), quantity()).prop_map(|(order_id, quantity)| Command::Commit { order_id, quantity }),
        2 => (order_id(), quantity(), condition)
            .prop_map(|(order_id, quantity, condition)| Command::Return { order_id, quantity, condition }),
        1 => quantity().prop_map(|limit| Command::SetBackorderLimit { limit }),
    ]
}

/// The item's books, kept from its events alone and in another way than the item keeps them.
#[derive(Default)]
struct Books {
    received: i128,
    adjusted: i128,
    returned: i128,
    committed: i128,
    limit: i128,
    held: HashMap<OrderId, i128>,
}

impl Books {
    fn enter(&mut self, event: &Event) {
        match event {
            Event::StockReceived { quantity, .. } => self.received += i128::from(*quantity),
            Event::StockAdjusted { delta, .. } => self.adjusted += i128::from(*delta),
            Event::StockReserved { order_id, quantity } => {
                let before = self.held.insert(*order_id, i128::from(*quantity)).unwrap_or(0);
                assert_eq!(before, 0, "an order holds two reservations");
            }
            Event::ReservationRejected {
                quantity, available, ..
            } => {
                assert_eq!(
                    i128::from(*available),
                    self.available(),
                    "a rejection says what was available"
                );
                assert!(
                    i128::from(*quantity) > self.available(),
                    "a rejection of what was there"
                );
            }
            Event::ReservationReleased {
                order_id, quantity, ..
            } => self.give_up(*order_id, *quantity),
            Event::ReservationCommitted { order_id, quantity } => {
                self.give_up(*order_id, *quantity);
                self.committed += i128::from(*quantity);
            }
            Event::StockReturned {
                quantity,
                condition: ReturnCondition::Resaleable,
                ..
            } => {
                self.returned += i128::from(*quantity);
            }
            Event::BackorderLimitSet { limit } => self.limit = i128::from(*limit),
            Event::SkuAssigned { .. } | Event::StockReturned { .. } => {}
        }
        assert!(self.on_hand() >= 0, "{event:?} leaves less than nothing");
        assert!(self.available() >= 0, "{event:?} oversells");
    }

    fn give_up(&mut self, order_id: OrderId, quantity: u32) {
        let held = self.held.entry(order_id).or_default();
        *held -= i128::from(quantity);
        assert!(*held >= 0, "more is given up than is held");
    }

    fn on_hand(&self) -> i128 {
        self.received + self.adjusted + self.returned - self.committed
    }

    fn available(&self) -> i128 {
        self.on_hand() + self.limit - self.held.values().sum::<i128>()
    }
}

proptest! {
    #[test]
    fn stock_is_conserved_whatever_is_asked(commands in proptest::collection::vec(command(), 1..80)) {
        let mut run = Run::<StockItem>::new(INVARIANTS);
        let mut books = Books::default();
        for command in &commands {
            for event in run.execute(command).unwrap_or_default() {
                books.enter(&event);
            }
            prop_assert_eq!(books.on_hand(), i128::from(run.state.on_hand()));
            prop_assert_eq!(books.available(), i128::from(run.state.available()));
            for (order_id, held) in &books.held {
                prop_assert_eq!(*held, i128::from(run.state.reserved_by(*order_id)));
            }
        }
        run.check_snapshot();
    }

    /// A repeat that the log did not absorb changes nothing while its effect stands.
    #[test]
    fn a_repeated_reserve_release_or_assignment_does_nothing(
        before in proptest::collection::vec(command(), 0..40),
        repeated in command(),
    ) {
        let idempotent = matches!(
            repeated,
            Command::AssignSku { .. } | Command::Reserve { .. } | Command::Release { .. } | Command::SetBackorderLimit { .. }
        );
        prop_assume!(idempotent);
        let mut run = Run::<StockItem>::new(INVARIANTS);
        for command in &before {
            let _ = run.execute(command);
        }
        let rejected = |events: &[Event]| matches!(events, [Event::ReservationRejected { .. }]);
        match run.execute(&repeated) {
            Ok(first) if !rejected(&first) => {
                let state = run.state.clone();
                prop_assert_eq!(run.execute(&repeated), Ok(vec![]));
                prop_assert_eq!(&run.state, &state);
            }
            // A rejection is said again, the same way.
            first => prop_assert_eq!(run.execute(&repeated), first),
        }
    }
}
