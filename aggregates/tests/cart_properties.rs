#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use aggregates::cart::invariants::INVARIANTS;
use aggregates::cart::{Cart, CartCommand as Command, CartStatus, CheckOut, MAX_LINES, MAX_QUANTITY};
use aggregates::order::totals;
use event_schemas::CartEvent as Event;
use event_schemas::{
    CartId, CartLine, Code, CountryCode, Currency, CustomerId, Money, OrderId, OrderLine, PaymentMethod,
    ProductId, ShippingCharge, Sku, Tax, Timestamp,
};
use proptest::prelude::*;

use support::Run;

const SEED: Timestamp = Timestamp::UNIX_EPOCH;

/// What may come next. Orders are named by their attempt, check-outs price the cart as it is or was.
#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    CheckOut { stale: bool },
    Reopen { attempt: u32 },
    Renew { attempt: u32 },
}

fn customer(number: u8) -> CustomerId {
    CustomerId::generate(SEED, &[number; 10])
}

fn owner() -> CustomerId {
    customer(1)
}

fn order(attempt: u32) -> OrderId {
    OrderId::for_checkout(CartId::for_owner(owner()), attempt)
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn sku() -> impl Strategy<Value = Sku> {
    (0..4_u8).prop_map(|number| Sku::new(format!("MUG-{number}")).unwrap())
}

fn quantity() -> impl Strategy<Value = u32> {
    prop_oneof![16 => 0..10_u32, 2 => MAX_QUANTITY - 5..MAX_QUANTITY + 2, 1 => any::<u32>()]
}

fn anyone() -> impl Strategy<Value = CustomerId> {
    prop_oneof![15 => Just(owner()), 1 => Just(customer(2))]
}

fn merged() -> impl Strategy<Value = Vec<CartLine>> {
    let line = (sku(), 0..MAX_QUANTITY).prop_map(|(sku, quantity)| CartLine { sku, quantity });
    proptest::collection::vec(line, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (anyone(), sku(), quantity())
            .prop_map(|(owner, sku, quantity)| Step::Command(Command::AddItem { owner, sku, quantity })),
        3 => (sku(), quantity()).prop_map(|(sku, quantity)| Step::Command(Command::ChangeQuantity { sku, quantity })),
        2 => sku().prop_map(|sku| Step::Command(Command::RemoveItem { sku })),
        1 => Just(Step::Command(Command::Clear)),
        1 => anyone().prop_map(|target_owner| Step::Command(Command::MergeInto { target_owner })),
        2 => (anyone(), merged()).prop_map(|(owner, lines)| {
            Step::Command(Command::Merge { owner, from: CartId::for_owner(customer(9)), lines })
        }),
        4 => prop_oneof![4 => Just(false), 1 => Just(true)].prop_map(|stale| Step::CheckOut { stale }),
        3 => (0..5_u32).prop_map(|attempt| Step::Reopen { attempt }),
        2 => (0..5_u32).prop_map(|attempt| Step::Renew { attempt }),
    ]
}

fn priced(lines: &[CartLine]) -> CheckOut {
    let no_tax = Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: pounds(0),
        included: false,
    };
    let lines: Vec<OrderLine> = lines
        .iter()
        .zip(1..)
        .map(|(line, line_no)| OrderLine {
            line_no,
            sku: line.sku.clone(),
            product_id: ProductId::generate(SEED, &[7; 10]),
            title: "Mug".to_owned(),
            unit_price: pounds(100),
            quantity: line.quantity,
            discount: pounds(0),
            tax: no_tax.clone(),
            tracked: true,
        })
        .collect();
    let shipping = ShippingCharge {
        price: pounds(0),
        discount: pounds(0),
        tax: no_tax,
    };
    CheckOut {
        totals: totals(&lines, &shipping).unwrap(),
        lines,
        shipping,
        country: CountryCode::new("GB").unwrap(),
        payment: PaymentMethod {
            method: code("card"),
            provider: code("sandbox"),
            secret_ref: None,
        },
        occurred_at: SEED,
        payment_deadline: SEED,
    }
}

type Units = BTreeMap<Sku, u64>;

fn sum(lines: &[CartLine]) -> Units {
    let mut units = Units::new();
    for line in lines {
        *units.entry(line.sku.clone()).or_default() += u64::from(line.quantity);
    }
    units
}

fn kept(cart: &Cart) -> &[CartLine] {
    match cart.status() {
        CartStatus::CheckedOut { kept, .. } => kept,
        CartStatus::Unopened | CartStatus::Open => &[],
    }
}

/// Every unit that came in, less every unit that left by name: the cart's books, kept from its events alone.
#[derive(Default)]
struct Books {
    units: Units,
    checked_out: Option<(OrderId, Units)>,
    attempts: u32,
}

impl Books {
    fn enter(&mut self, event: &Event) {
        let from_owner = !matches!(
            event,
            Event::CartMerged { .. } | Event::CartReopened { .. } | Event::CartRenewed { .. }
        );
        assert!(
            self.checked_out.is_none() || !from_owner,
            "{event:?} into a checked-out cart"
        );
        match event {
            Event::CartOpened { owner } => assert_eq!(*owner, self::owner()),
            Event::ItemAdded { sku, quantity } => {
                *self.units.entry(sku.clone()).or_default() += u64::from(*quantity);
                assert!(
                    self.units[sku] <= u64::from(MAX_QUANTITY),
                    "{event:?} beyond the limit"
                );
                assert!(self.units.len() <= MAX_LINES);
            }
            Event::ItemQuantityChanged { sku, quantity } => {
                let before = self.units.insert(sku.clone(), u64::from(*quantity)).unwrap();
                let to = u64::from(*quantity);
                assert!(
                    to > 0 && (to <= u64::from(MAX_QUANTITY) || to < before),
                    "{event:?} beyond the limit"
                );
            }
            Event::ItemRemoved { sku } => assert!(self.units.remove(sku).is_some()),
            Event::CartCleared {} => self.units.clear(),
            Event::CartMergedInto { lines, .. } => {
                assert_eq!(
                    std::mem::take(&mut self.units),
                    sum(lines),
                    "all of it goes, and nothing else"
                );
            }
            Event::CartMerged { lines, .. } => {
                for (sku, quantity) in sum(lines) {
                    *self.units.entry(sku).or_default() += quantity;
                }
            }
            Event::CartCheckedOut(checked_out) => {
                self.attempts += 1;
                assert_eq!(
                    (checked_out.attempt, checked_out.order_id),
                    (self.attempts, order(self.attempts))
                );
                let mut ordered = Units::new();
                for line in &checked_out.lines {
                    *ordered.entry(line.sku.clone()).or_default() += u64::from(line.quantity);
                }
                assert_eq!(ordered, self.units, "the order has what the cart has");
                self.checked_out = Some((checked_out.order_id, ordered));
            }
            Event::CartReopened { order_id, .. } => assert_eq!(self.checked_out.take().unwrap().0, *order_id),
            Event::CartRenewed { order_id } => {
                let (current, bought) = self.checked_out.take().unwrap();
                assert_eq!(current, *order_id);
                for (sku, quantity) in bought {
                    *self.units.get_mut(&sku).unwrap() -= quantity;
                }
                self.units.retain(|_, quantity| *quantity > 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_unit_is_accounted_for_whatever_is_asked(steps in proptest::collection::vec(step(), 1..80)) {
        let mut run = Run::<Cart>::new(INVARIANTS);
        let mut books = Books::default();
        let mut before = Vec::new();
        let sku = Sku::new("MUG-0").unwrap();
        let first = Step::Command(Command::AddItem { owner: owner(), sku, quantity: 1 });
        for step in std::iter::once(&first).chain(&steps) {
            let command = match step {
                Step::Command(command) => command.clone(),
                Step::CheckOut { stale } => {
                    let lines = if *stale { &before[..] } else { run.state.lines() };
                    Command::CheckOut(Box::new(priced(lines)))
                }
                Step::Reopen { attempt } => Command::Reopen { order_id: order(*attempt), reason: code("failed") },
                Step::Renew { attempt } => Command::Renew { order_id: order(*attempt) },
            };
            before = run.state.lines().to_vec();
            for event in run.execute(&command).unwrap_or_default() {
                books.enter(&event);
            }
            let all = [run.state.lines(), kept(&run.state)].concat();
            prop_assert_eq!(sum(&all), books.units.clone());
            prop_assert_eq!(run.state.checked_out_as(), books.checked_out.as_ref().map(|(order_id, _)| *order_id));
        }
        run.check_snapshot();
    }

    /// A merge is never refused for want of room, and a cart that has room stays within the limits.
    #[test]
    fn a_merge_always_fits(merges in proptest::collection::vec(merged(), 1..20)) {
        let mut run = Run::<Cart>::new(INVARIANTS);
        let mut units = Units::new();
        for mut lines in merges {
            lines.retain(|line| line.quantity > 0);
            let room = run.state.has_room_for(&lines);
            let merge = Command::Merge { owner: owner(), from: CartId::for_owner(customer(9)), lines: lines.clone() };
            prop_assert!(run.execute(&merge).is_ok());
            for (sku, quantity) in sum(&lines) {
                *units.entry(sku).or_default() += quantity;
            }
            prop_assert_eq!(sum(run.state.lines()), units.clone());
            let within = run.state.lines().iter().all(|line| line.quantity <= MAX_QUANTITY);
            prop_assert_eq!(room, within);
        }
    }
}
