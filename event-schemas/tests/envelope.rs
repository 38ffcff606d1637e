#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;

use event_schemas::{
    AggregateType, Clock, Event, EventId, LogIdentity, ManualClock, Metadata, OrderEvent, ProductEvent,
    StreamId, Timestamp, Version,
};

#[test]
fn streams_and_events_print_and_parse_alike() {
    for text in [
        "inventory/MUG-1",
        "inventory/a.b_c-d",
        "order/01890a5d-ac96-774b-bcce-b302099a8057",
    ] {
        let stream: StreamId = text.parse().unwrap();
        assert_eq!(stream.to_string(), text);
        let event = format!("{text}/17");
        let id: EventId = event.parse().unwrap();
        assert_eq!((id.stream.clone(), id.version), (stream, Version(17)));
        assert_eq!(id.to_string(), event);
    }
    let long = format!("inventory/{}", "a".repeat(65));
    for bad in [
        "",
        "inventory",
        "inventory/",
        "/a",
        "Inventory/a",
        "shop/a",
        "inventory/a/b",
        &long,
    ] {
        assert!(bad.parse::<StreamId>().is_err(), "{bad}");
    }
    for bad in [
        "inventory/a",
        "inventory/a/",
        "inventory/a/x",
        "inventory/a/0",
        "inventory/a/+1",
        "inventory/a/01",
        "inventory/a/-1",
        "inventory/a/18446744073709551616",
        "a/1",
    ] {
        assert!(bad.parse::<EventId>().is_err(), "{bad}");
    }
}

#[test]
fn aggregate_types_have_one_name_everywhere() {
    for kind in AggregateType::ALL {
        assert_eq!(kind.to_string().parse::<AggregateType>().unwrap(), kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

#[test]
fn metadata_is_the_flat_map_of_text_that_cqrs_es_stores() {
    let full = common::metadata();
    let bare = Metadata {
        causation_id: None,
        traceparent: None,
        ..full.clone()
    };
    for metadata in [full, bare] {
        let json = serde_json::to_string(&metadata).unwrap();
        let map: HashMap<String, String> = serde_json::from_str(&json).expect("a flat map of text");
        let back: Metadata = serde_json::from_value(serde_json::to_value(map).unwrap()).unwrap();
        assert_eq!(back, metadata);
    }
}

#[test]
fn metadata_of_a_later_binary_is_read_and_what_is_unknown_ignored() {
    let mut value = serde_json::to_value(common::metadata()).unwrap();
    value["tenant"] = "north".into();
    assert_eq!(
        serde_json::from_value::<Metadata>(value).unwrap(),
        common::metadata()
    );
}

#[test]
fn an_event_converts_to_its_own_aggregate_only() {
    for event in common::examples() {
        let is_order = event.aggregate_type() == AggregateType::Order;
        let converted = OrderEvent::try_from(event.clone());
        assert_eq!(converted.is_ok(), is_order);
        match converted {
            Ok(inner) => assert_eq!(Event::from(inner), event),
            Err(back) => assert_eq!(back, event),
        }
    }
    assert_eq!(ProductEvent::TYPES.len(), 8);
}

#[test]
fn log_identity_round_trips() {
    let identity = LogIdentity {
        log_id: event_schemas::derive_uuid("test", &[]),
        epoch: 3,
    };
    assert_eq!(
        serde_json::from_value::<LogIdentity>(serde_json::to_value(identity).unwrap()).unwrap(),
        identity
    );
}

#[test]
fn a_manual_clock_stands_until_it_is_moved_and_keeps_microseconds() {
    let hand = ManualClock::new("2011-12-09T12:50:00.123456789Z".parse::<Timestamp>().unwrap());
    let clock = Clock::from(hand.clone());
    assert_eq!(clock.now().to_string(), "2011-12-09T12:50:00.123456Z");
    assert_eq!(clock.now(), clock.clone().now());
    hand.advance(std::time::Duration::from_secs(60));
    assert_eq!(clock.now().to_string(), "2011-12-09T12:51:00.123456Z");
    assert_eq!(Clock::System.now().as_nanosecond() % 1000, 0);
}
