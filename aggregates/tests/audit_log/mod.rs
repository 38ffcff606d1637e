//! A log written by hand, one second between two events, and what the audit finds in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::time::Duration;

use aggregates::audit::{Audit, Breach};
use event_schemas::{
    Actor, ActorKind, AggregateType, CancelReason, CartCheckedOut, CartEvent, CartId, Code, CommandId,
    CorrelationId, CountryCode, Currency, CustomerId, Event, InventoryEvent, Metadata, Money, OrderEvent,
    OrderId, OrderLine, OrderPlaced, OrderStage, PaymentEvent, PaymentId, PaymentMethod, Position, ProductId,
    ProviderRef, RecordedEvent, Reference, RefundId, ReleaseReason, ShippingCharge, Sku, StreamId, Tax,
    Timestamp, Totals, Version,
};

pub const PRICE: i64 = 500;
pub const GRACE: Duration = Duration::from_secs(60);
/// From placing to the deadline.
pub const TO_DEADLINE: Duration = Duration::from_secs(1800);

pub fn sku() -> Sku {
    Sku::new("MUG-1").unwrap()
}

pub fn customer(number: u8) -> CustomerId {
    CustomerId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

pub fn order(number: u8) -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

pub fn refund(number: u8) -> RefundId {
    RefundId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

pub fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

pub fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

pub fn provider_ref() -> ProviderRef {
    ProviderRef::new("ch_1").unwrap()
}

pub fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

pub fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: gbp(0),
        included: true,
    }
}

pub fn lines() -> Vec<OrderLine> {
    vec![OrderLine {
        line_no: 1,
        sku: sku(),
        product_id: ProductId::generate(Timestamp::UNIX_EPOCH, &[1; 10]),
        title: "Mug".into(),
        unit_price: gbp(PRICE),
        quantity: 1,
        discount: gbp(0),
        tax: no_tax(),
        tracked: true,
    }]
}

pub fn totals(total: Money) -> Totals {
    let none = Money::zero(total.currency());
    Totals {
        items: total,
        shipping: none,
        discount: none,
        tax_included: none,
        tax_added: none,
        total,
    }
}

pub fn shipping() -> ShippingCharge {
    ShippingCharge {
        price: gbp(0),
        discount: gbp(0),
        tax: no_tax(),
    }
}

pub struct Log {
    pub now: Timestamp,
    pub events: Vec<RecordedEvent>,
    pub versions: HashMap<StreamId, u64>,
}

impl Log {
    /// Stock of `quantity`, and nothing else.
    pub fn with_stock(quantity: u32) -> Self {
        let mut log = Self {
            now: Timestamp::UNIX_EPOCH,
            events: Vec::new(),
            versions: HashMap::new(),
        };
        log.stock(InventoryEvent::SkuAssigned {
            product_id: ProductId::generate(Timestamp::UNIX_EPOCH, &[1; 10]),
        });
        log.stock(InventoryEvent::StockReceived {
            quantity,
            reference: Reference::new("delivery").unwrap(),
        });
        log
    }

    pub fn push(&mut self, stream: StreamId, event: Event) {
        self.now += Duration::from_secs(1);
        let version = self.versions.entry(stream.clone()).or_default();
        *version += 1;
        let command_id = CommandId::for_request("test", "POST", "/", "1");
        self.events.push(RecordedEvent {
            position: Position(self.events.len() as u64 + 1),
            stream,
            version: Version(*version),
            event,
            metadata: Metadata {
                actor_kind: ActorKind::System,
                actor_id: Actor::system("test").id,
                command: "Test".into(),
                command_id,
                correlation_id: CorrelationId::for_command(command_id),
                causation_id: None,
                traceparent: None,
            },
            recorded_at: self.now,
        });
    }

    pub fn stock(&mut self, event: InventoryEvent) {
        self.push(StreamId::new(AggregateType::Inventory, &sku()), event.into());
    }

    pub fn cart(&mut self, owner: u8, event: CartEvent) {
        self.push(
            StreamId::new(AggregateType::Cart, CartId::for_owner(customer(owner))),
            event.into(),
        );
    }

    pub fn order(&mut self, number: u8, event: OrderEvent) {
        self.push(StreamId::new(AggregateType::Order, order(number)), event.into());
    }

    pub fn payment(&mut self, number: u8, event: PaymentEvent) {
        self.push(
            StreamId::new(AggregateType::Payment, PaymentId::for_order(order(number))),
            event.into(),
        );
    }

    pub fn check_out(&mut self, number: u8) {
        let check_out = CartCheckedOut {
            order_id: order(number),
            attempt: 1,
            customer: customer(number),
            lines: lines(),
            shipping: shipping(),
            totals: totals(gbp(PRICE)),
            country: CountryCode::new("GB").unwrap(),
            payment: method(),
            occurred_at: self.now,
            payment_deadline: self.now + TO_DEADLINE,
        };
        self.cart(number, CartEvent::CartCheckedOut(Box::new(check_out)));
    }

    pub fn place(&mut self, number: u8) {
        self.place_for(number, gbp(PRICE));
    }

    pub fn place_for(&mut self, number: u8, total: Money) {
        let placed = OrderPlaced {
            order_id: order(number),
            customer: customer(number),
            lines: lines(),
            shipping: shipping(),
            totals: totals(total),
            country: CountryCode::new("GB").unwrap(),
            cart_id: None,
            payment: method(),
            occurred_at: self.now,
            payment_deadline: self.now + TO_DEADLINE,
        };
        self.order(number, OrderEvent::OrderPlaced(Box::new(placed)));
    }

    pub fn reserve(&mut self, number: u8) {
        self.stock(InventoryEvent::StockReserved {
            order_id: order(number),
            quantity: 1,
        });
    }

    pub fn reserved(&mut self, number: u8) {
        self.order(number, OrderEvent::LineReserved { sku: sku() });
        self.order(number, OrderEvent::OrderReserved {});
        let payment_id = PaymentId::for_order(order(number));
        self.order(
            number,
            OrderEvent::PaymentRequired {
                payment_id,
                amount: gbp(PRICE),
                method: method(),
            },
        );
    }

    pub fn release(&mut self, number: u8) {
        let reason = ReleaseReason::OrderCancelled;
        self.stock(InventoryEvent::ReservationReleased {
            order_id: order(number),
            quantity: 1,
            reason,
        });
    }

    pub fn commit(&mut self, number: u8) {
        self.stock(InventoryEvent::ReservationCommitted {
            order_id: order(number),
            quantity: 1,
        });
    }

    pub fn authorize(&mut self, number: u8, attempt: u32) {
        let (order_id, amount) = (order(number), gbp(PRICE));
        self.payment(
            number,
            PaymentEvent::PaymentRequested {
                order_id,
                attempt,
                amount,
                method: method(),
            },
        );
        self.payment(number, PaymentEvent::SessionRequested { order_id, attempt });
        let provider_ref = provider_ref();
        self.payment(
            number,
            PaymentEvent::PaymentAuthorized {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
        );
    }

    pub fn request_capture(&mut self, number: u8, attempt: u32) {
        let (order_id, amount) = (order(number), gbp(PRICE));
        self.payment(
            number,
            PaymentEvent::CaptureRequested {
                order_id,
                attempt,
                amount,
            },
        );
    }

    pub fn captured(&mut self, number: u8, attempt: u32, amount: i64) {
        let (order_id, amount) = (order(number), gbp(amount));
        let provider_ref = provider_ref();
        self.payment(
            number,
            PaymentEvent::PaymentCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
        );
    }

    pub fn capture(&mut self, number: u8, attempt: u32) {
        self.authorize(number, attempt);
        self.request_capture(number, attempt);
        self.captured(number, attempt, PRICE);
    }

    pub fn paid(&mut self, number: u8, amount: i64) {
        let payment_id = PaymentId::for_order(order(number));
        self.order(
            number,
            OrderEvent::OrderPaid {
                payment_id,
                attempt: 1,
                amount: gbp(amount),
            },
        );
    }

    pub fn cancel(&mut self, number: u8, stage: OrderStage) {
        let reason = CancelReason::CustomerRequest;
        self.order(
            number,
            OrderEvent::OrderCancelled {
                reason,
                by: ActorKind::Customer,
                stage,
            },
        );
    }

    pub fn request_refund(&mut self, number: u8, attempt: u32, id: u8, amount: i64) {
        let (order_id, refund_id, amount) = (order(number), refund(id), gbp(amount));
        let reason = code("order-cancelled");
        self.payment(
            number,
            PaymentEvent::RefundRequested {
                order_id,
                attempt,
                refund_id,
                amount,
                reason,
            },
        );
    }

    pub fn refunded(&mut self, number: u8, attempt: u32, id: u8, amount: i64) {
        let (order_id, refund_id, amount) = (order(number), refund(id), gbp(amount));
        let provider_ref = provider_ref();
        self.payment(
            number,
            PaymentEvent::RefundSucceeded {
                order_id,
                attempt,
                refund_id,
                provider_ref,
                amount,
            },
        );
    }

    pub fn record_refund(&mut self, number: u8, id: u8, amount: i64) {
        let (payment_id, refund_id, amount) = (PaymentId::for_order(order(number)), refund(id), gbp(amount));
        self.order(
            number,
            OrderEvent::RefundRecorded {
                payment_id,
                attempt: 1,
                refund_id,
                amount,
            },
        );
    }

    /// From check-out to paid.
    pub fn sell(&mut self, number: u8) {
        self.check_out(number);
        self.place(number);
        self.reserve(number);
        self.reserved(number);
        self.capture(number, 1);
        self.paid(number, PRICE);
    }

    pub fn finish(&mut self, number: u8) {
        self.commit(number);
        self.order(number, OrderEvent::OrderCompleted {});
    }

    pub fn audit(&self) -> Audit {
        let mut audit = Audit::new();
        self.events.iter().for_each(|event| audit.observe(event));
        audit
    }

    /// Long after the last event.
    pub fn breaches(&self) -> Vec<Breach> {
        self.audit().finish(self.now + Duration::from_secs(86_400), GRACE)
    }

    /// Right after the last event: nothing is owed yet, so only breaches of safety are found.
    pub fn breaches_now(&self) -> Vec<Breach> {
        self.audit().finish(self.now, GRACE)
    }

    /// Exactly this breach of safety, at once and for good.
    pub fn is_unsafe(&self, invariant: &str) {
        assert_eq!(
            names(&self.breaches_now()),
            [invariant],
            "{:#?}",
            self.breaches_now()
        );
    }

    /// Exactly this breach of liveness, once the grace is over and not before.
    pub fn is_stuck(&self, invariant: &str) {
        let at = |seconds| {
            self.audit()
                .finish(self.now + Duration::from_secs(seconds), GRACE)
        };
        assert_eq!(names(&at(59)), [""; 0], "too early");
        assert_eq!(names(&at(60)), [invariant], "{:#?}", at(60));
    }

    pub fn is_sound(&self) {
        assert_eq!(self.breaches(), vec![]);
    }
}

pub fn names(breaches: &[Breach]) -> Vec<&'static str> {
    breaches.iter().map(|breach| breach.invariant).collect()
}
