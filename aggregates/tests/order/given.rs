//! What a rule of the order begins with: commands, and how far they lead.

use aggregates::Decide;
use aggregates::order::{Order, OrderCommand as Command, OrderStatus, totals};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::OrderEvent as Event;
use event_schemas::{
    ActorKind, CancelReason, Code, CountryCode, Currency, CustomerId, LineQuantity, Money, OrderId,
    OrderLine, OrderPlaced, PaymentId, PaymentMethod, ProductId, RefundId, ReturnCondition, ReturnId,
    ReturnedLine, ShipmentId, ShippingCharge, Sku, Tax, Timestamp,
};

pub fn given(events: Vec<Event>) -> AggregateTestExecutor<Order> {
    TestFramework::with(()).given(events)
}

/// All events so far, each list decided on the state that the lists before it leave.
pub fn story(steps: &[Command]) -> Vec<Event> {
    let (mut order, mut events) = (Order::default(), Vec::new());
    for step in steps {
        for event in order.decide(step).unwrap() {
            order.evolve(&event);
            events.push(event);
        }
    }
    events
}

pub fn status(steps: &[Command]) -> OrderStatus {
    let mut order = Order::default();
    for event in story(steps) {
        order.evolve(&event);
    }
    order.status()
}

pub const SEED: Timestamp = Timestamp::UNIX_EPOCH;

pub fn order_id() -> OrderId {
    OrderId::generate(SEED, &[1; 10])
}

pub fn payment_id() -> PaymentId {
    PaymentId::for_order(order_id())
}

pub fn shipment(number: u8) -> ShipmentId {
    ShipmentId::generate(SEED, &[number; 10])
}

pub fn return_id(number: u8) -> ReturnId {
    ReturnId::generate(SEED, &[number; 10])
}

pub fn refund_id(number: u8) -> RefundId {
    RefundId::generate(SEED, &[number; 10])
}

pub fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

pub fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

pub fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

pub fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: pounds(0),
        included: false,
    }
}

pub fn line(line_no: u32, text: &str, unit_price: i64, quantity: u32) -> OrderLine {
    OrderLine {
        line_no,
        sku: sku(text),
        product_id: ProductId::generate(SEED, &[7; 10]),
        title: "Mug".to_owned(),
        unit_price: pounds(unit_price),
        quantity,
        discount: pounds(0),
        tax: no_tax(),
        tracked: true,
    }
}

pub fn free_shipping() -> ShippingCharge {
    ShippingCharge {
        price: pounds(0),
        discount: pounds(0),
        tax: no_tax(),
    }
}

pub fn order_of(lines: Vec<OrderLine>, shipping: ShippingCharge) -> OrderPlaced {
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
}

/// Two units of A, one of B, and A once more at another price: 2·300 + 500 + 200 = 1300.
pub fn order() -> OrderPlaced {
    order_of(
        vec![line(1, "A", 300, 2), line(2, "B", 500, 1), line(3, "A", 200, 1)],
        free_shipping(),
    )
}

pub const TOTAL: i64 = 1300;

pub fn place_this(order: OrderPlaced) -> Command {
    Command::Place(Box::new(order))
}

pub fn place() -> Command {
    place_this(order())
}

pub fn reserved(text: &str) -> Command {
    Command::RecordLineReserved { sku: sku(text) }
}

pub fn paid_by(attempt: u32) -> Command {
    Command::MarkPaid {
        payment_id: payment_id(),
        attempt,
        amount: pounds(TOTAL),
    }
}

pub fn cancel(reason: CancelReason) -> Command {
    Command::Cancel {
        reason,
        by: ActorKind::Customer,
    }
}

pub fn by_customer() -> Command {
    cancel(CancelReason::CustomerRequest)
}

pub fn out_of_stock() -> Command {
    cancel(CancelReason::OutOfStock {
        sku: sku("A"),
        available: 0,
    })
}

pub fn units(lines: &[(u32, u32)]) -> Vec<LineQuantity> {
    lines
        .iter()
        .map(|(line_no, quantity)| LineQuantity {
            line_no: *line_no,
            quantity: *quantity,
        })
        .collect()
}

pub fn dispatch(number: u8, lines: &[(u32, u32)]) -> Command {
    Command::Dispatch {
        shipment_id: shipment(number),
        lines: units(lines),
        carrier: code("royal-mail"),
        tracking_number: None,
    }
}

pub fn delivered(number: u8) -> Command {
    Command::RecordDelivered {
        shipment_id: shipment(number),
        delivered_at: SEED,
    }
}

pub fn request_return(number: u8, lines: &[(u32, u32)]) -> Command {
    Command::RequestReturn {
        return_id: return_id(number),
        lines: units(lines),
        reason: code("broken"),
        note: None,
    }
}

pub fn approve(number: u8) -> Command {
    Command::ApproveReturn {
        return_id: return_id(number),
    }
}

pub fn reject(number: u8) -> Command {
    Command::RejectReturn {
        return_id: return_id(number),
        reason: code("worn"),
    }
}

pub fn receive(number: u8, lines: &[(u32, u32)], refund: i64) -> Command {
    let lines = units(lines)
        .into_iter()
        .map(|LineQuantity { line_no, quantity }| ReturnedLine {
            line_no,
            quantity,
            condition: ReturnCondition::Resaleable,
        })
        .collect();
    Command::ReceiveReturn {
        return_id: return_id(number),
        lines,
        refund: pounds(refund),
    }
}

pub fn record_refund(number: u8, attempt: u32, amount: i64) -> Command {
    let refund_id = refund_id(number);
    Command::RecordRefund {
        payment_id: payment_id(),
        attempt,
        refund_id,
        amount: pounds(amount),
    }
}

pub fn to_awaiting() -> Vec<Command> {
    vec![place(), reserved("A"), reserved("B")]
}

pub fn to_paid() -> Vec<Command> {
    with(to_awaiting(), &[paid_by(1)])
}

pub fn to_shipped() -> Vec<Command> {
    with(to_paid(), &[dispatch(1, &[(1, 2), (2, 1), (3, 1)])])
}

pub fn to_delivered() -> Vec<Command> {
    with(to_shipped(), &[delivered(1)])
}

pub fn to_cancelled() -> Vec<Command> {
    vec![place(), by_customer()]
}

pub fn with(mut steps: Vec<Command>, more: &[Command]) -> Vec<Command> {
    steps.extend_from_slice(more);
    steps
}
