//! `/v1/orders/{id}?as_of=`: whose past it is, which moment it is, and what cannot be told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use event_schemas::{
    Actor, ActorKind, Anomaly, Code, LineQuantity, OrderEvent, PaymentEvent, ProviderRef, ShipmentId,
};
use identity::verifier::Role;
use serde_json::{Value, json};
use sqlite_file::SqliteError;
use support::{
    Shop, order, order_id, paid, payment, payment_captured, payment_required, person, placed, start,
};

/// When Ann's order was placed; each step after it a minute later.
const PLACED: &str = "2026-03-01T12:00:00Z";

fn path(as_of: &str) -> String {
    format!("/v1/orders/{}?as_of={as_of}", order_id(1))
}

/// Ann (1) has order 1: placed at 12:00, payment required at :01, paid by its payment at :02, which the order knows at :03,
/// sent at :04. Answers, with each minute's document as it was live.
async fn told() -> (Shop, Vec<Value>) {
    let shop = start().await;
    let ann = shop.token(Role::Customer, 1).await;
    let (customer, system) = (person(ActorKind::Customer, 1), Actor::system("policy"));
    let mut live = Vec::new();
    let mut seen = async |shop: &Shop| {
        live.push(
            shop.get(&format!("/v1/orders/{}", order_id(1)), &ann)
                .await
                .json(),
        );
        shop.clock.advance(Duration::from_secs(60));
    };
    let at = PLACED.parse().unwrap();
    shop.tell(order(1), &customer, [placed(1, 1, 2, "GB", at)]).await;
    seen(&shop).await;
    shop.tell(order(1), &system, [payment_required(1, 1_000)]).await;
    seen(&shop).await;
    shop.tell(payment(1), &system, payment_captured(1, 1_000)).await;
    seen(&shop).await;
    shop.tell(order(1), &system, [paid(1, 1_000)]).await;
    seen(&shop).await;
    let shipped = OrderEvent::ShipmentDispatched {
        shipment_id: ShipmentId::from_uuid(uuid::Uuid::from_u128(7)),
        lines: vec![LineQuantity {
            line_no: 1,
            quantity: 2,
        }],
        carrier: Code::new("post").unwrap(),
        tracking_number: None,
    };
    shop.tell(order(1), &person(ActorKind::Staff, 9), [shipped]).await;
    seen(&shop).await;
    (shop, live)
}

/// The document without the moment, and the moment.
fn split(mut document: Value) -> (Value, Value) {
    let moment = document.as_object_mut().unwrap().remove("as_of").unwrap();
    (document, moment)
}

#[tokio::test]
async fn an_order_is_shown_as_it_was_at_a_version_and_at_a_time() {
    let (shop, live) = told().await;
    let ann = shop.token(Role::Customer, 1).await;
    let get = async |as_of: &str| split(shop.get(&path(as_of), &ann).await.json());
    // The payment came after version 2 and before version 3.
    for (version, minute) in [(1, 0), (2, 1), (3, 3), (4, 4)] {
        let (document, moment) = get(&version.to_string()).await;
        assert_eq!(document, live[minute], "version {version}");
        let recorded_at = format!("2026-03-01T12:0{minute}:00Z");
        assert_eq!(moment, json!({ "version": version, "recorded_at": recorded_at }));
    }
    for (minute, document) in live.iter().enumerate() {
        for second in ["00", "59.999999"] {
            let time = format!("2026-03-01T12:0{minute}:{second}Z");
            let (then, moment) = get(&time).await;
            assert_eq!(then, *document, "{time}");
            assert_eq!(
                (&moment["time"], &moment["version"]),
                (&json!(time), &document["version"])
            );
        }
    }
    // Another spelling of 12:02, and a time to come, which is now.
    assert_eq!(get("2026-03-01T13:02:00%2B01:00").await.0, live[2]);
    let (present, moment) = get("2099-01-01T00:00:00Z").await;
    assert_eq!(present, live[4]);
    assert_eq!(moment["time"], "2026-03-01T12:05:00Z");
    // Before it was placed, and a version that it has not come to.
    let early = shop.get(&path("2026-03-01T11:59:59.999999Z"), &ann).await;
    assert!(
        early.expect_problem(404, "not-found")["detail"]
            .to_string()
            .contains(PLACED)
    );
    let beyond = shop.get(&path("5"), &ann).await.expect_problem(404, "not-found");
    assert_eq!(beyond["detail"], "the order is at version 4");
}

#[tokio::test]
async fn the_past_is_its_owners_and_the_staffs() {
    let (shop, _) = told().await;
    let (ann, bob, staff) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
        shop.token(Role::Staff, 9).await,
    );
    let moments = [
        "1",
        "4",
        "5",
        "9999",
        "2026-03-01T11:00:00Z",
        "2026-03-01T12:02:00Z",
        "2099-01-01T00:00:00Z",
    ];
    for as_of in moments {
        let says = async |path: &str, token: &str| {
            let mut problem = shop.get(path, token).await.expect_problem(404, "not-found");
            let members = problem.as_object_mut().unwrap();
            members.remove("trace_id");
            members.remove("instance");
            problem
        };
        let of_nobody = format!("/v1/orders/{}?as_of={as_of}", order_id(77));
        // Nothing tells an order of somebody else's from one that is not there.
        assert_eq!(
            says(&path(as_of), &bob).await,
            says(&of_nobody, &bob).await,
            "{as_of}"
        );
        says(&of_nobody, &staff).await;
        shop.ask(&path(as_of), None, &[])
            .await
            .expect_problem(401, "unauthorized");
    }
    let seen_by = async |token: &str| shop.get(&path("4"), token).await.json();
    assert_eq!(seen_by(&ann).await, seen_by(&staff).await);
}

#[tokio::test]
async fn a_moment_that_is_none_is_refused_before_anything_is_read() {
    let (shop, _) = told().await;
    let (ann, bob) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
    );
    for as_of in [
        "",
        "0",
        "-1",
        "1.5",
        "03",
        "%2B3",
        "now",
        "2026-03-01",
        "2026-03-01T12:00:00",
        "99999999999999999999",
    ] {
        for token in [&ann, &bob] {
            let problem = shop
                .get(&path(as_of), token)
                .await
                .expect_problem(400, "malformed-request");
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("version") && detail.contains("time"),
                "{as_of}: {detail}"
            );
        }
    }
    shop.get(&format!("{}&as_of=2", path("1")), &ann)
        .await
        .expect_problem(400, "malformed-request");
    // The past is not waited for.
    let token = shop
        .append(
            order(2),
            &person(ActorKind::Customer, 1),
            [placed(2, 1, 1, "GB", PLACED.parse().unwrap())],
        )
        .await
        .to_string();
    let both = shop.get(&format!("{}&at_least={token}", path("1")), &ann).await;
    both.expect_problem(400, "malformed-request");
    let header = [("omisys-at-least", token.as_str())];
    shop.ask(&path("1"), Some(&ann), &header)
        .await
        .expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn the_past_is_kept_by_entity_tag_and_for_its_reader_only() {
    let (shop, _) = told().await;
    let ann = shop.token(Role::Customer, 1).await;
    let reply = shop.get(&path("2"), &ann).await;
    let tag = reply.header("etag").unwrap().to_owned();
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    for (as_of, status) in [("2", 304), ("3", 200), ("2026-03-01T12:01:00Z", 200)] {
        let reply = shop
            .ask(&path(as_of), Some(&ann), &[("if-none-match", &tag)])
            .await;
        assert_eq!(reply.status, status, "{as_of}");
    }
    let bob = shop.token(Role::Customer, 2).await;
    let reply = shop.ask(&path("2"), Some(&bob), &[("if-none-match", "*")]).await;
    reply.expect_problem(404, "not-found");
}

/// The read models may be behind: the past is in the log.
#[tokio::test]
async fn the_past_is_told_while_the_read_models_are_behind() {
    let (mut shop, live) = told().await;
    let ann = shop.token(Role::Customer, 1).await;
    shop.freeze().await;
    shop.append(
        order(1),
        &person(ActorKind::Staff, 9),
        [OrderEvent::OrderCompleted {}],
    )
    .await;
    let now = shop
        .get(&format!("/v1/orders/{}", order_id(1)), &ann)
        .await
        .json();
    assert_eq!(now, live[4]);
    let (document, _) = split(shop.get(&path("5"), &ann).await.json());
    assert_eq!(document["status"], "completed");
    shop.append(
        order(3),
        &person(ActorKind::Customer, 1),
        [placed(3, 1, 1, "GB", PLACED.parse().unwrap())],
    )
    .await;
    let unseen = format!("/v1/orders/{}", order_id(3));
    shop.get(&unseen, &ann).await.expect_problem(404, "not-found");
    assert_eq!(
        shop.get(&format!("{unseen}?as_of=1"), &ann).await.json()["status"],
        "placed"
    );
}

async fn rewrite(shop: &Shop, sql: &'static str) {
    let changed = shop
        .log_file
        .write(move |conn| Ok::<_, SqliteError>(conn.execute(sql, [])?))
        .await
        .unwrap();
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_hides_what_comes_after_it_only() {
    let (shop, live) = told().await;
    let (ann, bob, staff) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
        shop.token(Role::Staff, 9).await,
    );
    // A newer binary wrote the last event, and the one before is broken.
    rewrite(
        &shop,
        "UPDATE events SET event_version = '9.0' WHERE aggregate_type = 'order' AND sequence = 4",
    )
    .await;
    let newer = shop.get(&path("4"), &ann).await;
    newer.expect_problem(503, "unavailable");
    assert_eq!(newer.header("retry-after"), Some("1"));
    rewrite(&shop, "UPDATE events SET payload = '{\"OrderPaid\":{\"secret\":7}}' WHERE aggregate_type = 'order' AND sequence = 3").await;
    for as_of in ["3", "4", "2099-01-01T00:00:00Z"] {
        let reply = shop.get(&path(as_of), &ann).await;
        reply.expect_problem(500, "internal");
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(
            !["OrderPaid", "secret", "payment_id", "position"]
                .iter()
                .any(|inside| text.contains(inside)),
            "{text}"
        );
        shop.get(&path(as_of), &bob)
            .await
            .expect_problem(404, "not-found");
    }
    assert_eq!(split(shop.get(&path("2"), &ann).await.json()).0, live[1]);
    // Nobody can tell whose an order is without its first event.
    rewrite(
        &shop,
        "UPDATE events SET payload = '{\"OrderPlaced\":{}}' WHERE aggregate_type = 'order' AND sequence = 1",
    )
    .await;
    for token in [&ann, &bob] {
        shop.get(&path("2"), token).await.expect_problem(404, "not-found");
    }
    shop.get(&path("2"), &staff).await.expect_problem(500, "internal");
}

#[tokio::test]
async fn a_history_without_end_is_not_folded_for_one_answer() {
    let (mut shop, live) = told().await;
    let ann = shop.token(Role::Customer, 1).await;
    shop.freeze().await;
    let anomaly = || PaymentEvent::ProviderAnomalyRecorded {
        order_id: order_id(1),
        attempt: 1,
        provider_ref: ProviderRef::new("ch_1").unwrap(),
        kind: Anomaly::UnknownAttempt { reported: 2 },
    };
    for _ in 0..10 {
        shop.append(
            payment(1),
            &Actor::system("report"),
            (0..1_000).map(|_| anomaly()),
        )
        .await;
    }
    shop.get(&path("2099-01-01T00:00:00Z"), &ann)
        .await
        .expect_problem(422, "history-too-long");
    // They came later than that.
    assert_eq!(split(shop.get(&path("4"), &ann).await.json()).0, live[4]);
}
