//! Each row of the policy table that begins in a payment, and what holds for all rows.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;
mod table;

use aggregates::order::OrderCommand;
use aggregates::payment::{Payment, PaymentCommand, RefundAmount};
use common::{code, customer, gbp, sandbox_method, sku};
use event_schemas::{
    AggregateType, CartEvent, CartId, InventoryEvent, OrderEvent, PaymentEvent, ProviderRef, RecordedEvent,
    RefundId, Version, derive_uuid,
};
use sagas::policies::{
    Action, Command, EffectKind, Folded, MissingState, PolicyConfig, Refusal, has_policy, needs_state, react,
    scope,
};

use table::*;

#[test]
fn a_requested_payment_asks_for_a_session() {
    let (order_id, amount, method) = (order(), gbp(700), sandbox_method("ref"));
    let requested = PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method.clone(),
    };
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method,
    };
    for (event, attempt) in [(requested, 1), (retried, 2)] {
        let request = PaymentCommand::RequestSession { attempt };
        assert_eq!(
            commands(&of(&of_payment(event))),
            [Command::Payment(payment(), request)]
        );
    }
}

#[test]
fn an_intent_is_a_call_to_the_provider() {
    let (order_id, attempt) = (order(), 1);
    let refund = PaymentEvent::RefundRequested {
        order_id,
        attempt,
        refund_id: RefundId::from_uuid(derive_uuid("test", &[])),
        amount: gbp(700),
        reason: code("surplus"),
    };
    for (event, kind) in [
        (
            PaymentEvent::SessionRequested { order_id, attempt },
            EffectKind::Session,
        ),
        (
            PaymentEvent::CaptureRequested {
                order_id,
                attempt,
                amount: gbp(700),
            },
            EffectKind::Capture,
        ),
        (
            PaymentEvent::VoidRequested { order_id, attempt },
            EffectKind::Void,
        ),
        (refund, EffectKind::Refund),
    ] {
        assert_eq!(of(&of_payment(event)), [Action::Effect { kind }]);
    }
}

#[test]
fn an_authorization_is_captured_unless_it_is_given_up() {
    let (order_id, amount, method) = (order(), gbp(700), sandbox_method("ref"));
    let provider_ref = ProviderRef::new("auth-1").expect("a reference");
    let requested = PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method.clone(),
    };
    let declined = PaymentEvent::PaymentDeclined {
        order_id,
        attempt: 1,
        code: code("no"),
    };
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method,
    };
    let closed = PaymentEvent::PaymentCloseRequested {
        order_id,
        attempt: 1,
        reason: code("cancelled"),
    };
    let authorized = PaymentEvent::PaymentAuthorized {
        order_id,
        attempt: 1,
        provider_ref,
        amount,
    };
    let event = of_payment(authorized.clone());
    let follows = |before: Vec<PaymentEvent>| {
        let payment: Payment = fold(before.into_iter().chain([authorized.clone()]));
        commands(&react(&event, Folded::Payment(&payment), &PolicyConfig::default()).expect("state"))
    };
    let capture = Command::Payment(payment(), PaymentCommand::RequestCapture { attempt: 1 });
    let void = Command::Payment(payment(), PaymentCommand::RequestVoid { attempt: 1 });
    assert_eq!(follows(vec![requested.clone()]), [capture]);
    assert_eq!(
        follows(vec![requested.clone(), closed]),
        std::slice::from_ref(&void)
    );
    assert_eq!(
        follows(vec![requested, declined, retried]),
        [void],
        "a later attempt has replaced it"
    );
    assert_eq!(
        react(&event, Folded::Nothing, &PolicyConfig::default()),
        Err(MissingState {
            event: "PaymentAuthorized"
        })
    );
}

#[test]
fn a_capture_pays_the_order_or_is_refunded_in_full() {
    let provider_ref = ProviderRef::new("charge-1").expect("a reference");
    let event = PaymentEvent::PaymentCaptured {
        order_id: order(),
        attempt: 2,
        provider_ref,
        amount: gbp(700),
    };
    let actions = of(&of_payment(event));
    let paid = OrderCommand::MarkPaid {
        payment_id: payment(),
        attempt: 2,
        amount: gbp(700),
    };
    assert_eq!(commands(&actions), [Command::Order(order(), paid)]);
    let (with, refund) = branch(&actions);
    assert_eq!(with, [Refusal::Cancelled, Refusal::PaidByAnotherAttempt]);
    assert!(matches!(
        refund,
        Command::Payment(id, PaymentCommand::RequestRefund { attempt: 2, amount: RefundAmount::Everything, .. })
            if id == payment()
    ));
}

#[test]
fn a_refund_that_succeeded_is_recorded_on_the_order() {
    let refund_id = RefundId::from_uuid(derive_uuid("test", &[]));
    let event = PaymentEvent::RefundSucceeded {
        order_id: order(),
        attempt: 1,
        refund_id,
        provider_ref: ProviderRef::new("refund-1").expect("a reference"),
        amount: gbp(300),
    };
    let record = OrderCommand::RecordRefund {
        payment_id: payment(),
        attempt: 1,
        refund_id,
        amount: gbp(300),
    };
    assert_eq!(
        commands(&of(&of_payment(event))),
        [Command::Order(order(), record)]
    );
}

#[test]
fn policies_depend_on_nothing_but_their_arguments() {
    let event = inventory(InventoryEvent::StockReserved {
        order_id: order(),
        quantity: 2,
    });
    assert_eq!(of(&event), of(&event.clone()));
    let later = RecordedEvent {
        version: Version(4),
        ..event.clone()
    };
    assert_ne!(
        only_command(&of(&event)).command_id,
        only_command(&of(&later)).command_id
    );
}

#[test]
fn what_fails_on_stock_parks_one_order_of_it() {
    let event = inventory(InventoryEvent::StockReserved {
        order_id: order(),
        quantity: 2,
    });
    assert_eq!(&*scope(&event), format!("inventory/MUG#{}", order()));
    let event = of_payment(PaymentEvent::VoidRequested {
        order_id: order(),
        attempt: 1,
    });
    assert_eq!(&*scope(&event), format!("payment/{}", payment()));
}

#[test]
fn events_without_a_row_ask_for_nothing() {
    for event in [
        recorded(
            AggregateType::Order,
            order(),
            OrderEvent::LineReserved { sku: sku("MUG") },
        ),
        recorded(AggregateType::Order, order(), OrderEvent::OrderReserved {}),
        inventory(InventoryEvent::BackorderLimitSet { limit: 1 }),
        recorded(
            AggregateType::Cart,
            CartId::for_owner(customer("ada")),
            CartEvent::CartCleared {},
        ),
    ] {
        assert!(!has_policy(&event.event) && !needs_state(&event.event));
        assert_eq!(
            react(&event, Folded::Nothing, &PolicyConfig::default()),
            Ok(Vec::new())
        );
    }
}
