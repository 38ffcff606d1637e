#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use aggregates::product::invariants::INVARIANTS;
use aggregates::product::{Product, ProductCommand as Command, ProductStatus};
use event_schemas::ProductEvent as Event;
use event_schemas::{Code, Currency, Money, ProductDetails, Sku};
use proptest::prelude::*;

use support::Run;

fn sku() -> impl Strategy<Value = Sku> {
    (0..3_u8).prop_map(|number| Sku::new(format!("MUG-{number}")).unwrap())
}

fn price() -> impl Strategy<Value = Money> {
    let currency = prop_oneof![9 => Just(Currency::GBP), 1 => Just(Currency::USD)];
    (-1..4_i64, currency).prop_map(|(amount, currency)| Money::new(amount, currency).unwrap())
}

fn details() -> impl Strategy<Value = ProductDetails> {
    let title = prop_oneof![Just(""), Just("Mug"), Just("Cup")];
    let category = proptest::option::of(Just("mugs".to_owned()));
    let tags = proptest::collection::vec("[a-z]{0,3}", 0..3);
    (title, category, tags).prop_map(|(title, category, tags)| ProductDetails {
        title: title.to_owned(),
        category,
        tags,
        ..ProductDetails::default()
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => details().prop_map(|details| Command::Create { details }),
        3 => details().prop_map(|details| Command::ChangeDetails { details }),
        6 => (sku(), price(), any::<bool>()).prop_map(|(sku, price, tracked)| {
            let option_values = BTreeMap::from([("size".to_owned(), "M".to_owned())]);
            Command::AddVariant { sku, option_values, price, tracked }
        }),
        4 => sku().prop_map(|sku| Command::RemoveVariant { sku }),
        4 => (sku(), price()).prop_map(|(sku, price)| Command::ChangePrice { sku, price }),
        3 => Just(Command::Publish),
        2 => Just(Command::Unpublish),
        1 => Just(Command::Archive { reason: Code::new("discontinued").unwrap() }),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_whatever_is_asked(commands in proptest::collection::vec(command(), 1..60)) {
        let mut run = Run::<Product>::new(INVARIANTS);
        for command in &commands {
            let archived = (run.state.status() == ProductStatus::Archived).then(|| run.state.clone());
            let events = run.execute(command).unwrap_or_default();
            if let Some(before) = archived {
                prop_assert_eq!(events, vec![]);
                prop_assert_eq!(&run.state, &before);
            }
        }
        run.check_snapshot();
        // Its books: what was added and not removed is there.
        let count = |wanted: fn(&Event) -> bool| run.events.iter().filter(|event| wanted(event)).count();
        let added = count(|event| matches!(event, Event::VariantAdded { .. }));
        let removed = count(|event| matches!(event, Event::VariantRemoved { .. }));
        prop_assert_eq!(added - removed, run.state.variants().len());
    }

    #[test]
    fn an_accepted_command_repeated_at_once_does_nothing_or_is_refused(
        before in proptest::collection::vec(command(), 0..30),
        repeated in command(),
    ) {
        let mut run = Run::<Product>::new(INVARIANTS);
        for command in &before {
            let _ = run.execute(command);
        }
        if run.execute(&repeated).is_ok() {
            let state = run.state.clone();
            prop_assert_eq!(run.execute(&repeated).unwrap_or_default(), vec![]);
            prop_assert_eq!(&run.state, &state);
        }
    }
}
