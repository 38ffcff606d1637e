//! The promise of the whole, under random interleavings: many orders, carts and SKUs at once, cancels, a provider that
//! answers late, twice or never, policies that run once, twice or late, and a machine that dies between any two steps.
//!
//! `PROPTEST_CASES` makes it run longer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use event_schemas::{CancelReason, CartEvent, Event, InventoryEvent, OrderEvent, OrderStage, PaymentEvent};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use system::clients::{Clients, Deed};
use system::verdict;
use system::world::{Fault, World};

/// One thing that happens next.
#[derive(Debug, Clone)]
enum Step {
    Deed(Deed),
    /// All writes so far become durable.
    Commit,
    /// The runner takes events.
    Begin {
        events: usize,
    },
    /// Commands under way are executed, each any that may be next.
    Fly {
        choices: Vec<usize>,
    },
    HoldUp {
        choice: usize,
    },
    LetGo {
        choice: usize,
    },
    Checkpoint,
    Effect {
        choice: usize,
        fault: Fault,
        luck: usize,
    },
    Report {
        choice: usize,
        again: bool,
    },
    Timer {
        choice: usize,
    },
    Rerun {
        choice: usize,
    },
    Wait {
        seconds: u64,
    },
    /// Nothing goes wrong for a while.
    Progress {
        moves: usize,
    },
    Crash {
        luck: usize,
    },
}

fn choice() -> impl Strategy<Value = usize> {
    0..1000_usize
}

fn deed() -> impl Strategy<Value = Deed> {
    let customer = || 0..4_u8;
    let sku = || 0..5_usize;
    prop_oneof![
        2 => (sku(), 1..3_u32).prop_map(|(sku, quantity)| Deed::Receive { sku, quantity }),
        1 => (sku(), 1..3_u32).prop_map(|(sku, quantity)| Deed::TakeAway { sku, quantity }),
        8 => (customer(), sku(), 1..3_u32)
            .prop_map(|(customer, sku, quantity)| Deed::AddItem { customer, sku, quantity }),
        8 => (customer(), choice(), any::<bool>())
            .prop_map(|(customer, means, placed)| Deed::CheckOut { customer, means, placed }),
        2 => (customer(), customer(), any::<bool>())
            .prop_map(|(from, into, merged)| Deed::Merge { from, into, merged }),
        3 => (customer(), sku(), choice())
            .prop_map(|(customer, sku, means)| Deed::PlaceForCustomer { customer, sku, means }),
        2 => (choice(), any::<bool>()).prop_map(|(order, staff)| Deed::Cancel { order, staff }),
        5 => (choice(), choice()).prop_map(|(order, means)| Deed::Retry { order, means }),
        5 => (choice(), any::<bool>()).prop_map(|(order, all)| Deed::Ship { order, all }),
        5 => choice().prop_map(|order| Deed::Deliver { order }),
        8 => (choice(), any::<bool>()).prop_map(|(order, damaged)| Deed::Return { order, damaged }),
        1 => choice().prop_map(|command| Deed::Repeat { command }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Down),
        2 => Just(Fault::LostAnswer),
        1 => Just(Fault::DiesBeforeRecord),
        1 => Just(Fault::DiesBeforeDone),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        14 => deed().prop_map(Step::Deed),
        6 => Just(Step::Commit),
        12 => (1..8_usize).prop_map(|events| Step::Begin { events }),
        16 => proptest::collection::vec(choice(), 1..8).prop_map(|choices| Step::Fly { choices }),
        4 => choice().prop_map(|choice| Step::HoldUp { choice }),
        2 => choice().prop_map(|choice| Step::LetGo { choice }),
        10 => Just(Step::Checkpoint),
        12 => (choice(), fault(), choice()).prop_map(|(choice, fault, luck)| Step::Effect { choice, fault, luck }),
        4 => (choice(), any::<bool>()).prop_map(|(choice, again)| Step::Report { choice, again }),
        2 => choice().prop_map(|choice| Step::Timer { choice }),
        2 => choice().prop_map(|choice| Step::Rerun { choice }),
        1 => prop_oneof![4 => Just(1), 4 => Just(10), 1 => Just(900), 1 => Just(1800)].prop_map(|seconds| Step::Wait { seconds }),
        4 => (1..80_usize).prop_map(|moves| Step::Progress { moves }),
        1 => choice().prop_map(|luck| Step::Crash { luck }),
    ]
}

fn run(steps: &[Step]) -> World {
    let (mut world, mut clients) = (World::new(), Clients::default());
    clients.open_shop(&mut world);
    for step in steps {
        world.now += Duration::from_millis(1);
        match step {
            Step::Deed(deed) => clients.act(&mut world, deed),
            Step::Commit => world.db.commit(),
            Step::Begin { events } => {
                for _ in 0..*events {
                    world.begin();
                }
            }
            Step::Fly { choices } => {
                for choice in choices {
                    world.fly(*choice);
                }
            }
            Step::HoldUp { choice } => world.hold_up(*choice),
            Step::LetGo { choice } => {
                world.let_go(*choice);
            }
            Step::Checkpoint => {
                world.checkpoint();
            }
            Step::Effect { choice, fault, luck } => {
                world.do_effect(*choice, *fault, *luck);
            }
            Step::Report { choice, again } => {
                world.report(*choice, *again);
            }
            Step::Timer { choice } => {
                world.fire_timer(*choice);
            }
            Step::Rerun { choice } => world.rerun(*choice),
            Step::Wait { seconds } => world.now += Duration::from_secs(*seconds),
            Step::Progress { moves } => world.progress(*moves),
            Step::Crash { luck } => world.crash(*luck),
        }
        verdict::is_safe(&world);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_whole_keeps_its_promises(steps in steps()) {
        let mut world = run(&steps);
        world.settle();
        verdict::is_settled(&world);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 50..400)
}

/// A property of runs in which nothing happens says nothing: these are the things that have to happen in some of them.
#[test]
fn random_runs_come_to_every_kind_of_event_and_to_the_races() {
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let mut world = run(&steps);
        world.settle();
        for found in notable(&world) {
            *reached.entry(found).or_default() += 1;
        }
    }
    let types = [
        InventoryEvent::TYPES,
        CartEvent::TYPES,
        OrderEvent::TYPES,
        PaymentEvent::TYPES,
    ]
    .concat();
    let never = [
        // No step of these runs asks for them.
        "BackorderLimitSet",
        "ItemQuantityChanged",
        "ItemRemoved",
        "CartCleared",
        "ReturnRejected",
        "RefundFailed",
        "ProviderAnomalyRecorded",
    ];
    let expected = types
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !never.contains(name));
    let races = [
        "reserved after its cancellation",
        "surplus refunded",
        "captured after cancel",
        "voided",
        "paid for nothing",
        "cancelled out of stock",
        "cancelled by the deadline",
        "paid by a later attempt",
        "cancelled when paid",
    ];
    let missing: Vec<&str> = expected
        .chain(races)
        .filter(|name| !reached.contains_key(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "never happened: {missing:?}; happened in so many runs: {reached:#?}"
    );
}

/// The types of all events, and the races of the design that this run went through.
fn notable(world: &World) -> BTreeSet<String> {
    let mut notable = BTreeSet::new();
    let mut cancelled = BTreeSet::new();
    for recorded in &world.db.tables.log {
        notable.insert(recorded.event.name().to_owned());
        let race = match &recorded.event {
            Event::Order(OrderEvent::OrderCancelled { reason, stage, .. }) => {
                cancelled.insert(recorded.stream.aggregate_id.to_string());
                match (reason, stage) {
                    (_, OrderStage::Paid) => "cancelled when paid",
                    (CancelReason::OutOfStock { .. }, _) => "cancelled out of stock",
                    (CancelReason::PaymentTimeout, _) => "cancelled by the deadline",
                    _ => continue,
                }
            }
            Event::Order(OrderEvent::OrderPaid { attempt: 0, .. }) => "paid for nothing",
            Event::Order(OrderEvent::OrderPaid { attempt: 2.., .. }) => "paid by a later attempt",
            Event::Inventory(InventoryEvent::StockReserved { order_id, .. })
                if cancelled.contains(&order_id.to_string()) =>
            {
                "reserved after its cancellation"
            }
            Event::Payment(PaymentEvent::PaymentCaptured { order_id, .. })
                if cancelled.contains(&order_id.to_string()) =>
            {
                "captured after cancel"
            }
            Event::Payment(PaymentEvent::RefundRequested { reason, .. }) if reason.as_str() == "surplus" => {
                "surplus refunded"
            }
            Event::Payment(PaymentEvent::PaymentVoided { .. }) => "voided",
            _ => continue,
        };
        notable.insert(race.to_owned());
    }
    notable
}
