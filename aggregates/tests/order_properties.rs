#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use aggregates::order::invariants::INVARIANTS;
use aggregates::order::{
    Order, OrderCommand as Command, OrderError, OrderStatus, check_agreement, tax, totals,
};
use event_schemas::OrderEvent as Event;
use event_schemas::{
    ActorKind, CancelReason, Code, CountryCode, Currency, CustomerId, LineQuantity, Money, OrderId,
    OrderLine, OrderPlaced, OrderStage, PaymentId, PaymentMethod, ProductId, RefundId, ReturnCondition,
    ReturnId, ReturnedLine, ShipmentId, ShippingCharge, Sku, Tax, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use support::Run;

const SEED: Timestamp = Timestamp::UNIX_EPOCH;

fn order_id() -> OrderId {
    OrderId::generate(SEED, &[1; 10])
}

fn payment_id() -> PaymentId {
    PaymentId::for_order(order_id())
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

fn tax_on(net: i64) -> impl Strategy<Value = Tax> {
    let rate = prop_oneof![2 => Just(0_u32), 1 => Just(200_000), 1 => 0..1_000_000_u32];
    (rate, any::<bool>())
        .prop_map(move |(rate, included)| tax(pounds(net), code("t"), rate, included).unwrap())
}

fn line() -> impl Strategy<Value = OrderLine> {
    (sku(), 0..500_i64, 1..4_u32, any::<bool>(), 0.0..=1.0_f64).prop_flat_map(
        |(sku, price, quantity, tracked, share)| {
            let gross = price * i64::from(quantity);
            #[expect(clippy::cast_possible_truncation, reason = "a discount of any size")]
            let discount = (gross as f64 * share * share) as i64;
            tax_on(gross - discount).prop_map(move |tax| OrderLine {
                line_no: 0,
                sku: sku.clone(),
                product_id: ProductId::generate(SEED, &[7; 10]),
                title: "Mug".to_owned(),
                unit_price: pounds(price),
                quantity,
                discount: pounds(discount),
                tax,
                tracked,
            })
        },
    )
}

fn shipping() -> impl Strategy<Value = ShippingCharge> {
    (0..400_i64).prop_flat_map(|price| {
        tax_on(price).prop_map(move |tax| ShippingCharge {
            price: pounds(price),
            discount: pounds(0),
            tax,
        })
    })
}

fn placed() -> impl Strategy<Value = OrderPlaced> {
    (vec(line(), 1..5), shipping()).prop_map(|(mut lines, shipping)| {
        for (line, line_no) in lines.iter_mut().zip(1..) {
            line.line_no = line_no;
        }
        OrderPlaced {
            order_id: order_id(),
            customer: CustomerId::generate(SEED, &[2; 10]),
            totals: totals(&lines, &shipping).unwrap(),
            lines,
            shipping,
            country: CountryCode::new("GB").unwrap(),
            cart_id: None,
            payment: PaymentMethod {
                method: code("card"),
                provider: code("sandbox"),
                secret_ref: None,
            },
            occurred_at: SEED,
            payment_deadline: SEED,
        }
    })
}

/// What may come next; amounts are shares of what would be right, so that many commands are accepted.
#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    ReserveNext,
    MarkPaid {
        attempt: u32,
        off_by: i64,
    },
    /// All that is left to ship.
    DispatchRest {
        shipment_id: ShipmentId,
    },
    /// Some units of one line, which may be more than are left.
    DispatchOne {
        shipment_id: ShipmentId,
        line_no: u32,
        quantity: u32,
    },
    DeliverNext,
    RecordRefund {
        refund_id: RefundId,
        attempt: u32,
        amount: i64,
    },
}

fn line_quantities() -> impl Strategy<Value = Vec<LineQuantity>> {
    vec(
        (0..6_u32, 0..4_u32).prop_map(|(line_no, quantity)| LineQuantity { line_no, quantity }),
        0..4,
    )
}

fn returned_lines() -> impl Strategy<Value = Vec<ReturnedLine>> {
    line_quantities().prop_map(|lines| {
        let condition = ReturnCondition::Damaged;
        let returned = |line: LineQuantity| ReturnedLine {
            line_no: line.line_no,
            quantity: line.quantity,
            condition,
        };
        lines.into_iter().map(returned).collect()
    })
}

fn shipment_id() -> impl Strategy<Value = ShipmentId> {
    (0..4_u8).prop_map(|number| ShipmentId::generate(SEED, &[number; 10]))
}

fn return_id() -> impl Strategy<Value = ReturnId> {
    (0..3_u8).prop_map(|number| ReturnId::generate(SEED, &[number; 10]))
}

fn refund_id() -> impl Strategy<Value = RefundId> {
    (0..5_u8).prop_map(|number| RefundId::generate(SEED, &[number; 10]))
}

fn cancel_reason() -> impl Strategy<Value = CancelReason> {
    prop_oneof![
        sku().prop_map(|sku| CancelReason::OutOfStock { sku, available: 0 }),
        Just(CancelReason::PaymentTimeout),
        Just(CancelReason::CustomerRequest),
        Just(CancelReason::Staff { code: code("fraud") }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => placed().prop_map(|placed| Command::Place(Box::new(placed))),
        2 => sku().prop_map(|sku| Command::RecordLineReserved { sku }),
        2 => Just(Command::RecordReserved),
        1 => cancel_reason().prop_map(|reason| Command::Cancel { reason, by: ActorKind::Staff }),
        3 => (shipment_id(), line_quantities()).prop_map(|(shipment_id, lines)| {
            Command::Dispatch { shipment_id, lines, carrier: code("post"), tracking_number: None }
        }),
        2 => shipment_id().prop_map(|shipment_id| Command::RecordDelivered { shipment_id, delivered_at: SEED }),
        1 => Just(Command::Complete),
        5 => (return_id(), line_quantities()).prop_map(|(return_id, lines)| {
            Command::RequestReturn { return_id, lines, reason: code("broken"), note: None }
        }),
        3 => return_id().prop_map(|return_id| Command::ApproveReturn { return_id }),
        1 => return_id().prop_map(|return_id| Command::RejectReturn { return_id, reason: code("worn") }),
        4 => (return_id(), returned_lines(), -1..300_i64).prop_map(|(return_id, lines, refund)| {
            Command::ReceiveReturn { return_id, lines, refund: pounds(refund) }
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => command().prop_map(Step::Command),
        4 => Just(Step::ReserveNext),
        3 => (0..3_u32, prop_oneof![9 => Just(0_i64), 1 => -1..2_i64])
            .prop_map(|(attempt, off_by)| Step::MarkPaid { attempt, off_by }),
        1 => shipment_id().prop_map(|shipment_id| Step::DispatchRest { shipment_id }),
        4 => (shipment_id(), 1..4_u32, 1..4_u32)
            .prop_map(|(shipment_id, line_no, quantity)| Step::DispatchOne { shipment_id, line_no, quantity }),
        2 => Just(Step::DeliverNext),
        2 => (refund_id(), 0..3_u32, -1..400_i64)
            .prop_map(|(refund_id, attempt, amount)| Step::RecordRefund { refund_id, attempt, amount }),
    ]
}

/// The command of a step; none if the step has no meaning yet.
fn command_of(step: &Step, order: &Order, shipments: &BTreeSet<ShipmentId>) -> Option<Command> {
    Some(match step {
        Step::Command(command) => command.clone(),
        Step::ReserveNext => Command::RecordLineReserved {
            sku: order.pending().first()?.clone(),
        },
        Step::MarkPaid { attempt, off_by } => {
            let total = order.placed()?.totals.total.amount();
            let attempt = if total == 0 { 0 } else { *attempt };
            Command::MarkPaid {
                payment_id: payment_id(),
                attempt,
                amount: pounds(total + off_by),
            }
        }
        Step::DispatchRest { shipment_id } => {
            let left = |line: &OrderLine| LineQuantity {
                line_no: line.line_no,
                quantity: order.unshipped_of(line.line_no).unwrap(),
            };
            let lines = order
                .placed()?
                .lines
                .iter()
                .map(left)
                .filter(|line| line.quantity > 0)
                .collect();
            Command::Dispatch {
                shipment_id: *shipment_id,
                lines,
                carrier: code("post"),
                tracking_number: None,
            }
        }
        Step::DispatchOne {
            shipment_id,
            line_no,
            quantity,
        } => Command::Dispatch {
            shipment_id: *shipment_id,
            lines: vec![LineQuantity {
                line_no: *line_no,
                quantity: *quantity,
            }],
            carrier: code("post"),
            tracking_number: None,
        },
        Step::DeliverNext => Command::RecordDelivered {
            shipment_id: *shipments.first()?,
            delivered_at: SEED,
        },
        Step::RecordRefund {
            refund_id,
            attempt,
            amount,
        } => {
            let (attempt, amount) = (*attempt, pounds(*amount));
            Command::RecordRefund {
                payment_id: payment_id(),
                attempt,
                refund_id: *refund_id,
                amount,
            }
        }
    })
}

/// The order's books, kept from its events alone.
#[derive(Default)]
struct Books {
    ordered: BTreeMap<u32, u32>,
    to_reserve: BTreeSet<Sku>,
    shipped: BTreeMap<u32, u32>,
    returned: BTreeMap<u32, u32>,
    /// Not delivered yet.
    under_way: BTreeSet<ShipmentId>,
    total: i64,
    required: bool,
    paid: Option<i64>,
    refunds: BTreeMap<RefundId, i64>,
    cancelled: bool,
}

impl Books {
    fn enter(&mut self, event: &Event) {
        match event {
            Event::OrderPlaced(placed) => {
                assert!(self.ordered.is_empty(), "placed twice");
                self.ordered = placed
                    .lines
                    .iter()
                    .map(|line| (line.line_no, line.quantity))
                    .collect();
                let tracked = placed.lines.iter().filter(|line| line.tracked);
                self.to_reserve = tracked.map(|line| line.sku.clone()).collect();
                self.total = placed.totals.total.amount();
            }
            Event::LineReserved { sku } => {
                assert!(
                    self.to_reserve.remove(sku),
                    "{sku} is reserved twice or not wanted"
                );
                assert!(!self.cancelled, "reserved after the cancel");
            }
            Event::OrderReserved {} => assert!(self.to_reserve.is_empty() && !self.cancelled),
            Event::PaymentRequired { amount, .. } => {
                assert!(self.to_reserve.is_empty() && !self.required && !self.cancelled);
                assert_eq!(amount.amount(), self.total);
                self.required = true;
            }
            Event::OrderPaid { amount, attempt, .. } => {
                assert!(self.required && self.paid.is_none() && !self.cancelled);
                assert_eq!(amount.amount(), self.total);
                assert_eq!(*attempt == 0, self.total == 0);
                self.paid = Some(amount.amount());
            }
            Event::OrderCancelled { stage, .. } => {
                assert!(!self.cancelled, "cancelled twice");
                assert!(self.shipped.is_empty(), "cancelled after shipping");
                let expected = match (self.required, self.paid) {
                    (false, _) => OrderStage::Placed,
                    (true, None) => OrderStage::AwaitingPayment,
                    (true, Some(_)) => OrderStage::Paid,
                };
                assert_eq!(*stage, expected);
                self.cancelled = true;
            }
            Event::ShipmentDispatched {
                lines, shipment_id, ..
            } => {
                assert!(self.paid.is_some() && !self.cancelled && !lines.is_empty());
                assert!(self.under_way.insert(*shipment_id));
                for line in lines {
                    *self.shipped.entry(line.line_no).or_default() += line.quantity;
                    assert!(line.quantity > 0 && self.shipped[&line.line_no] <= self.ordered[&line.line_no]);
                }
            }
            Event::ShipmentDelivered { shipment_id, .. } => assert!(self.under_way.remove(shipment_id)),
            Event::OrderCompleted {} => self.all_is_delivered(),
            Event::ReturnRequested { lines, .. } => {
                self.all_is_delivered();
                for line in lines {
                    let returned = self.returned.get(&line.line_no).copied().unwrap_or(0);
                    assert!(line.quantity > 0 && returned + line.quantity <= self.shipped[&line.line_no]);
                }
            }
            Event::ReturnReceived { lines, refund, .. } => {
                for line in lines {
                    *self.returned.entry(line.line_no).or_default() += line.quantity;
                    assert!(self.returned[&line.line_no] <= self.shipped[&line.line_no]);
                }
                assert!((0..=self.left_to_refund()).contains(&refund.amount()));
            }
            Event::ReturnApproved { .. } | Event::ReturnRejected { .. } => {}
            Event::RefundRecorded {
                refund_id, amount, ..
            } => {
                assert_eq!(
                    self.refunds.insert(*refund_id, amount.amount()),
                    None,
                    "recorded twice"
                );
                assert!(
                    amount.amount() > 0 && self.left_to_refund() >= 0,
                    "more is given back than was paid"
                );
            }
        }
    }

    fn left_to_refund(&self) -> i64 {
        self.paid.unwrap_or(0) - self.refunds.values().sum::<i64>()
    }

    fn all_is_delivered(&self) {
        assert!(self.under_way.is_empty());
        assert_eq!(self.shipped, self.ordered);
    }
}

fn run(first: &OrderPlaced, steps: &[Step]) -> (Run<Order>, Books) {
    let mut run = Run::<Order>::new(INVARIANTS);
    let mut books = Books::default();
    let place = Step::Command(Command::Place(Box::new(first.clone())));
    for step in std::iter::once(&place).chain(steps) {
        let Some(command) = command_of(step, &run.state, &books.under_way) else {
            continue;
        };
        for event in run.execute(&command).unwrap_or_default() {
            books.enter(&event);
        }
        assert_eq!(run.state.refunded(), books.refunds.values().sum::<i64>());
        assert_eq!(run.state.status() == OrderStatus::Cancelled, books.cancelled);
        for (line_no, ordered) in &books.ordered {
            let shipped = books.shipped.get(line_no).copied().unwrap_or(0);
            let returned = books.returned.get(line_no).copied().unwrap_or(0);
            assert_eq!(run.state.unshipped_of(*line_no), Some(ordered - shipped));
            assert_eq!(run.state.returnable_of(*line_no), Some(shipped - returned));
        }
    }
    (run, books)
}

/// From which status to which, as the table says.
fn is_reachable(from: OrderStatus, to: OrderStatus) -> bool {
    use OrderStatus as S;
    from == to
        || matches!(
            (from, to),
            (S::Absent, S::Placed)
                | (S::Placed, S::AwaitingPayment)
                | (S::AwaitingPayment, S::Paid)
                | (S::Placed | S::AwaitingPayment | S::Paid, S::Cancelled)
                | (S::Paid | S::PartiallyShipped, S::PartiallyShipped | S::Shipped)
                | (S::Shipped, S::Delivered)
                | (S::Delivered, S::Completed | S::ReturnRequested)
                | (S::ReturnRequested, S::Delivered | S::Returned)
        )
}

proptest! {
    #[test]
    fn goods_and_money_are_conserved_whatever_is_asked(first in placed(), steps in vec(step(), 1..80)) {
        let (run, _) = run(&first, &steps);
        run.check_snapshot();
        let mut order = Order::default();
        for event in &run.events {
            let before = order.status();
            aggregates::Decide::evolve(&mut order, event);
            prop_assert!(is_reachable(before, order.status()), "{event:?} leads from {before} to {}", order.status());
        }
    }

    /// The policies run at least once: a repeat of theirs is a no-op, or the same named refusal.
    #[test]
    fn a_repeat_changes_nothing(first in placed(), steps in vec(step(), 0..60), repeated in step()) {
        let (mut run, books) = run(&first, &steps);
        let Some(command) = command_of(&repeated, &run.state, &books.under_way) else { return Ok(()) };
        let answer = run.execute(&command);
        let state = run.state.clone();
        let again = run.execute(&command);
        prop_assert_eq!(&run.state, &state);
        match answer {
            // These make something new each time; their ids are derived from the command's.
            Ok(_) if matches!(command, Command::Dispatch { .. } | Command::RequestReturn { .. }) => {
                prop_assert!(again.is_err());
            }
            Ok(_) => prop_assert_eq!(again, Ok(vec![])),
            Err(error) => prop_assert_eq!(again, Err(error)),
        }
    }

    /// Race 7: whenever the cancel comes, what is reserved before is the order's and what comes after is sent back.
    #[test]
    fn a_cancel_among_the_reservations_loses_none(
        first in placed(),
        order in vec(any::<proptest::sample::Index>(), 8),
        cancel_at in 0..6_usize,
    ) {
        let mut run = Run::<Order>::new(INVARIANTS);
        run.execute(&Command::Place(Box::new(first))).unwrap();
        let mut left: Vec<Sku> = run.state.pending().iter().cloned().collect();
        let (mut recorded, mut sent_back) = (0, 0);
        let all = left.len();
        for (turn, pick) in order.iter().enumerate() {
            if turn == cancel_at {
                run.execute(&Command::Cancel { reason: CancelReason::CustomerRequest, by: ActorKind::Customer }).unwrap();
            }
            if left.is_empty() {
                continue;
            }
            let sku = left.swap_remove(pick.index(left.len()));
            match run.execute(&Command::RecordLineReserved { sku }) {
                Ok(events) => recorded += events.iter().filter(|event| matches!(event, Event::LineReserved { .. })).count(),
                Err(error) => {
                    prop_assert_eq!(error, OrderError::Cancelled);
                    sent_back += 1;
                }
            }
        }
        prop_assert_eq!(recorded + sent_back, all);
        prop_assert_eq!(recorded, all.min(cancel_at));
    }

    /// Whatever pricing adds up is what placing accepts, and nothing else is.
    #[test]
    fn totals_that_are_off_by_one_are_refused(placed in placed(), off in prop_oneof![Just(-1_i64), Just(1)], which in 0..6) {
        prop_assert_eq!(check_agreement(&placed.lines, &placed.shipping, &placed.totals), Ok(()));
        let mut totals = placed.totals.clone();
        let field = match which {
            0 => &mut totals.items,
            1 => &mut totals.shipping,
            2 => &mut totals.discount,
            3 => &mut totals.tax_included,
            4 => &mut totals.tax_added,
            _ => &mut totals.total,
        };
        *field = pounds(field.amount() + off);
        prop_assert!(check_agreement(&placed.lines, &placed.shipping, &totals).is_err());
        let sums = placed.totals;
        let expected = sums.items.amount() + sums.shipping.amount() - sums.discount.amount() + sums.tax_added.amount();
        prop_assert_eq!(sums.total.amount(), expected);
    }
}
