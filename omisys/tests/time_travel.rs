//! The past of an order, over HTTP and on the command line: what it was, when, and who made it so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use common::{Demo, Profile};
use serde_json::{Value, json};
use testkit::{User, until};

/// An order that was paid and sent, its id, and its timeline.
async fn shipped(demo: &Demo, owner: &User) -> (String, Vec<Value>) {
    demo.staff.stock_product("PAST", 1000, 5).await;
    owner.add_to_cart("PAST", 1).await.expect(200);
    let bought = owner.check_out("tok_ok", 10).await.expect(201).json();
    let id = bought["order"]["id"].as_str().unwrap().to_owned();
    until("the order is paid", || async {
        (owner.order_status(&id).await.as_deref() == Some("paid")).then_some(())
    })
    .await;
    let parcel = json!({ "lines": [{ "line_no": 1, "quantity": 1 }], "carrier": "post" });
    let shipments = format!("/v1/orders/{id}/shipments");
    demo.staff.post(&shipments, &parcel).await.expect(201);
    let path = format!("/v1/orders/{id}/timeline");
    let entries = until("the timeline tells that the goods have left", || async {
        let timeline = owner.get(&path).await.json();
        let entries = timeline["entries"].as_array().cloned().unwrap_or_default();
        let told = |event: &str| entries.iter().any(|entry| entry["type"] == event);
        (told("ShipmentDispatched") && told("ReservationCommitted")).then_some(entries)
    })
    .await;
    (id, entries)
}

/// The version that an entry of the order's own made; none for one of its payment or stock.
fn version(entry: &Value) -> Option<u64> {
    let id = entry["event_id"].as_str().unwrap();
    let (_, sequence) = id.strip_prefix("order/")?.rsplit_once('/')?;
    Some(sequence.parse().unwrap())
}

/// What the last of these entries that changes the status of an aggregate of this kind says of it.
fn status(entries: &[Value], kind: &str) -> Value {
    let of_kind = |entry: &&Value| entry["event_id"].as_str().unwrap().starts_with(kind);
    let mut changes = entries
        .iter()
        .filter(of_kind)
        .flat_map(|entry| entry["changes"].as_array().unwrap());
    let last = changes.rfind(|change| change["what"] == "status");
    last.map_or(Value::Null, |change| change["after"].clone())
}

fn without_moment(mut document: Value) -> Value {
    document.as_object_mut().unwrap().remove("as_of");
    document
}

async fn an_order_is_read_as_it_was(profile: Profile) {
    let demo = Demo::start(profile).await;
    let (owner, stranger) = (demo.shop.guest().await, demo.shop.guest().await);
    let (id, entries) = shipped(&demo, &owner).await;
    let path = |as_of: &str| format!("/v1/orders/{id}?as_of={as_of}");
    let mut versions = 0;
    for (index, entry) in entries.iter().enumerate() {
        let at = entry["at"].as_str().unwrap();
        // Events of one commit have one time.
        let by_then = entries.iter().filter(|other| other["at"].as_str().unwrap() <= at);
        let at_time = owner.get(&path(at)).await.expect(200).json();
        assert_eq!(
            at_time["version"],
            json!(by_then.filter_map(version).max().unwrap())
        );
        let Some(version) = version(entry) else { continue };
        versions += 1;
        let was = owner.get(&path(&version.to_string())).await.expect(200).json();
        assert_eq!(was["as_of"], json!({ "version": version, "recorded_at": at }));
        assert_eq!(was["version"], version);
        let before = &entries[..=index];
        assert_eq!(was["status"], status(before, "order/"), "{entry}");
        // The order knows of its payment before the payment's first event.
        let required = before.iter().any(|entry| entry["type"] == "PaymentRequired");
        let payment = match status(before, "payment/") {
            Value::Null if required => "requested".into(),
            status => status,
        };
        assert_eq!(was["payment"]["status"], payment, "{entry}");
        assert_eq!(
            demo.staff
                .get(&path(&version.to_string()))
                .await
                .expect(200)
                .json(),
            was
        );
        assert_eq!(stranger.get(&path(&version.to_string())).await.status, 404);
    }
    assert_eq!(status(&entries, "order/"), "shipped");
    // Another view than the timeline, which may be behind it.
    let live = until("the order is shown at its last version", || async {
        let live = owner.get(&format!("/v1/orders/{id}")).await.expect(200).json();
        (live["version"] == versions).then_some(live)
    })
    .await;
    for as_of in [versions.to_string(), "2099-01-01T00:00:00Z".to_owned()] {
        let present = owner.get(&path(&as_of)).await.expect(200).json();
        assert_eq!(without_moment(present), live, "{as_of}");
    }
    for as_of in [(versions + 1).to_string(), "2020-01-01T00:00:00Z".to_owned()] {
        owner.get(&path(&as_of)).await.expect(404);
        stranger.get(&path(&as_of)).await.expect(404);
    }
}

async fn the_command_line_shows_an_aggregate_as_it_was(profile: Profile) {
    let demo = Demo::start(profile).await;
    let owner = demo.shop.guest().await;
    let (id, entries) = shipped(&demo, &owner).await;
    let stream = format!("order/{id}");
    let own: Vec<&Value> = entries.iter().filter(|entry| version(entry).is_some()).collect();
    let show = |as_of: &str, json: bool| {
        let mut arguments = vec!["events", "show", &stream, "--as-of", as_of];
        arguments.extend(json.then_some("--json"));
        let output = demo.omisys(&arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for (index, entry) in own.iter().enumerate() {
        let (code, told, _) = show(&(index + 1).to_string(), true);
        let lines: Vec<Value> = told
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!((code, lines.len()), (Some(0), index + 1));
        assert_eq!(lines[index]["id"], entry["event_id"]);
        let at = entry["at"].as_str().unwrap();
        let by_then = own
            .iter()
            .filter(|other| other["at"].as_str().unwrap() <= at)
            .count();
        assert_eq!(show(at, true).1.lines().count(), by_then);
    }
    let (_, told, _) = show("2", false);
    let at = own[1]["at"].as_str().unwrap();
    assert!(
        told.ends_with(&format!("{stream} stood at version 2, since {at}\n")),
        "{told}"
    );
    let cause = own[1]["caused_by"].as_str().unwrap();
    assert!(
        told.contains("RecordLineReserved by system") && told.contains(&format!("because of {cause}")),
        "{told}"
    );
    let (_, told, _) = show(&own.len().to_string(), false);
    assert!(
        told.contains(&format!("{stream} stands at version {}", own.len())),
        "{told}"
    );
    for (as_of, expected) in [
        ("999", 1),
        ("2020-01-01T00:00:00Z", 1),
        ("yesterday", 2),
        ("0", 2),
    ] {
        let (code, _, said) = show(as_of, true);
        assert_eq!(code, Some(expected), "{as_of}: {said}");
        assert!(said.starts_with("error:"), "{as_of}: {said}");
    }
}

common::on_both_profiles!(
    an_order_is_read_as_it_was,
    the_command_line_shows_an_aggregate_as_it_was,
);
