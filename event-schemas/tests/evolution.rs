//! What docs/event-evolution.md says, one test a recipe. Older versions are made up; what the code reads today is real,
//! save where an event is split or retired: parcels, whose past is made up too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use event_schemas::{AggregateType, DecodeError, Event, OrderEvent, Upcasters, decode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const RETURN: &str = "01890a5d-ac96-774b-bcce-000000000008";

fn read(
    event_type: &str,
    event_version: &str,
    payload: &Value,
    upcasters: &Upcasters,
) -> Result<OrderEvent, DecodeError> {
    let event = decode(
        AggregateType::Order,
        event_type,
        event_version,
        &payload.to_string(),
        upcasters,
    )?;
    Ok(OrderEvent::try_from(event).expect("of an order"))
}

fn rejected(reason: &str) -> OrderEvent {
    OrderEvent::ReturnRejected {
        return_id: RETURN.parse().unwrap(),
        reason: event_schemas::Code::new(reason).unwrap(),
    }
}

#[test]
fn a_field_that_may_be_missing_needs_no_version() {
    let shipped = Upcasters::shipped();
    let lines = json!([{ "line_no": 1, "quantity": 2 }]);
    // Written before there was a note.
    let before = json!({ "ReturnRequested": { "return_id": RETURN, "lines": lines, "reason": "damaged" } });
    let event = read("ReturnRequested", "1.0", &before, &shipped).unwrap();
    assert!(matches!(event, OrderEvent::ReturnRequested { note: None, .. }));
    // Written by a later binary with one more such field: this one reads it, and ignores what it does not know.
    let mut later = before;
    later["ReturnRequested"]["pick_up"] = json!(true);
    assert_eq!(read("ReturnRequested", "1.0", &later, &shipped).unwrap(), event);
}

#[test]
fn a_field_that_is_always_there_needs_a_version_and_a_step_that_says_what_it_was_before() {
    let upcasters =
        Upcasters::shipped().with("ReturnRejected", "0.9", "ReturnRejected", "1.0", |mut payload| {
            payload["ReturnRejected"]["reason"] = json!("unsaid");
            payload
        });
    let old = json!({ "ReturnRejected": { "return_id": RETURN } });
    assert_eq!(
        read("ReturnRejected", "0.9", &old, &upcasters).unwrap(),
        rejected("unsaid")
    );
    // The binary that only knows the old version says "upgrade" to the new one; no step leads backwards.
    let new = rejected("too-late");
    let new = serde_json::to_value(&new).unwrap();
    let newer = read("ReturnRejected", "1.1", &new, &upcasters);
    assert!(matches!(newer, Err(DecodeError::Newer { .. })), "{newer:?}");
}

#[test]
fn a_field_is_renamed_by_a_step() {
    let upcasters =
        Upcasters::shipped().with("ReturnRejected", "0.9", "ReturnRejected", "1.0", |mut payload| {
            payload["ReturnRejected"]["reason"] = payload["ReturnRejected"]["because"].take();
            payload
        });
    let old = json!({ "ReturnRejected": { "return_id": RETURN, "because": "too-late" } });
    assert_eq!(
        read("ReturnRejected", "0.9", &old, &upcasters).unwrap(),
        rejected("too-late")
    );
    let unread = read("ReturnRejected", "1.0", &old, &upcasters);
    assert!(
        matches!(unread, Err(DecodeError::Malformed { .. })),
        "without a version of its own it is poison: {unread:?}"
    );
}

#[test]
fn an_event_is_renamed_by_a_step_from_its_old_name() {
    let upcasters = Upcasters::shipped().with(
        "ReturnRefused",
        "1.0",
        "ReturnRejected",
        "1.0",
        |mut payload| json!({ "ReturnRejected": payload["ReturnRefused"].take() }),
    );
    let old = json!({ "ReturnRefused": { "return_id": RETURN, "reason": "too-late" } });
    assert_eq!(
        read("ReturnRefused", "1.0", &old, &upcasters).unwrap(),
        rejected("too-late")
    );
    let event = Event::from(rejected("too-late"));
    assert_eq!(
        event.name(),
        "ReturnRejected",
        "what is written has the new name only"
    );
}

/// Events of a parcel. The first was split into the two behind it; the last is not written any more, and nothing took
/// its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::enum_variant_names, reason = "an event is named in full")]
enum ParcelEvent {
    #[deprecated = "split into ParcelPacked and ParcelSent"]
    ParcelPackedAndSent {
        grams: u32,
        carrier: String,
    },
    ParcelPacked {
        grams: u32,
    },
    ParcelSent {
        carrier: String,
    },
    #[deprecated = "nobody weighs twice any more"]
    ParcelWeighedAgain {
        grams: u32,
    },
}

#[derive(Debug, Default, PartialEq)]
struct Parcel {
    grams: u32,
    carrier: Option<String>,
}

impl Parcel {
    fn decide(grams: u32, carrier: &str) -> Vec<ParcelEvent> {
        // To write one of the old ones would be a warning, which the build takes for an error.
        let carrier = carrier.to_owned();
        vec![
            ParcelEvent::ParcelPacked { grams },
            ParcelEvent::ParcelSent { carrier },
        ]
    }

    #[expect(deprecated, reason = "read, not written")]
    fn evolve(&mut self, event: ParcelEvent) {
        match event {
            ParcelEvent::ParcelPackedAndSent { grams, carrier } => {
                self.evolve(ParcelEvent::ParcelPacked { grams });
                self.evolve(ParcelEvent::ParcelSent { carrier });
            }
            ParcelEvent::ParcelPacked { grams } => self.grams = grams,
            ParcelEvent::ParcelSent { carrier } => self.carrier = Some(carrier),
            // It corrected what shipping cost; no state was ever kept of it.
            ParcelEvent::ParcelWeighedAgain { .. } => {}
        }
    }

    fn folded(stored: &[Value]) -> Self {
        let mut parcel = Self::default();
        for payload in stored {
            parcel.evolve(serde_json::from_value(payload.clone()).unwrap());
        }
        parcel
    }
}

fn stored(events: &[ParcelEvent]) -> Vec<Value> {
    events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap())
        .collect()
}

#[test]
fn an_event_is_split_by_keeping_the_old_one_readable_and_writing_the_new_ones() {
    let before = [json!({ "ParcelPackedAndSent": { "grams": 900, "carrier": "royal-mail" } })];
    let now = stored(&Parcel::decide(900, "royal-mail"));
    assert_eq!(now.len(), 2);
    assert_eq!(Parcel::folded(&before), Parcel::folded(&now));
}

#[test]
fn a_retired_event_is_read_and_not_written() {
    let mut stream = stored(&Parcel::decide(900, "royal-mail"));
    let without = Parcel::folded(&stream);
    stream.insert(1, json!({ "ParcelWeighedAgain": { "grams": 905 } }));
    assert_eq!(Parcel::folded(&stream), without);
    // Its schema stays, and says so.
    let schema = schemars::schema_for!(ParcelEvent).to_value();
    let variants = schema["oneOf"].as_array().unwrap();
    let of = |name: &str| {
        variants
            .iter()
            .find(|variant| variant["properties"][name].is_object())
    };
    assert_eq!(of("ParcelWeighedAgain").unwrap()["deprecated"], true);
    assert!(of("ParcelSent").unwrap()["deprecated"].is_null());
}

#[test]
fn an_event_whose_type_was_deleted_stops_its_readers() {
    // The reason why a retired type stays in the code: this is what every log that holds one would meet.
    let gone = json!({ "ReturnMislaid": { "return_id": RETURN } });
    let read = read("ReturnMislaid", "1.0", &gone, &Upcasters::shipped());
    assert!(matches!(read, Err(DecodeError::Newer { .. })), "{read:?}");
}
