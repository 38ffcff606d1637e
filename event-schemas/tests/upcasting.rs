//! How events evolve, shown on made-up earlier versions of real events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::fmt::Write as _;

use event_schemas::{
    AggregateType, DecodeError, Event, InventoryEvent, ReleaseReason, Upcasters, decode, decode_value,
};
use serde_json::{Value, json};

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn read(
    event_type: &str,
    event_version: &str,
    payload: &Value,
    upcasters: &Upcasters,
) -> Result<Event, DecodeError> {
    let from_text = decode(
        AggregateType::Inventory,
        event_type,
        event_version,
        &payload.to_string(),
        upcasters,
    );
    let from_value = decode_value(
        AggregateType::Inventory,
        event_type,
        event_version,
        payload.clone(),
        upcasters,
    );
    // Streams read text, Kafka consumers may hold a tree: both ways have to agree.
    match (&from_text, &from_value) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b)),
        (a, b) => panic!("text: {a:?}, value: {b:?}"),
    }
    from_text
}

fn released() -> Event {
    let order_id = ORDER.parse().unwrap();
    InventoryEvent::ReservationReleased {
        order_id,
        quantity: 2,
        reason: ReleaseReason::OrderCancelled,
    }
    .into()
}

/// Version 0.9 had no reason: the upcaster adds the one that every release had then.
fn add_reason(mut payload: Value) -> Value {
    payload["ReservationReleased"]["reason"] = "order-cancelled".into();
    payload
}

/// The event was called `HoldDropped` once.
fn rename_hold_dropped(mut payload: Value) -> Value {
    json!({ "ReservationReleased": payload["HoldDropped"].take() })
}

fn upcasters() -> Upcasters {
    Upcasters::shipped()
        .with(
            "ReservationReleased",
            "0.9",
            "ReservationReleased",
            "1.0",
            add_reason,
        )
        .with(
            "HoldDropped",
            "1.0",
            "ReservationReleased",
            "0.9",
            rename_hold_dropped,
        )
}

#[test]
fn a_field_is_added_by_a_step() {
    let old = json!({ "ReservationReleased": { "order_id": ORDER, "quantity": 2 } });
    assert_eq!(
        read("ReservationReleased", "0.9", &old, &upcasters()).unwrap(),
        released()
    );
}

#[test]
fn an_event_is_renamed_by_a_step_and_steps_follow_each_other() {
    let old = json!({ "HoldDropped": { "order_id": ORDER, "quantity": 2 } });
    assert_eq!(
        read("HoldDropped", "1.0", &old, &upcasters()).unwrap(),
        released()
    );
}

#[test]
fn what_is_newer_than_the_binary_is_no_poison() {
    let payload = released().to_value().unwrap();
    let newer = |result| matches!(result, Err(DecodeError::Newer { .. }));
    for version in ["1.1", "2.0", "1.10", "10.0"] {
        assert!(
            newer(read("ReservationReleased", version, &payload, &upcasters())),
            "{version}"
        );
    }
    assert!(newer(read(
        "ReservationSplit",
        "1.0",
        &json!({ "ReservationSplit": {} }),
        &upcasters()
    )));
    // Also where a step leads to a version that this binary does not know.
    let ahead = Upcasters::shipped().with(
        "HoldDropped",
        "1.0",
        "ReservationReleased",
        "3.0",
        rename_hold_dropped,
    );
    assert!(newer(read(
        "HoldDropped",
        "1.0",
        &json!({ "HoldDropped": {} }),
        &ahead
    )));
}

#[test]
fn a_broken_payload_is_malformed() {
    let malformed = |result| matches!(result, Err(DecodeError::Malformed { .. }));
    for payload in [
        json!({ "ReservationReleased": { "order_id": ORDER, "quantity": 2 } }),
        json!({ "ReservationReleased": { "order_id": ORDER, "quantity": -2, "reason": "order-cancelled" } }),
        json!({ "ReservationReleased": { "order_id": "o1", "quantity": 2, "reason": "order-cancelled" } }),
        json!({ "ReservationReleased": { "order_id": ORDER, "quantity": 2, "reason": "whim" } }),
        json!({}),
        json!(null),
        json!([1]),
    ] {
        assert!(
            malformed(read("ReservationReleased", "1.0", &payload, &upcasters())),
            "{payload}"
        );
    }
    let cut = released().to_json().unwrap();
    for end in 0..cut.len() {
        let part = &cut[..end];
        let result = decode(
            AggregateType::Inventory,
            "ReservationReleased",
            "1.0",
            part,
            &upcasters(),
        );
        assert!(malformed(result), "{part}");
    }
}

#[test]
fn a_payload_of_another_type_than_its_row_says_is_malformed() {
    let payload = json!({ "StockReserved": { "order_id": ORDER, "quantity": 2 } });
    assert!(read("StockReserved", "1.0", &payload, &upcasters()).is_ok());
    let mixed = read("ReservationCommitted", "1.0", &payload, &upcasters());
    assert!(matches!(mixed, Err(DecodeError::Malformed { .. })), "{mixed:?}");
}

#[test]
fn an_older_version_that_no_step_leads_from_is_malformed() {
    // It would fit the current type, and could still have meant something else.
    let payload = released().to_value().unwrap();
    let stuck = read("ReservationReleased", "0.5", &payload, &upcasters());
    let Err(DecodeError::Malformed { source, .. }) = stuck else {
        panic!("{stuck:?}")
    };
    assert!(
        source
            .to_string()
            .contains("no upcaster leads from ReservationReleased 0.5"),
        "{source}"
    );
}

#[test]
fn a_cycle_of_steps_ends() {
    let cycle = Upcasters::shipped()
        .with("HoldDropped", "1.0", "HoldMade", "1.0", |payload| payload)
        .with("HoldMade", "1.0", "HoldDropped", "1.0", |payload| payload);
    assert!(read("HoldDropped", "1.0", &json!({}), &cycle).is_err());
}

#[test]
fn errors_name_the_event_and_not_its_content() {
    let secret = json!({ "StockReserved": { "order_id": ORDER, "quantity": "4111111111111111" } });
    let error = read("StockReserved", "1.0", &secret, &upcasters()).unwrap_err();
    let mut text = String::new();
    write!(text, "{error}").unwrap();
    assert_eq!(text, "the payload of StockReserved 1.0 does not fit its schema");
}

#[test]
fn every_example_survives_the_log() {
    for event in common::examples() {
        let (kind, name, version) = (event.aggregate_type(), event.name(), event.schema_version());
        let text = event.to_json().unwrap();
        assert_eq!(
            decode(kind, name, version, &text, &Upcasters::shipped()).unwrap(),
            event
        );
        assert_eq!(
            decode_value(
                kind,
                name,
                version,
                event.to_value().unwrap(),
                &Upcasters::shipped()
            )
            .unwrap(),
            event
        );
    }
}
