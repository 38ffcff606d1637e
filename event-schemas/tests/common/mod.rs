//! Maximal examples: together they set every optional field and use every variant of every nested enum.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use event_schemas::{
    ActorKind, Anomaly, CancelReason, CartCheckedOut, CartEvent, CartId, CartLine, Code, CommandId,
    CorrelationId, CountryCode, Currency, CustomerId, Event, InventoryEvent, KeyId, LineQuantity, Metadata,
    Money, OrderEvent, OrderId, OrderLine, OrderPlaced, OrderStage, PaymentEvent, PaymentId, PaymentMethod,
    ProductDetails, ProductEvent, ProductId, ProductOption, ProviderRef, Reference, RefundId, ReleaseReason,
    ReturnCondition, ReturnId, ReturnedLine, Sealed, SecretRef, ShipmentId, ShippingCharge, Sku, Tax,
    Timestamp, Totals,
};

/// Every example, in the order of the golden files: the examples of one event type are one file.
pub fn examples() -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    all.extend(product().into_iter().map(Event::from));
    all.extend(inventory().into_iter().map(Event::from));
    all.extend(cart().into_iter().map(Event::from));
    all.extend(order().into_iter().map(Event::from));
    all.extend(payment().into_iter().map(Event::from));
    all
}

/// An id that reads like one and never changes.
fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(last: u32) -> T {
    format!("01890a5d-ac96-774b-bcce-{last:012x}").parse().unwrap()
}

fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn provider_ref(text: &str) -> ProviderRef {
    ProviderRef::new(text).unwrap()
}

pub fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn sealed() -> Sealed {
    Sealed {
        key_id: KeyId::new("customer-01890a5d").unwrap(),
        nonce: "AAECAwQFBgcICQoL".into(),
        ciphertext: "q83vEjRWeJCrze8SNFZ4kA==".into(),
    }
}

pub fn metadata() -> Metadata {
    Metadata {
        actor_kind: ActorKind::System,
        actor_id: "order-placed".into(),
        command: "Reserve".into(),
        command_id: id::<CommandId>(0xc1),
        correlation_id: id::<CorrelationId>(0xc2),
        causation_id: Some("order/01890a5d-ac96-774b-bcce-000000000003/1".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    }
}

pub fn product_details() -> ProductDetails {
    ProductDetails {
        title: "White Hanging Heart T-Light Holder".into(),
        description: "A heart that holds a light.".into(),
        category: Some("candles".into()),
        tags: vec!["heart".into(), "gift".into()],
        options: vec![ProductOption {
            name: "colour".into(),
            values: vec!["white".into(), "red".into()],
        }],
        images: vec!["/images/heart-1.webp".into()],
    }
}

fn product() -> Vec<ProductEvent> {
    let minimal = ProductDetails {
        title: "Postage".into(),
        ..ProductDetails::default()
    };
    vec![
        ProductEvent::ProductCreated {
            details: product_details(),
        },
        ProductEvent::ProductCreated {
            details: minimal.clone(),
        },
        ProductEvent::ProductDetailsChanged {
            details: product_details(),
        },
        ProductEvent::ProductDetailsChanged { details: minimal },
        ProductEvent::VariantAdded {
            sku: sku("85123A"),
            option_values: BTreeMap::from([("colour".into(), "white".into())]),
            price: gbp(255),
            tracked: true,
        },
        ProductEvent::VariantRemoved { sku: sku("85123A") },
        ProductEvent::PriceChanged {
            sku: sku("85123A"),
            price: gbp(295),
        },
        ProductEvent::ProductPublished {},
        ProductEvent::ProductUnpublished {},
        ProductEvent::ProductArchived {
            reason: code("discontinued"),
        },
    ]
}

fn inventory() -> Vec<InventoryEvent> {
    let order_id: OrderId = id(3);
    vec![
        InventoryEvent::SkuAssigned {
            product_id: id::<ProductId>(1),
        },
        InventoryEvent::StockReceived {
            quantity: 100,
            reference: Reference::new("delivery note 17/4").unwrap(),
        },
        InventoryEvent::StockAdjusted {
            delta: -3,
            reason: code("damaged"),
        },
        InventoryEvent::StockReserved {
            order_id,
            quantity: 6,
        },
        InventoryEvent::ReservationRejected {
            order_id,
            quantity: 6,
            available: 5,
        },
        InventoryEvent::ReservationReleased {
            order_id,
            quantity: 6,
            reason: ReleaseReason::OrderCancelled,
        },
        InventoryEvent::ReservationCommitted {
            order_id,
            quantity: 6,
        },
        InventoryEvent::StockReturned {
            order_id,
            quantity: 1,
            condition: ReturnCondition::Resaleable,
        },
        InventoryEvent::StockReturned {
            order_id,
            quantity: 1,
            condition: ReturnCondition::Damaged,
        },
        InventoryEvent::BackorderLimitSet { limit: 10 },
    ]
}

fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: Some(SecretRef::new("s_01890a5dac96").unwrap()),
    }
}

fn on_account() -> PaymentMethod {
    PaymentMethod {
        method: code("invoice"),
        provider: code("manual"),
        secret_ref: None,
    }
}

fn tax(amount: i64) -> Tax {
    Tax {
        code: code("standard"),
        rate_ppm: 200_000,
        amount: gbp(amount),
        included: true,
    }
}

fn order_lines() -> Vec<OrderLine> {
    vec![OrderLine {
        line_no: 1,
        sku: sku("85123A"),
        product_id: id(1),
        title: "White Hanging Heart T-Light Holder".into(),
        unit_price: gbp(255),
        quantity: 6,
        discount: gbp(30),
        tax: tax(250),
        tracked: true,
    }]
}

fn shipping() -> ShippingCharge {
    ShippingCharge {
        price: gbp(400),
        discount: gbp(100),
        tax: tax(50),
    }
}

fn totals() -> Totals {
    Totals {
        items: gbp(1530),
        shipping: gbp(400),
        discount: gbp(130),
        tax_included: gbp(300),
        tax_added: gbp(0),
        total: gbp(1800),
    }
}

fn cart() -> Vec<CartEvent> {
    let lines = vec![CartLine {
        sku: sku("85123A"),
        quantity: 6,
    }];
    let check_out = |payment| {
        CartEvent::CartCheckedOut(Box::new(CartCheckedOut {
            order_id: id(3),
            attempt: 2,
            customer: id(2),
            lines: order_lines(),
            shipping: shipping(),
            totals: totals(),
            country: CountryCode::new("GB").unwrap(),
            payment,
            occurred_at: at("2011-12-09T12:50:00Z"),
            payment_deadline: at("2011-12-09T13:20:00Z"),
        }))
    };
    vec![
        CartEvent::CartOpened {
            owner: id::<CustomerId>(2),
        },
        CartEvent::ItemAdded {
            sku: sku("85123A"),
            quantity: 6,
        },
        CartEvent::ItemQuantityChanged {
            sku: sku("85123A"),
            quantity: 12,
        },
        CartEvent::ItemRemoved { sku: sku("85123A") },
        CartEvent::CartCleared {},
        CartEvent::CartMergedInto {
            target: id::<CartId>(5),
            target_owner: id::<CustomerId>(2),
            lines: lines.clone(),
        },
        CartEvent::CartMerged {
            from: id::<CartId>(4),
            lines,
        },
        check_out(method()),
        check_out(on_account()),
        CartEvent::CartReopened {
            order_id: id(3),
            reason: code("out-of-stock"),
        },
        CartEvent::CartRenewed { order_id: id(3) },
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn order() -> Vec<OrderEvent> {
    let placed = |cart_id, payment| {
        OrderEvent::OrderPlaced(Box::new(OrderPlaced {
            order_id: id(3),
            customer: id(2),
            lines: order_lines(),
            shipping: shipping(),
            totals: totals(),
            country: CountryCode::new("GB").unwrap(),
            cart_id,
            payment,
            occurred_at: at("2011-12-09T12:50:00Z"),
            payment_deadline: at("2011-12-09T13:20:00.123456Z"),
        }))
    };
    let cancelled = |reason, by, stage| OrderEvent::OrderCancelled { reason, by, stage };
    let dispatched = |tracking_number| OrderEvent::ShipmentDispatched {
        shipment_id: id::<ShipmentId>(7),
        lines: vec![LineQuantity {
            line_no: 1,
            quantity: 6,
        }],
        carrier: code("royal-mail"),
        tracking_number,
    };
    let return_requested = |note| OrderEvent::ReturnRequested {
        return_id: id::<ReturnId>(8),
        lines: vec![LineQuantity {
            line_no: 1,
            quantity: 2,
        }],
        reason: code("damaged"),
        note,
    };
    let payment_required = |method| OrderEvent::PaymentRequired {
        payment_id: id::<PaymentId>(6),
        amount: gbp(1800),
        method,
    };
    let returned = |condition| ReturnedLine {
        line_no: 1,
        quantity: 1,
        condition,
    };
    let out_of_stock = CancelReason::OutOfStock {
        sku: sku("85123A"),
        available: 5,
    };
    let staff = CancelReason::Staff {
        code: code("suspected-fraud"),
    };
    vec![
        placed(Some(id::<CartId>(4)), method()),
        placed(None, on_account()),
        OrderEvent::LineReserved { sku: sku("85123A") },
        OrderEvent::OrderReserved {},
        payment_required(method()),
        payment_required(on_account()),
        OrderEvent::OrderPaid {
            payment_id: id(6),
            attempt: 1,
            amount: gbp(1800),
        },
        cancelled(out_of_stock, ActorKind::System, OrderStage::Placed),
        cancelled(
            CancelReason::PaymentTimeout,
            ActorKind::Provider,
            OrderStage::AwaitingPayment,
        ),
        cancelled(
            CancelReason::CustomerRequest,
            ActorKind::Customer,
            OrderStage::Paid,
        ),
        cancelled(
            CancelReason::CustomerRequest,
            ActorKind::Guest,
            OrderStage::Placed,
        ),
        cancelled(staff.clone(), ActorKind::Staff, OrderStage::Placed),
        cancelled(staff, ActorKind::Admin, OrderStage::Placed),
        dispatched(Some(Reference::new("RM 123 456 789 GB").unwrap())),
        dispatched(None),
        OrderEvent::ShipmentDelivered {
            shipment_id: id(7),
            delivered_at: at("2011-12-12T09:00:00Z"),
        },
        OrderEvent::OrderCompleted {},
        return_requested(Some(sealed())),
        return_requested(None),
        OrderEvent::ReturnApproved { return_id: id(8) },
        OrderEvent::ReturnRejected {
            return_id: id(8),
            reason: code("too-late"),
        },
        OrderEvent::ReturnReceived {
            return_id: id(8),
            lines: vec![
                returned(ReturnCondition::Resaleable),
                returned(ReturnCondition::Damaged),
            ],
            refund: gbp(500),
        },
        OrderEvent::RefundRecorded {
            payment_id: id(6),
            attempt: 1,
            refund_id: id::<RefundId>(9),
            amount: gbp(500),
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn payment() -> Vec<PaymentEvent> {
    let (order_id, refund_id): (OrderId, RefundId) = (id(3), id(9));
    let (attempt, amount) = (1, gbp(1800));
    let requested = |method| PaymentEvent::PaymentRequested {
        order_id,
        attempt,
        amount,
        method,
    };
    let retried = |method| PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method,
    };
    let session = |checkout_ref| PaymentEvent::PaymentSessionCreated {
        order_id,
        attempt,
        provider_ref: provider_ref("sess_1"),
        checkout_ref,
    };
    let anomaly = |kind| PaymentEvent::ProviderAnomalyRecorded {
        order_id,
        attempt,
        provider_ref: provider_ref("ch_2"),
        kind,
    };
    let dollars = Money::new(1800, Currency::USD).unwrap();
    vec![
        requested(method()),
        requested(on_account()),
        PaymentEvent::SessionRequested { order_id, attempt },
        session(Some(SecretRef::new("u_01890a5dac96").unwrap())),
        session(None),
        PaymentEvent::PaymentAuthorized {
            order_id,
            attempt,
            provider_ref: provider_ref("auth_1"),
            amount,
        },
        PaymentEvent::CaptureRequested {
            order_id,
            attempt,
            amount,
        },
        PaymentEvent::PaymentCaptured {
            order_id,
            attempt,
            provider_ref: provider_ref("ch_1"),
            amount,
        },
        PaymentEvent::PaymentDeclined {
            order_id,
            attempt,
            code: code("insufficient-funds"),
        },
        retried(method()),
        retried(on_account()),
        PaymentEvent::PaymentCloseRequested {
            order_id,
            attempt,
            reason: code("order-cancelled"),
        },
        PaymentEvent::VoidRequested { order_id, attempt },
        PaymentEvent::PaymentVoided {
            order_id,
            attempt,
            provider_ref: provider_ref("void_1"),
        },
        PaymentEvent::PaymentExpired { order_id, attempt },
        PaymentEvent::RefundRequested {
            order_id,
            attempt,
            refund_id,
            amount: gbp(500),
            reason: code("return"),
        },
        PaymentEvent::RefundSucceeded {
            order_id,
            attempt,
            refund_id,
            provider_ref: provider_ref("re_1"),
            amount: gbp(500),
        },
        PaymentEvent::RefundFailed {
            order_id,
            attempt,
            refund_id,
            amount: gbp(500),
            code: code("card-closed"),
        },
        anomaly(Anomaly::AmountMismatch {
            expected: amount,
            reported: gbp(1801),
        }),
        anomaly(Anomaly::CurrencyMismatch {
            expected: amount,
            reported: dollars,
        }),
        anomaly(Anomaly::OrderMismatch { reported: id(0x33) }),
        anomaly(Anomaly::UnknownAttempt { reported: 9 }),
        anomaly(Anomaly::UnknownRefund { reported: id(0x99) }),
        anomaly(Anomaly::SecondCapture {
            recorded: provider_ref("ch_1"),
            reported: amount,
        }),
    ]
}
