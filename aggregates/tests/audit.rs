//! The audit finds nothing in a log of good sales, and each breach by name in a log that was broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::time::Duration;

use aggregates::audit::{self, Audit, Breach};
use event_schemas::{
    Actor, ActorKind, AggregateType, CancelReason, CartCheckedOut, CartEvent, CartId, CartLine, Code,
    CommandId, CorrelationId, CountryCode, Currency, CustomerId, Event, InventoryEvent, Metadata, Money,
    OrderEvent, OrderId, OrderLine, OrderPlaced, OrderStage, PaymentEvent, PaymentId, PaymentMethod,
    Position, ProductId, ProviderRef, RecordedEvent, Reference, RefundId, ReleaseReason, ReturnCondition,
    ReturnId, ShippingCharge, Sku, StreamId, Tax, Timestamp, Totals, Version,
};

const PRICE: i64 = 500;
const GRACE: Duration = Duration::from_secs(60);
/// From placing to the deadline.
const TO_DEADLINE: Duration = Duration::from_secs(1800);

fn sku() -> Sku {
    Sku::new("MUG-1").unwrap()
}

fn customer(number: u8) -> CustomerId {
    CustomerId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn order(number: u8) -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn refund(number: u8) -> RefundId {
    RefundId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn provider_ref() -> ProviderRef {
    ProviderRef::new("ch_1").unwrap()
}

fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: gbp(0),
        included: true,
    }
}

fn lines() -> Vec<OrderLine> {
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

fn totals(total: Money) -> Totals {
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

fn shipping() -> ShippingCharge {
    ShippingCharge {
        price: gbp(0),
        discount: gbp(0),
        tax: no_tax(),
    }
}

/// A log that is written by hand: one second between two events.
struct Log {
    now: Timestamp,
    events: Vec<RecordedEvent>,
    versions: HashMap<StreamId, u64>,
}

impl Log {
    /// Stock of `quantity`, and nothing else.
    fn with_stock(quantity: u32) -> Self {
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

    fn push(&mut self, stream: StreamId, event: Event) {
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

    fn stock(&mut self, event: InventoryEvent) {
        self.push(StreamId::new(AggregateType::Inventory, &sku()), event.into());
    }

    fn cart(&mut self, owner: u8, event: CartEvent) {
        self.push(
            StreamId::new(AggregateType::Cart, CartId::for_owner(customer(owner))),
            event.into(),
        );
    }

    fn order(&mut self, number: u8, event: OrderEvent) {
        self.push(StreamId::new(AggregateType::Order, order(number)), event.into());
    }

    fn payment(&mut self, number: u8, event: PaymentEvent) {
        self.push(
            StreamId::new(AggregateType::Payment, PaymentId::for_order(order(number))),
            event.into(),
        );
    }

    fn check_out(&mut self, number: u8) {
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

    fn place(&mut self, number: u8) {
        self.place_for(number, gbp(PRICE));
    }

    fn place_for(&mut self, number: u8, total: Money) {
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

    fn reserve(&mut self, number: u8) {
        self.stock(InventoryEvent::StockReserved {
            order_id: order(number),
            quantity: 1,
        });
    }

    fn reserved(&mut self, number: u8) {
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

    fn release(&mut self, number: u8) {
        let reason = ReleaseReason::OrderCancelled;
        self.stock(InventoryEvent::ReservationReleased {
            order_id: order(number),
            quantity: 1,
            reason,
        });
    }

    fn commit(&mut self, number: u8) {
        self.stock(InventoryEvent::ReservationCommitted {
            order_id: order(number),
            quantity: 1,
        });
    }

    fn authorize(&mut self, number: u8, attempt: u32) {
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

    fn request_capture(&mut self, number: u8, attempt: u32) {
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

    fn captured(&mut self, number: u8, attempt: u32, amount: i64) {
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

    fn capture(&mut self, number: u8, attempt: u32) {
        self.authorize(number, attempt);
        self.request_capture(number, attempt);
        self.captured(number, attempt, PRICE);
    }

    fn paid(&mut self, number: u8, amount: i64) {
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

    fn cancel(&mut self, number: u8, stage: OrderStage) {
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

    fn request_refund(&mut self, number: u8, attempt: u32, id: u8, amount: i64) {
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

    fn refunded(&mut self, number: u8, attempt: u32, id: u8, amount: i64) {
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

    fn record_refund(&mut self, number: u8, id: u8, amount: i64) {
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
    fn sell(&mut self, number: u8) {
        self.check_out(number);
        self.place(number);
        self.reserve(number);
        self.reserved(number);
        self.capture(number, 1);
        self.paid(number, PRICE);
    }

    fn finish(&mut self, number: u8) {
        self.commit(number);
        self.order(number, OrderEvent::OrderCompleted {});
    }

    fn audit(&self) -> Audit {
        let mut audit = Audit::new();
        self.events.iter().for_each(|event| audit.observe(event));
        audit
    }

    /// Long after the last event.
    fn breaches(&self) -> Vec<Breach> {
        self.audit().finish(self.now + Duration::from_secs(86_400), GRACE)
    }

    /// Right after the last event: nothing is owed yet, so only breaches of safety are found.
    fn breaches_now(&self) -> Vec<Breach> {
        self.audit().finish(self.now, GRACE)
    }

    /// Exactly this breach of safety, at once and for good.
    fn is_unsafe(&self, invariant: &str) {
        assert_eq!(
            names(&self.breaches_now()),
            [invariant],
            "{:#?}",
            self.breaches_now()
        );
    }

    /// Exactly this breach of liveness, once the grace is over and not before.
    fn is_stuck(&self, invariant: &str) {
        let at = |seconds| {
            self.audit()
                .finish(self.now + Duration::from_secs(seconds), GRACE)
        };
        assert_eq!(names(&at(59)), [""; 0], "too early");
        assert_eq!(names(&at(60)), [invariant], "{:#?}", at(60));
    }

    fn is_sound(&self) {
        assert_eq!(self.breaches(), vec![]);
    }
}

fn names(breaches: &[Breach]) -> Vec<&'static str> {
    breaches.iter().map(|breach| breach.invariant).collect()
}

#[test]
fn good_sales_are_sound() {
    let mut log = Log::with_stock(3);
    log.sell(1);
    log.finish(1);
    log.sell(2);
    log.cart(2, CartEvent::CartRenewed { order_id: order(2) });
    log.is_sound();
}

#[test]
fn a_cancelled_order_whose_late_capture_was_refunded_is_sound() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.reserved(1);
    log.authorize(1, 1);
    log.request_capture(1, 1);
    log.cancel(1, OrderStage::AwaitingPayment);
    log.release(1);
    log.captured(1, 1, PRICE);
    log.request_refund(1, 1, 1, PRICE);
    log.refunded(1, 1, 1, PRICE);
    log.is_sound();
}

#[test]
fn a_refund_after_completion_is_judged_by_what_was_kept() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, 200);
    log.refunded(1, 1, 1, 200);
    log.record_refund(1, 1, 200);
    log.request_refund(1, 1, 2, 300);
    log.refunded(1, 1, 2, 300);
    log.record_refund(1, 2, 300);
    log.is_sound();
    log.request_refund(1, 1, 3, 1);
    log.is_unsafe(audit::REFUND_LIMIT);
}

#[test]
fn a_failed_refund_may_be_tried_again() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, PRICE);
    let (order_id, refund_id, amount) = (order(1), refund(1), gbp(PRICE));
    let code = code("card-closed");
    log.payment(
        1,
        PaymentEvent::RefundFailed {
            order_id,
            attempt: 1,
            refund_id,
            amount,
            code,
        },
    );
    log.request_refund(1, 1, 2, PRICE);
    log.refunded(1, 1, 2, PRICE);
    log.record_refund(1, 2, PRICE);
    log.is_sound();
}

#[test]
fn a_refund_reported_failed_may_yet_succeed() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, PRICE);
    let (order_id, refund_id, amount) = (order(1), refund(1), gbp(PRICE));
    let code = code("card-closed");
    log.payment(
        1,
        PaymentEvent::RefundFailed {
            order_id,
            attempt: 1,
            refund_id,
            amount,
            code,
        },
    );
    log.is_sound();
    log.refunded(1, 1, 1, PRICE);
    log.record_refund(1, 1, PRICE);
    log.is_sound();
    log.refunded(1, 1, 1, PRICE);
    log.is_unsafe(audit::REFUNDED_ONCE);
}

#[test]
fn a_gap_in_a_stream_is_found() {
    let mut log = Log::with_stock(1);
    *log.versions.values_mut().next().unwrap() += 1;
    log.reserve(1);
    log.release(1);
    log.is_unsafe(audit::SEQUENCE);
}

#[test]
fn an_event_twice_is_found() {
    let mut log = Log::with_stock(1);
    *log.versions.values_mut().next().unwrap() -= 1;
    log.reserve(1);
    log.release(1);
    log.is_unsafe(audit::SEQUENCE);
}

#[test]
fn a_missing_position_is_found() {
    let mut log = Log::with_stock(1);
    log.events.last_mut().unwrap().position = Position(7);
    log.is_unsafe(audit::POSITION);
}

#[test]
fn an_oversold_sku_is_found_at_the_prefix_where_it_happens() {
    let mut log = Log::with_stock(1);
    log.reserve(1);
    log.reserve(2);
    log.is_unsafe(audit::OVERSOLD);
    // Healing later does not unsay it.
    log.release(1);
    log.release(2);
    log.is_unsafe(audit::OVERSOLD);
}

#[test]
fn stock_below_zero_is_found() {
    let mut log = Log::with_stock(1);
    log.stock(InventoryEvent::BackorderLimitSet { limit: 9 });
    log.stock(InventoryEvent::StockAdjusted {
        delta: -2,
        reason: code("count"),
    });
    log.is_unsafe(audit::OVERSOLD);
}

#[test]
fn a_second_reservation_of_an_order_is_found() {
    let mut log = Log::with_stock(9);
    log.reserve(1);
    log.reserve(1);
    log.is_unsafe(audit::HOLDING);
}

#[test]
fn giving_up_what_is_not_held_is_found() {
    for give_up in [Log::release, Log::commit] {
        let mut log = Log::with_stock(9);
        give_up(&mut log, 1);
        log.is_unsafe(audit::HOLDING);
    }
}

#[test]
fn goods_that_come_back_without_having_left_are_found() {
    let mut log = Log::with_stock(9);
    let condition = ReturnCondition::Resaleable;
    log.stock(InventoryEvent::StockReturned {
        order_id: order(1),
        quantity: 1,
        condition,
    });
    log.is_unsafe(audit::HOLDING);
}

#[test]
fn a_line_that_nobody_reserved_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.order(1, OrderEvent::LineReserved { sku: sku() });
    log.is_unsafe(audit::RESERVED_FIRST);
}

#[test]
fn an_order_paid_by_nothing_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.paid(1, PRICE);
    log.is_unsafe(audit::PAID);
}

#[test]
fn a_free_order_is_paid_by_nothing() {
    let mut log = Log::with_stock(1);
    log.place_for(1, gbp(0));
    log.paid(1, 0);
    log.is_sound();
}

#[test]
fn a_refund_that_only_the_order_knows_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.record_refund(1, 1, 1);
    log.is_unsafe(audit::REFUNDED);
}

#[test]
fn a_second_capture_of_an_attempt_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.captured(1, 1, PRICE);
    log.is_unsafe(audit::CAPTURED_ONCE);
}

#[test]
fn refunds_beyond_the_capture_are_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, PRICE - 1);
    log.request_refund(1, 1, 2, 2);
    log.is_unsafe(audit::REFUND_LIMIT);
}

#[test]
fn a_refund_that_succeeds_twice_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.is_unsafe(audit::REFUNDED_ONCE);
}

#[test]
fn a_second_currency_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.place_for(2, Money::new(PRICE, Currency::USD).unwrap());
    log.is_unsafe(audit::CURRENCY);
}

#[test]
fn a_capture_that_never_reaches_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.reserved(1);
    log.capture(1, 1);
    log.is_stuck(audit::BALANCE);
}

#[test]
fn a_surplus_attempt_that_is_not_refunded_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.capture(1, 2);
    log.is_stuck(audit::BALANCE);
    log.request_refund(1, 2, 1, PRICE);
    log.refunded(1, 2, 1, PRICE);
    log.is_sound();
}

#[test]
fn a_payment_beyond_the_total_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.captured(1, 1, PRICE + 1);
    log.paid(1, PRICE + 1);
    assert_eq!(names(&log.breaches()), [audit::BALANCE]);
}

#[test]
fn a_refund_that_never_reaches_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.is_stuck(audit::BALANCE);
}

#[test]
fn money_kept_of_a_cancelled_order_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.cancel(1, OrderStage::Paid);
    log.release(1);
    assert_eq!(names(&log.breaches()), [audit::NOTHING_KEPT]);
    log.request_refund(1, 1, 1, PRICE);
    log.refunded(1, 1, 1, PRICE);
    log.record_refund(1, 1, PRICE);
    log.is_sound();
}

#[test]
fn an_authorization_that_outlives_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.authorize(1, 1);
    log.cancel(1, OrderStage::AwaitingPayment);
    log.is_stuck(audit::NOTHING_KEPT);
    let order_id = order(1);
    log.payment(1, PaymentEvent::VoidRequested { order_id, attempt: 1 });
    log.payment(
        1,
        PaymentEvent::PaymentVoided {
            order_id,
            attempt: 1,
            provider_ref: provider_ref(),
        },
    );
    log.is_sound();
}

#[test]
fn a_lost_release_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.cancel(1, OrderStage::Placed);
    log.is_stuck(audit::NOTHING_HELD);
    log.release(1);
    log.is_sound();
}

#[test]
fn a_reservation_of_an_order_that_was_settled_before_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.cancel(1, OrderStage::Placed);
    log.reserve(1);
    log.is_stuck(audit::NOTHING_HELD);
}

#[test]
fn a_returned_order_holds_nothing() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    let (return_id, refund) = (ReturnId::generate(Timestamp::UNIX_EPOCH, &[1; 10]), gbp(0));
    log.order(
        1,
        OrderEvent::ReturnReceived {
            return_id,
            lines: vec![],
            refund,
        },
    );
    log.is_stuck(audit::NOTHING_HELD);
}

#[test]
fn an_order_that_sleeps_past_its_deadline_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    let placed_at = log.now - Duration::from_secs(1);
    let at = |seconds| {
        log.audit()
            .finish(placed_at + TO_DEADLINE + Duration::from_secs(seconds), GRACE)
    };
    assert_eq!(names(&at(59)), [""; 0]);
    assert_eq!(names(&at(60)), [audit::DEADLINE]);
}

#[test]
fn a_check_out_without_an_order_is_found() {
    let mut log = Log::with_stock(1);
    log.check_out(1);
    log.is_stuck(audit::CART_ANSWERED);
    let mut reopened = Log::with_stock(1);
    reopened.check_out(1);
    reopened.cart(
        1,
        CartEvent::CartReopened {
            order_id: order(1),
            reason: code("refused"),
        },
    );
    reopened.is_sound();
}

#[test]
fn lines_lost_between_two_carts_are_found() {
    let lines = || {
        vec![CartLine {
            sku: sku(),
            quantity: 1,
        }]
    };
    let cart = |owner| CartId::for_owner(customer(owner));
    let given = || CartEvent::CartMergedInto {
        target: cart(2),
        target_owner: customer(2),
        lines: lines(),
    };
    let mut log = Log::with_stock(1);
    log.cart(1, given());
    log.is_stuck(audit::MERGE_ARRIVES);
    log.cart(1, given());
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    assert_eq!(names(&log.breaches()), [audit::MERGE_ARRIVES]);
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    log.is_sound();
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    log.is_unsafe(audit::MERGED_ONCE);
}

#[test]
fn open_intents_are_listed_until_they_are_answered() {
    let open = |log: &Log| -> Vec<String> {
        log.audit()
            .open_intents()
            .iter()
            .map(|intent| format!("{} {}", intent.event_type, intent.event))
            .collect()
    };
    let payment = StreamId::new(AggregateType::Payment, PaymentId::for_order(order(1)));
    let mut log = Log::with_stock(1);
    log.place(1);
    log.authorize(1, 1);
    assert!(open(&log).is_empty());
    log.request_capture(1, 1);
    assert_eq!(open(&log), [format!("CaptureRequested {payment}/4")]);
    log.captured(1, 1, PRICE);
    assert!(open(&log).is_empty());
    log.request_refund(1, 1, 1, 1);
    assert_eq!(open(&log), [format!("RefundRequested {payment}/6")]);
    log.refunded(1, 1, 1, 1);
    assert!(open(&log).is_empty());
}

#[test]
fn a_broken_log_does_not_exhaust_memory() {
    let mut log = Log::with_stock(1);
    for _ in 0..=audit::MAX_BREACHES + 1 {
        log.release(1);
    }
    let audit = log.audit();
    assert_eq!(audit.finish(log.now, GRACE).len(), audit::MAX_BREACHES);
    assert_eq!(audit.uncounted(), 2);
}
