//! The promises, kept by the whole system over HTTP: sold once, charged once, nothing lost, anyone can see why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use common::{Demo, Profile};
use serde_json::{Value, json};
use testkit::{Reply, User, until};
use tokio::task::JoinSet;

async fn stock(demo: &Demo, sku: &str) -> Value {
    demo.staff
        .get(&format!("/v1/inventory/{sku}"))
        .await
        .expect(200)
        .json()
}

/// Waits until every one of these users' orders is paid or cancelled; answers their documents.
async fn settled(orders: &[(User, String)]) -> Vec<Value> {
    let mut documents = Vec::new();
    for (user, id) in orders {
        let path = format!("/v1/orders/{id}");
        documents.push(
            until("the order is paid or cancelled", || async {
                let order = user.get(&path).await.json();
                matches!(order["status"].as_str(), Some("paid" | "cancelled")).then_some(order)
            })
            .await,
        );
    }
    documents
}

fn with_status(orders: &[Value], status: &str) -> usize {
    orders.iter().filter(|order| order["status"] == status).count()
}

async fn the_last_unit_is_sold_once(profile: Profile) {
    const STOCK: u32 = 100;
    const BUYERS: usize = 500;
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("LAST", 1999, STOCK).await;
    let mut guests = JoinSet::new();
    for _ in 0..BUYERS {
        let shop = demo.shop.clone();
        guests.spawn(async move {
            let guest = shop.guest().await;
            guest.add_to_cart("LAST", 1).await;
            guest
        });
    }
    let mut buyers = JoinSet::new();
    for (number, guest) in guests.join_all().await.into_iter().enumerate() {
        buyers.spawn(async move {
            let key = format!("buyer-{number}");
            // All at once may be too much for the machine; whoever is told so asks again, under the same key.
            let reply = until("there is room for the check-out", || async {
                let reply = guest.check_out_as(&key, "tok_ok", 10).await;
                (reply.status != 503).then_some(reply)
            })
            .await;
            let order = reply.expect(201).json();
            (guest, order["order"]["id"].as_str().unwrap().to_owned())
        });
    }
    let orders = settled(&buyers.join_all().await).await;
    assert_eq!(with_status(&orders, "paid"), STOCK as usize);
    let cancelled: Vec<_> = orders
        .iter()
        .filter(|order| order["status"] == "cancelled")
        .collect();
    assert_eq!(cancelled.len(), BUYERS - STOCK as usize);
    assert!(
        cancelled
            .iter()
            .all(|order| order["cancelled"].to_string().contains("out-of-stock")),
        "{}",
        cancelled[0]
    );
    until("the stock shows 100 reserved and none left", || async {
        let stock = stock(&demo, "LAST").await;
        (stock["available"] == 0 && stock["reserved"] == STOCK && stock["on_hand"] == STOCK).then_some(())
    })
    .await;
    assert_eq!(demo.audit()["breaches"], json!([]));
}

async fn one_cart_checked_out_fifty_times_is_one_order(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("CART-50", 500, 1000).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("CART-50", 2).await.expect(200);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let guest = guest.clone();
        calls.spawn(async move { guest.check_out("tok_ok", 0).await });
    }
    let replies = calls.join_all().await;
    let placed: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(
        placed.len(),
        1,
        "every key but one hears that the cart is checked out"
    );
    assert!(
        replies
            .iter()
            .all(|reply| [201, 409, 422].contains(&reply.status.as_u16()))
    );
    let order = placed[0].json()["order"]["id"].as_str().unwrap().to_owned();
    settled(&[(guest.clone(), order.clone())]).await;
    let listed = guest.get("/v1/orders").await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["order_id"], order.as_str());
}

async fn one_key_sent_fifty_times_has_one_outcome(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("KEY-50", 500, 1000).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("KEY-50", 2).await.expect(200);
    let key = demo.shop.fresh_key();
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (guest, key) = (guest.clone(), key.clone());
        calls.spawn(async move { guest.check_out_as(&key, "tok_ok", 0).await.expect(201) });
    }
    let replies = calls.join_all().await;
    let replayed = |reply: &&Reply| reply.header("idempotent-replayed") == Some("true");
    assert_eq!(replies.iter().filter(replayed).count(), 49);
    let receipt = |reply: &Reply| {
        let reply = reply.json();
        (
            reply["id"].clone(),
            reply["version"].clone(),
            reply["consistency_token"].clone(),
            reply["order"]["id"].clone(),
        )
    };
    assert!(replies.iter().all(|reply| receipt(reply) == receipt(&replies[0])));
    guest.check_out_as(&key, "tok_declined", 0).await.expect(422);
    let order = replies[0].json()["order"]["id"].as_str().unwrap().to_owned();
    let orders = settled(&[(guest, order)]).await;
    assert_eq!(orders[0]["status"], "paid");
    assert_eq!(demo.audit()["breaches"], json!([]));
}

async fn a_cancel_races_with_reserve_and_capture_and_money_is_conserved(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("RACE-A", 700, 10_000).await;
    demo.staff.stock_product("RACE-B", 300, 10_000).await;
    let mut calls = JoinSet::new();
    for round in 0..60_u32 {
        let shop = demo.shop.clone();
        calls.spawn(async move {
            let guest = shop.guest().await;
            guest.add_to_cart("RACE-A", 1).await;
            guest.add_to_cart("RACE-B", 2).await;
            // Some cancels meet the order before its reservations, some at its capture, some after it was paid.
            let token = if round % 3 == 0 {
                "tok_captured_late"
            } else {
                "tok_ok"
            };
            let order = guest.check_out(token, 0).await.expect(201).json()["order"]["id"]
                .as_str()
                .unwrap()
                .to_owned();
            for _ in 0..round % 6 {
                guest.get(&format!("/v1/orders/{order}")).await;
            }
            let cancelled = guest
                .post(&format!("/v1/orders/{order}/cancel"), &json!({}))
                .await;
            (guest, order, cancelled.status.as_u16())
        });
    }
    let outcomes = calls.join_all().await;
    assert!(
        outcomes.iter().all(|(.., status)| [200, 409].contains(status)),
        "{outcomes:?}"
    );
    let orders: Vec<_> = outcomes
        .into_iter()
        .map(|(guest, order, _)| (guest, order))
        .collect();
    let documents = settled(&orders).await;
    assert!(with_status(&documents, "cancelled") > 0);
    // Whatever the interleaving: what was captured for a cancelled order is refunded in full, and nothing stays held.
    until("the audit finds no breach", || async {
        (demo.audit()["breaches"] == json!([])).then_some(())
    })
    .await;
    until("only paid orders hold stock", || async {
        let paid = with_status(&settled(&orders).await, "paid") as u64;
        (stock(&demo, "RACE-A").await["reserved"] == paid
            && stock(&demo, "RACE-B").await["reserved"] == 2 * paid)
            .then_some(())
    })
    .await;
}

async fn sandbox_tokens_do_what_they_say(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("TOKENS", 1000, 1000).await;
    for (token, status) in [
        ("tok_ok", "paid"),
        ("tok_slow", "paid"),
        ("tok_timeout_then_ok", "paid"),
        ("tok_captured_late", "paid"),
    ] {
        let guest = demo.shop.guest().await;
        guest.add_to_cart("TOKENS", 1).await;
        let order = guest.check_out(token, 1).await.expect(201).json()["order"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(settled(&[(guest, order)]).await[0]["status"], status, "{token}");
    }
    // Declined: the customer may try again with another token until the deadline.
    let guest = demo.shop.guest().await;
    guest.add_to_cart("TOKENS", 1).await;
    let reply = guest.check_out("tok_declined", 10).await.expect(201).json();
    let (order, payment) = (&reply["order"]["id"], &reply["order"]["payment"]["id"]);
    assert_eq!(reply["order"]["payment"]["status"], "declined", "{reply}");
    let retry = json!({ "payment": { "method": "sandbox", "token": "tok_ok" } });
    guest
        .post(
            &format!("/v1/payments/{}/retry", payment.as_str().unwrap()),
            &retry,
        )
        .await
        .expect(200);
    let orders = settled(&[(guest, order.as_str().unwrap().to_owned())]).await;
    assert_eq!(orders[0]["status"], "paid");
}

async fn anyone_can_see_why(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("WHY", 1000, 5).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("WHY", 1).await;
    let reply = guest.check_out("tok_ok", 10).await.expect(201).json();
    assert_eq!(reply["order"]["status"], "paid", "{reply}");
    let order = reply["order"]["id"].as_str().unwrap();
    let token = reply["consistency_token"].as_str().unwrap();
    let timeline = until("the timeline shows the payment", || async {
        let timeline = guest
            .get(&format!("/v1/orders/{order}/timeline?at_least={token}"))
            .await
            .expect(200)
            .json();
        timeline.to_string().contains("\"OrderPaid\"").then_some(timeline)
    })
    .await;
    let text = timeline.to_string();
    for event in [
        "OrderPlaced",
        "StockReserved",
        "LineReserved",
        "PaymentRequired",
        "PaymentRequested",
        "PaymentCaptured",
        "OrderPaid",
    ] {
        assert!(
            text.contains(&format!("\"{event}\"")),
            "{event} is missing: {text}"
        );
    }
    let shown = demo.omisys(&["events", "show", &format!("order/{order}"), "--json"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let events: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events[0]["type"], "OrderPlaced");
    assert!(
        events
            .iter()
            .all(|event| event["metadata"]["command_id"].is_string()),
        "{shown}"
    );
    assert!(
        events
            .iter()
            .skip(1)
            .all(|event| event["metadata"]["causation_id"].is_string()),
        "{shown}"
    );
}

common::on_both_profiles!(
    the_last_unit_is_sold_once,
    one_cart_checked_out_fifty_times_is_one_order,
    one_key_sent_fifty_times_has_one_outcome,
    a_cancel_races_with_reserve_and_capture_and_money_is_conserved,
    sandbox_tokens_do_what_they_say,
    anyone_can_see_why,
);
