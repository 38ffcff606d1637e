//! `kill -9` at random moments under load: what was acknowledged is there, once, and what was begun is finished.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::time::Duration;

use common::{Demo, Profile, omisys};
use event_schemas::{Clock, PaymentId};
use sagas::provider::{SandboxOptions, SandboxProvider};
use serde_json::{Value, json};
use testkit::{User, until};
use tokio::task::JoinSet;

/// Kills in one run; more on demand: `OMISYS_TEST_KILLS=500 cargo test -p omisys --test kills`.
const KILLS: u32 = 50;
const BUYERS: usize = 8;

/// A checkout that a client sent, under a key that it keeps until it has an answer.
struct Attempt {
    user: User,
    key: String,
    /// The order that the server acknowledged.
    acknowledged: Option<String>,
}

/// Buys until the server is gone.
async fn buy(shop: testkit::Shop, sku: &'static str) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while let Ok(Some(attempt)) = buy_once(&shop, sku, &mut attempts).await {
        attempts.push(attempt);
    }
    attempts
}

async fn buy_once(
    shop: &testkit::Shop,
    sku: &str,
    unanswered: &mut Vec<Attempt>,
) -> Result<Option<Attempt>, testkit::ClientError> {
    let nobody = shop.anonymous();
    let guest = nobody
        .try_request(http::Method::POST, "/auth/guest", None, &[], Some(&json!({})))
        .await?
        .json();
    let user = nobody.signed_in(&guest);
    let item = json!({ "sku": sku, "quantity": 1 });
    user.try_request(
        http::Method::POST,
        "/v1/carts/mine/items",
        Some(&shop.fresh_key()),
        &[],
        Some(&item),
    )
    .await?;
    let key = shop.fresh_key();
    match user.try_check_out(&key, "tok_ok", 0).await {
        Ok(reply) if reply.status == 201 => {
            let order = reply.json()["order"]["id"].as_str().map(str::to_owned);
            Ok(Some(Attempt {
                user,
                key,
                acknowledged: order,
            }))
        }
        Ok(reply) => panic!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)),
        Err(error) => {
            unanswered.push(Attempt {
                user,
                key,
                acknowledged: None,
            });
            Err(error)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_fifty_kills() {
    let kills = std::env::var("OMISYS_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let mut demo = Demo::start(Profile::Embedded).await;
    demo.staff.stock_product("KILL", 250, 1_000_000).await;
    let mut attempts: Vec<Attempt> = Vec::new();
    for round in 0..kills {
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            buyers.spawn(buy(demo.shop.clone(), "KILL"));
        }
        // Where in the work the kill falls differs from round to round.
        let acknowledged = u64::from(round * 7 % 23);
        let moment = Duration::from_micros(5_000 + acknowledged * 4_700 + u64::from(round) * 331);
        tokio::time::sleep(moment).await;
        let directory = demo.kill().await;
        for bought in buyers.join_all().await {
            attempts.extend(bought);
        }
        demo = Demo::start_in(directory, &format!("round-{round}"), &[]).await;
    }
    assert!(
        attempts.len() > kills as usize,
        "the load was too small to say anything: {}",
        attempts.len()
    );
    // A client without an answer repeats under its key: its one order, whether or not the first try got through.
    let mut orders = Vec::new();
    for Attempt {
        user,
        key,
        acknowledged,
    } in attempts
    {
        let user = user.in_shop(&demo.shop);
        let reply = user.check_out_as(&key, "tok_ok", 0).await.expect(201);
        let order = reply.json()["order"]["id"].as_str().unwrap().to_owned();
        if let Some(acknowledged) = acknowledged {
            assert_eq!(
                reply.header("idempotent-replayed"),
                Some("true"),
                "an acknowledged checkout was lost"
            );
            assert_eq!(acknowledged, order);
        }
        orders.push((user, order));
    }
    for (user, order) in &orders {
        until("every order is paid", || async {
            (user.order_status(order).await.as_deref() == Some("paid")).then_some(())
        })
        .await;
    }
    let distinct: std::collections::HashSet<_> = orders.iter().map(|(_, order)| order).collect();
    assert_eq!(distinct.len(), orders.len());
    let stock: Value = until("the stock shows every order once", || async {
        let stock = demo.staff.get("/v1/inventory/KILL").await.json();
        (stock["reserved"] == orders.len()).then_some(stock)
    })
    .await;
    assert_eq!(stock["on_hand"], 1_000_000);
    let data_dir = demo.directory.path().join("data");
    let report = demo.audit();
    assert_eq!(report["breaches"], json!([]));
    assert_eq!(report["orders"].as_u64().unwrap(), orders.len() as u64);
    let directory = demo.kill().await;
    // The log, read by a program of its own, has the same view of every projection.
    let audit = omisys(&data_dir, &["audit", "--grace", "0", "--views", "--json"]);
    assert!(
        audit.status.success(),
        "{}",
        String::from_utf8_lossy(&audit.stdout)
    );
    drop(directory);
}

/// Lets the process die at `point`, repeats the checkout on a new one, and answers the demo, the buyer and the reply.
async fn die_during_checkout(point: &str) -> (Demo, User, Value) {
    let mut demo = Demo::start_with(&[("OMISYS_CRASH_AT", point)]).await;
    demo.staff.stock_product("DIE", 900, 10).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("DIE", 2).await.expect(200);
    let key = demo.shop.fresh_key();
    // Whether the answer gets out before the death depends on where it falls; the death itself must come.
    let _ = guest.try_check_out(&key, "tok_ok", 10).await;
    let died = tokio::time::timeout(testkit::DEADLINE, demo.server().wait()).await;
    assert!(!died.expect("the process dies").unwrap().success());
    let demo = Demo::start_in(demo.kill().await, "after", &[]).await;
    let guest = guest.in_shop(&demo.shop);
    let reply = guest.check_out_as(&key, "tok_ok", 10).await.expect(201).json();
    (demo, guest, reply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_between_the_appends_of_a_checkout_leaves_one_order() {
    let (demo, guest, reply) = die_during_checkout("checkout-between-appends").await;
    assert_eq!(reply["order"]["status"], "paid", "{reply}");
    let orders = until("the order is listed", || async {
        let orders = guest.get("/v1/orders").await.json()["items"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        (!orders.is_empty()).then_some(orders)
    })
    .await;
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0]["order_id"], reply["order"]["id"]);
    assert_eq!(
        (&demo.audit()["breaches"], &demo.audit()["orders"]),
        (&json!([]), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_between_charge_and_record_charges_once() {
    let (demo, guest, reply) = die_during_checkout("after-provider").await;
    let order = reply["order"]["id"].as_str().unwrap();
    until("the order is paid", || async {
        (guest.order_status(order).await.as_deref() == Some("paid")).then_some(())
    })
    .await;
    assert_eq!(demo.audit()["breaches"], json!([]));
    let payment: PaymentId = reply["order"]["payment"]["id"].as_str().unwrap().parse().unwrap();
    let directory = demo.kill().await;
    let sandbox = directory.path().join("data/sandbox.db");
    let sandbox = SandboxProvider::open(sandbox, Clock::System, SandboxOptions::default())
        .await
        .unwrap();
    assert_eq!(
        sandbox.charged(payment).await.unwrap(),
        1_800,
        "the provider's own books"
    );
}
