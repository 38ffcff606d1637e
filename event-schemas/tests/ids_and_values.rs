#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;

use event_schemas::{
    AggregateId, AggregateType, CartId, Code, CommandId, CountryCode, CustomerId, EventId, OrderId,
    PaymentId, ProductId, ProviderRef, Reference, SecretRef, Sku, StreamId, Timestamp, Version, derive_uuid,
};
use proptest::prelude::*;

fn order(number: u8) -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

#[test]
fn generated_ids_are_version_7_and_sort_by_time() {
    let at = |millis| Timestamp::from_millisecond(millis).unwrap();
    let early = OrderId::generate(at(1_323_435_000_000), &[0xff; 10]);
    let late = OrderId::generate(at(1_323_435_000_001), &[0; 10]);
    for id in [early, late] {
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(id.as_uuid().get_variant(), uuid::Variant::RFC4122);
    }
    assert!(early < late);
    assert!(early.to_string() < late.to_string());
    let (seconds, nanos) = early.as_uuid().get_timestamp().unwrap().to_unix();
    assert_eq!((seconds, nanos), (1_323_435_000, 0));
}

#[test]
fn derived_ids_are_version_8_and_pinned_for_good() {
    let uuid = derive_uuid("omisys/test", &[b"a", b"b"]);
    assert_eq!(uuid.get_version_num(), 8);
    assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    // A log depends on these: another value would make a retried command create a second order.
    assert_eq!(uuid.to_string(), "85d6b1d0-3e8c-82b5-9366-1cba4d607e86");
    let cart = CartId::for_owner(CustomerId::generate(Timestamp::UNIX_EPOCH, &[1; 10]));
    assert_eq!(
        OrderId::for_checkout(cart, 1).to_string(),
        "f39a7b31-0eb6-8548-8222-7c752fc9d9c5"
    );
    assert_eq!(
        CommandId::for_request("p", "POST", "/v1/orders", "k").to_string(),
        "c6098620-c4fd-81cf-a8b4-24fc429456c6"
    );
    assert_eq!(
        PaymentId::for_order(order(1)).to_string(),
        "28117114-92cf-88d1-a67c-9a2d898739a4"
    );
}

#[test]
fn parts_cannot_run_into_each_other() {
    let ids = [
        derive_uuid("n", &[b"ab", b"c"]),
        derive_uuid("n", &[b"a", b"bc"]),
        derive_uuid("n", &[b"abc"]),
        derive_uuid("n", &[b"abc", b""]),
        derive_uuid("na", &[b"b", b"c"]),
        derive_uuid("n", &[]),
    ];
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    // A caller's key can't pretend to be part of the path before it.
    assert_ne!(
        CommandId::for_request("p", "POST", "/a", "b/c"),
        CommandId::for_request("p", "POST", "/a/b", "c")
    );
}

#[test]
fn a_policy_command_differs_by_each_of_its_parts() {
    let event = |version| EventId {
        stream: StreamId::new(AggregateType::Order, order(1)),
        version: Version(version),
    };
    let (a, b) = (AggregateId::from("A"), AggregateId::from("B"));
    let ids = [
        CommandId::for_policy(&event(1), "reserve", "Reserve", &a, 0),
        CommandId::for_policy(&event(2), "reserve", "Reserve", &a, 0),
        CommandId::for_policy(&event(1), "release", "Reserve", &a, 0),
        CommandId::for_policy(&event(1), "reserve", "Release", &a, 0),
        CommandId::for_policy(&event(1), "reserve", "Reserve", &b, 0),
        CommandId::for_policy(&event(1), "reserve", "Reserve", &a, 1),
    ];
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    assert_eq!(
        ids[0],
        CommandId::for_policy(&event(1), "reserve", "Reserve", &a, 0)
    );
}

#[test]
fn derivations_of_one_parent_do_not_meet() {
    let command = CommandId::for_request("p", "POST", "/", "k");
    let uuids = [
        *ProductId::for_command(command).as_uuid(),
        *OrderId::for_command(command).as_uuid(),
        *event_schemas::ShipmentId::for_command(command).as_uuid(),
        *event_schemas::ReturnId::for_command(command).as_uuid(),
        *event_schemas::RefundId::for_command(command).as_uuid(),
    ];
    assert_eq!(uuids.iter().collect::<HashSet<_>>().len(), uuids.len());
    let cart = CartId::for_owner(CustomerId::generate(Timestamp::UNIX_EPOCH, &[1; 10]));
    assert_ne!(OrderId::for_checkout(cart, 1), OrderId::for_checkout(cart, 2));
}

#[test]
fn ids_are_read_in_the_hyphenated_form_and_written_in_lower_case() {
    let text = "01890a5d-ac96-774b-bcce-b302099a8057";
    let id: OrderId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    assert_eq!(AggregateId::from(id).as_str(), text);
    assert_eq!(text.to_uppercase().parse::<OrderId>().unwrap().to_string(), text);
    for bad in [
        "",
        "01890a5dac96774bbcceb302099a8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "x",
        &text[1..],
    ] {
        assert!(bad.parse::<OrderId>().is_err(), "{bad}");
    }
}

#[test]
fn values_refuse_what_they_are_not() {
    let long = "a".repeat(300);
    let skus: (&[&str], &[&str]) = (
        &["85123A", "a.b_c-D", &long[..64]],
        &["", " ", "a b", "a/b", "ä", "a\n", &long[..65], "a\0"],
    );
    let countries: (&[&str], &[&str]) = (&["GB", "XA"], &["", "gb", "GBR", "G1", "ÄÖ"]);
    let codes: (&[&str], &[&str]) = (
        &["out-of-stock", "3ds", &long[..64]],
        &["", "-a", "_a", "A", "a b", "e@mail", &long[..65]],
    );
    let references: (&[&str], &[&str]) = (
        &["Lieferschein 17/4 für März", &"ä".repeat(128)],
        &["", "a\tb", "a\u{85}b", &long[..129]],
    );
    let provider_refs: (&[&str], &[&str]) = (&["ch_1:2/3", &long[..255]], &["", "a b", "é", &long[..256]]);
    let secret_refs: (&[&str], &[&str]) = (&["s_0-Z", &long[..64]], &["", "a.b", "a b", &long[..65]]);
    check::<Sku>(skus);
    check::<CountryCode>(countries);
    check::<Code>(codes);
    check::<Reference>(references);
    check::<ProviderRef>(provider_refs);
    check::<SecretRef>(secret_refs);
}

/// By parsing and by deserialising alike, from borrowed and from owned text.
fn check<T>((good, bad): (&[&str], &[&str]))
where
    T: std::str::FromStr + ToString + serde::Serialize + serde::de::DeserializeOwned,
{
    for text in good {
        let value: T = text.parse().unwrap_or_else(|_| panic!("{text:?} was refused"));
        assert_eq!(value.to_string(), *text);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, serde_json::to_string(text).unwrap());
        assert_eq!(serde_json::from_str::<T>(&json).unwrap().to_string(), *text);
        assert_eq!(
            serde_json::from_value::<T>((*text).into()).unwrap().to_string(),
            *text
        );
    }
    for text in bad {
        assert!(text.parse::<T>().is_err(), "{text:?} was taken");
        assert!(
            serde_json::from_value::<T>((*text).into()).is_err(),
            "{text:?} was read"
        );
    }
    assert!(serde_json::from_str::<T>("5").is_err());
}

proptest! {
    #[test]
    fn whatever_parses_as_a_sku_is_a_legal_stream_and_comes_back(text in ".{0,70}") {
        if let Ok(sku) = Sku::new(&text) {
            let stream = StreamId::new(AggregateType::Inventory, &sku);
            prop_assert_eq!(stream.to_string().parse::<StreamId>().unwrap(), stream);
        }
    }
}
