//! Whole orders as the system lives through them: every event with its actor, command and cause.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_schemas::{
    ActorKind, AggregateType, Anomaly, CancelReason, Event, InventoryEvent, LineQuantity, Metadata,
    OrderEvent, OrderStage, PaymentEvent, PaymentId, Position, ProviderRef, RecordedEvent, RefundId,
    ReleaseReason, ReturnCondition, ReturnId, ReturnedLine, ShipmentId, StreamId, Version,
};
use projections::order_timeline::{OrderTimeline, TimelineView};
use projections::{Document, View};

use crate::support::{code, customer_id, metadata, method, money, order_id, placed, sku, time, uuid};

/// An account of the staff.
pub const STAFF: &str = "03000000-0000-8000-8000-0000000000ff";

/// The events of one order so far.
#[derive(Default)]
pub struct Telling {
    events: Vec<Arc<RecordedEvent>>,
    versions: BTreeMap<StreamId, u64>,
}

impl Telling {
    pub fn events(&self) -> &[Arc<RecordedEvent>] {
        &self.events
    }

    /// As staff read it.
    pub fn timeline(&self) -> TimelineView {
        let mut document = Document::default();
        for event in &self.events {
            assert_eq!(OrderTimeline::route(event), Some(order_id(1).into()));
            document.fold::<OrderTimeline>(event).unwrap();
        }
        OrderTimeline::combine(&order_id(1).into(), &document).unwrap()
    }

    /// The id of the event.
    fn push(&mut self, told: Metadata, stream: StreamId, event: Event) -> String {
        let version = self.versions.entry(stream.clone()).or_default();
        *version += 1;
        let position = self.events.len() as u64 + 1;
        let recorded = RecordedEvent {
            position: Position(position),
            stream,
            version: Version(*version),
            event,
            metadata: told,
            recorded_at: time(position),
        };
        let id = recorded.id().to_string();
        self.events.push(Arc::new(recorded));
        id
    }

    fn customer(&mut self, command: &str, stream: StreamId, event: impl Into<Event>) -> String {
        let customer = customer_id(1).to_string();
        let told = Metadata {
            command: command.into(),
            ..metadata(ActorKind::Customer, &customer)
        };
        self.push(told, stream, event.into())
    }

    fn staff(&mut self, command: &str, stream: StreamId, event: impl Into<Event>) -> String {
        let told = Metadata {
            command: command.into(),
            ..metadata(ActorKind::Staff, STAFF)
        };
        self.push(told, stream, event.into())
    }

    fn policy(
        &mut self,
        (policy, command): (&str, &str),
        cause: &str,
        stream: StreamId,
        event: impl Into<Event>,
    ) -> String {
        let told = Metadata {
            command: command.into(),
            causation_id: Some(cause.into()),
            ..metadata(ActorKind::System, policy)
        };
        self.push(told, stream, event.into())
    }

    fn provider(&mut self, command: &str, cause: &str, event: PaymentEvent) -> String {
        let told = Metadata {
            command: command.into(),
            causation_id: Some(cause.into()),
            ..metadata(ActorKind::Provider, "sandbox")
        };
        self.push(told, payment(), event.into())
    }

    fn place(&mut self) -> String {
        let lines = [(sku(1), 2, 450), (sku(2), 1, 700)];
        let agreed = placed(order_id(1), customer_id(1), &lines, time(0));
        self.customer("Place", order(), OrderEvent::OrderPlaced(Box::new(agreed)))
    }

    fn reserve(&mut self, number: u64, quantity: u32, cause: &str) -> String {
        let reserved = InventoryEvent::StockReserved {
            order_id: order_id(1),
            quantity,
        };
        self.policy(("reserve-stock", "Reserve"), cause, stock(number), reserved)
    }

    /// Both lines reserved, payment required, the first attempt's session open: the ids of the last two events.
    fn until_session(&mut self) -> (String, String) {
        let placed = self.place();
        for (number, quantity) in [(1, 2), (2, 1)] {
            let reserved = self.reserve(number, quantity, &placed);
            let by = ("stock-reserved", "RecordLineReserved");
            self.policy(
                by,
                &reserved,
                order(),
                OrderEvent::LineReserved { sku: sku(number) },
            );
            if number == 2 {
                self.policy(by, &reserved, order(), OrderEvent::OrderReserved {});
                let required = OrderEvent::PaymentRequired {
                    payment_id: PaymentId::for_order(order_id(1)),
                    amount: money(1_600),
                    method: method(),
                };
                let required = self.policy(by, &reserved, order(), required);
                let requested = PaymentEvent::PaymentRequested {
                    order_id: order_id(1),
                    attempt: 1,
                    amount: money(1_600),
                    method: method(),
                };
                let by = ("payment-required", "Request");
                let requested = self.policy(by, &required, payment(), requested);
                return self.session(1, &requested);
            }
        }
        unreachable!("the second line is the last")
    }

    fn session(&mut self, attempt: u32, cause: &str) -> (String, String) {
        let order_id = order_id(1);
        let asked = PaymentEvent::SessionRequested { order_id, attempt };
        let asked = self.policy(("payment-requested", "RequestSession"), cause, payment(), asked);
        let created = PaymentEvent::PaymentSessionCreated {
            order_id,
            attempt,
            provider_ref: reference("ch_1"),
            checkout_ref: None,
        };
        let created = self.provider("RecordSession", &asked, created);
        (asked, created)
    }

    fn authorize(&mut self, attempt: u32, cause: &str) -> String {
        let authorized = PaymentEvent::PaymentAuthorized {
            order_id: order_id(1),
            attempt,
            provider_ref: reference("ch_1"),
            amount: money(1_600),
        };
        self.provider("RecordAuthorized", cause, authorized)
    }

    fn capture(&mut self, attempt: u32, cause: &str) -> String {
        let (order_id, amount) = (order_id(1), money(1_600));
        let asked = PaymentEvent::CaptureRequested {
            order_id,
            attempt,
            amount,
        };
        let asked = self.policy(("payment-authorized", "RequestCapture"), cause, payment(), asked);
        let captured = PaymentEvent::PaymentCaptured {
            order_id,
            attempt,
            provider_ref: reference("ch_1"),
            amount,
        };
        self.provider("RecordCaptured", &asked, captured)
    }

    fn paid(&mut self, attempt: u32, cause: &str) {
        let paid = OrderEvent::OrderPaid {
            payment_id: PaymentId::for_order(order_id(1)),
            attempt,
            amount: money(1_600),
        };
        self.policy(("payment-captured", "MarkPaid"), cause, order(), paid);
    }

    /// Staff send a parcel; the stock follows.
    fn dispatch(&mut self, parcel: u64, lines: &[(u32, u32)]) {
        let shipped = OrderEvent::ShipmentDispatched {
            shipment_id: shipment(parcel),
            lines: units(lines),
            carrier: code("post"),
            tracking_number: None,
        };
        let shipped = self.staff("Dispatch", order(), shipped);
        for (line_no, quantity) in lines {
            let committed = InventoryEvent::ReservationCommitted {
                order_id: order_id(1),
                quantity: *quantity,
            };
            let by = ("shipment-dispatched", "Commit");
            self.policy(by, &shipped, stock(u64::from(*line_no)), committed);
        }
    }

    fn deliver(&mut self, parcel: u64) {
        let delivered = OrderEvent::ShipmentDelivered {
            shipment_id: shipment(parcel),
            delivered_at: time(77),
        };
        self.staff("RecordDelivered", order(), delivered);
    }

    fn ask_to_return(&mut self, lines: &[(u32, u32)]) {
        let requested = OrderEvent::ReturnRequested {
            return_id: return_id(),
            lines: units(lines),
            reason: code("too-big"),
            note: None,
        };
        self.customer("RequestReturn", order(), requested);
    }

    fn release(&mut self, number: u64, quantity: u32, cause: &str) {
        let released = InventoryEvent::ReservationReleased {
            order_id: order_id(1),
            quantity,
            reason: ReleaseReason::OrderCancelled,
        };
        self.policy(("order-cancelled", "Release"), cause, stock(number), released);
    }

    fn ask_to_refund(&mut self, attempt: u32, number: u64, amount: i64, reason: &str, cause: &str) -> String {
        let asked = PaymentEvent::RefundRequested {
            order_id: order_id(1),
            attempt,
            refund_id: refund_id(number),
            amount: money(amount),
            reason: code(reason),
        };
        self.policy((reason, "RequestRefund"), cause, payment(), asked)
    }

    fn refund(&mut self, attempt: u32, number: u64, amount: i64, cause: &str) -> String {
        let refunded = PaymentEvent::RefundSucceeded {
            order_id: order_id(1),
            attempt,
            refund_id: refund_id(number),
            provider_ref: reference("re_1"),
            amount: money(amount),
        };
        self.provider("RecordRefundSucceeded", cause, refunded)
    }
}

/// Declined, paid by a second attempt, sent, one of three units sent back, refunded.
pub fn returned() -> Telling {
    let mut story = Telling::default();
    let (_, session) = story.until_session();
    let declined = PaymentEvent::PaymentDeclined {
        order_id: order_id(1),
        attempt: 1,
        code: code("insufficient-funds"),
    };
    story.provider("RecordDeclined", &session, declined);
    let retried = PaymentEvent::PaymentRetried {
        order_id: order_id(1),
        attempt: 2,
        amount: money(1_600),
        method: method(),
    };
    let retried = story.customer("Retry", payment(), retried);
    let (_, session) = story.session(2, &retried);
    let authorized = story.authorize(2, &session);
    let captured = story.capture(2, &authorized);
    story.paid(2, &captured);
    story.dispatch(1, &[(1, 2), (2, 1)]);
    story.deliver(1);
    story.ask_to_return(&[(1, 1)]);
    let return_id = return_id();
    story.staff("ApproveReturn", order(), OrderEvent::ReturnApproved { return_id });
    let received = OrderEvent::ReturnReceived {
        return_id,
        lines: vec![ReturnedLine {
            line_no: 1,
            quantity: 1,
            condition: ReturnCondition::Resaleable,
        }],
        refund: money(450),
    };
    let received = story.staff("ReceiveReturn", order(), received);
    let back = InventoryEvent::StockReturned {
        order_id: order_id(1),
        quantity: 1,
        condition: ReturnCondition::Resaleable,
    };
    story.policy(("return-received", "Return"), &received, stock(1), back);
    let asked = story.ask_to_refund(2, 1, 450, "return-received", &received);
    let refunded = story.refund(2, 1, 450, &asked);
    let recorded = OrderEvent::RefundRecorded {
        payment_id: PaymentId::for_order(order_id(1)),
        attempt: 2,
        refund_id: refund_id(1),
        amount: money(450),
    };
    story.policy(("refund-succeeded", "RecordRefund"), &refunded, order(), recorded);
    story
}

/// The second SKU has run out.
pub fn out_of_stock() -> Telling {
    let mut story = Telling::default();
    let placed = story.place();
    let reserved = story.reserve(1, 2, &placed);
    let by = ("stock-reserved", "RecordLineReserved");
    story.policy(by, &reserved, order(), OrderEvent::LineReserved { sku: sku(1) });
    let rejected = InventoryEvent::ReservationRejected {
        order_id: order_id(1),
        quantity: 1,
        available: 0,
    };
    let rejected = story.policy(("reserve-stock", "Reserve"), &placed, stock(2), rejected);
    let reason = CancelReason::OutOfStock {
        sku: sku(2),
        available: 0,
    };
    let cancelled = cancelled(reason, ActorKind::System, OrderStage::Placed);
    let by = ("reservation-rejected", "Cancel");
    let cancelled = story.policy(by, &rejected, order(), cancelled);
    story.release(1, 2, &cancelled);
    story
}

/// Cancelled by the deadline; the first attempt expires, the second is voided, and yet captured: the money goes back at
/// the second try. Then the first attempt turns out to have been captured too.
pub fn not_paid_in_time() -> Telling {
    let mut story = Telling::default();
    let (_, first_session) = story.until_session();
    let (order_id, amount) = (order_id(1), money(1_600));
    let expired = PaymentEvent::PaymentExpired { order_id, attempt: 1 };
    story.provider("RecordExpired", &first_session, expired);
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method: method(),
    };
    let retried = story.customer("Retry", payment(), retried);
    let (_, session) = story.session(2, &retried);
    let authorized = story.authorize(2, &session);
    let placed = story.events[0].id().to_string();
    let timeout = cancelled(
        CancelReason::PaymentTimeout,
        ActorKind::System,
        OrderStage::AwaitingPayment,
    );
    let cancelled = story.policy(("payment-deadline", "Cancel"), &placed, order(), timeout);
    story.release(1, 2, &cancelled);
    story.release(2, 1, &cancelled);
    let closing = PaymentEvent::PaymentCloseRequested {
        order_id,
        attempt: 2,
        reason: code("payment-timeout"),
    };
    let closing = story.policy(("order-cancelled", "Close"), &cancelled, payment(), closing);
    let asked = PaymentEvent::VoidRequested { order_id, attempt: 2 };
    let asked = story.policy(("payment-closing", "RequestVoid"), &closing, payment(), asked);
    story.provider(
        "RecordVoided",
        &asked,
        PaymentEvent::PaymentVoided {
            order_id,
            attempt: 2,
            provider_ref: reference("ch_1"),
        },
    );
    let anomaly = PaymentEvent::ProviderAnomalyRecorded {
        order_id,
        attempt: 2,
        provider_ref: reference("ch_1"),
        kind: Anomaly::AmountMismatch {
            expected: amount,
            reported: money(1_500),
        },
    };
    story.provider("RecordCaptured", &authorized, anomaly);
    let captured = PaymentEvent::PaymentCaptured {
        order_id,
        attempt: 2,
        provider_ref: reference("ch_1"),
        amount,
    };
    let captured = story.provider("RecordCaptured", &authorized, captured);
    let asked = story.ask_to_refund(2, 1, 1_600, "captured-late", &captured);
    let failed = PaymentEvent::RefundFailed {
        order_id,
        attempt: 2,
        refund_id: refund_id(1),
        amount,
        code: code("provider-down"),
    };
    let failed = story.provider("RecordRefundFailed", &asked, failed);
    let asked = story.ask_to_refund(2, 2, 1_600, "refund-failed", &failed);
    story.refund(2, 2, 1_600, &asked);
    let captured = PaymentEvent::PaymentCaptured {
        order_id,
        attempt: 1,
        provider_ref: reference("ch_1"),
        amount,
    };
    let captured = story.provider("RecordCaptured", &first_session, captured);
    let asked = story.ask_to_refund(1, 3, 1_600, "captured-late", &captured);
    story.refund(1, 3, 1_600, &asked);
    story
}

/// Sent in two parcels; a return that staff reject.
pub fn completed() -> Telling {
    let mut story = Telling::default();
    let (_, session) = story.until_session();
    let authorized = story.authorize(1, &session);
    let captured = story.capture(1, &authorized);
    story.paid(1, &captured);
    story.dispatch(1, &[(1, 1)]);
    story.dispatch(2, &[(1, 1), (2, 1)]);
    story.deliver(1);
    story.deliver(2);
    story.ask_to_return(&[(1, 2)]);
    let rejected = OrderEvent::ReturnRejected {
        return_id: return_id(),
        reason: code("worn"),
    };
    story.staff("RejectReturn", order(), rejected);
    story.staff("Complete", order(), OrderEvent::OrderCompleted {});
    story
}

fn cancelled(reason: CancelReason, by: ActorKind, stage: OrderStage) -> OrderEvent {
    OrderEvent::OrderCancelled { reason, by, stage }
}

fn order() -> StreamId {
    StreamId::new(AggregateType::Order, order_id(1))
}

fn payment() -> StreamId {
    StreamId::new(AggregateType::Payment, PaymentId::for_order(order_id(1)))
}

fn stock(number: u64) -> StreamId {
    StreamId::new(AggregateType::Inventory, &sku(number))
}

fn shipment(number: u64) -> ShipmentId {
    ShipmentId::from_uuid(uuid(5, number))
}

fn return_id() -> ReturnId {
    ReturnId::from_uuid(uuid(6, 1))
}

fn refund_id(number: u64) -> RefundId {
    RefundId::from_uuid(uuid(7, number))
}

fn reference(text: &str) -> ProviderRef {
    ProviderRef::new(text).unwrap()
}

fn units(lines: &[(u32, u32)]) -> Vec<LineQuantity> {
    lines
        .iter()
        .map(|(line_no, quantity)| LineQuantity {
            line_no: *line_no,
            quantity: *quantity,
        })
        .collect()
}
