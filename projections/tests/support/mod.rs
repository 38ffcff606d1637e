//! A shop's events, made up from a seed: every event type of every aggregate turns up, each stream in an order that its
//! aggregate could have decided.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "the benchmark, which is no test to clippy, uses it too"
)]

mod delivery;
mod story;

use event_schemas::{
    ActorKind, Code, CommandId, CorrelationId, CountryCode, Currency, CustomerId, Metadata, Money, OrderId,
    OrderLine, OrderPlaced, PaymentMethod, ProductId, ShippingCharge, Sku, Tax, Timestamp, Totals,
};
use uuid::Uuid;

pub use delivery::{deliver_again, entries};
pub use story::Story;

/// A small generator (SplitMix64): the same seed tells the same story.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.roll(one_in) == 0
    }
}

pub fn uuid(kind: u8, number: u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[0] = kind;
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

pub fn order_id(number: u64) -> OrderId {
    OrderId::from_uuid(uuid(1, number))
}

pub fn product_id(number: u64) -> ProductId {
    ProductId::from_uuid(uuid(2, number))
}

pub fn customer_id(number: u64) -> CustomerId {
    CustomerId::from_uuid(uuid(3, number))
}

pub fn sku(number: u64) -> Sku {
    Sku::new(format!("MUG-{number}")).unwrap()
}

pub fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

pub fn money(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

pub fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: money(0),
        included: true,
    }
}

pub fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("sandbox"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

pub fn time(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap()
}

pub fn metadata(kind: ActorKind, id: &str) -> Metadata {
    let command_id = CommandId::from_uuid(uuid(4, 1));
    Metadata {
        actor_kind: kind,
        actor_id: id.into(),
        command: "Do".into(),
        command_id,
        correlation_id: CorrelationId::for_command(command_id),
        causation_id: None,
        traceparent: None,
    }
}

pub fn placed(
    order: OrderId,
    customer: CustomerId,
    lines: &[(Sku, u32, i64)],
    occurred_at: Timestamp,
) -> OrderPlaced {
    let lines: Vec<OrderLine> = (1..)
        .zip(lines)
        .map(|(line_no, (sku, quantity, price))| OrderLine {
            line_no,
            sku: sku.clone(),
            product_id: product_id(1),
            title: format!("Mug {sku}"),
            unit_price: money(*price),
            quantity: *quantity,
            discount: money(0),
            tax: no_tax(),
            tracked: true,
        })
        .collect();
    let items = money(
        lines
            .iter()
            .map(|line| line.unit_price.amount() * i64::from(line.quantity))
            .sum(),
    );
    OrderPlaced {
        order_id: order,
        customer,
        lines,
        shipping: ShippingCharge {
            price: money(0),
            discount: money(0),
            tax: no_tax(),
        },
        totals: Totals {
            items,
            shipping: money(0),
            discount: money(0),
            tax_included: money(0),
            tax_added: money(0),
            total: items,
        },
        country: CountryCode::new("GB").unwrap(),
        cart_id: None,
        payment: method(),
        occurred_at,
        payment_deadline: time(900_000),
    }
}
