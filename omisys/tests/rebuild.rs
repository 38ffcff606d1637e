//! Read models that are folded again by the real binary, beside a system that sells and is read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Demo, Profile};
use serde_json::{Value, json};
use testkit::{Shop, until};

const VIEWS: usize = 7;

common::on_both_profiles!(views_are_rebuilt_beside_a_system_that_sells);

/// Runs a subcommand while everybody else goes on.
fn aside(demo: &Demo, arguments: &[&str]) -> Output {
    tokio::task::block_in_place(|| demo.omisys(arguments))
}

fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Buys until told to stop, and reads each order again and again: no read fails, and none shows less than one before it.
async fn sell(shop: Shop, done: Arc<AtomicBool>) -> usize {
    let mut orders = 0;
    while !done.load(Ordering::Relaxed) {
        let buyer = shop.guest().await;
        buyer.add_to_cart("AGAIN", 1).await.expect(200);
        let bought = buyer.check_out("tok_ok", 0).await.expect(201).json();
        let path = format!("/v1/orders/{}", bought["order"]["id"].as_str().unwrap());
        let token = bought["consistency_token"].as_str().unwrap();
        let first = buyer
            .get(&format!("{path}?at_least={token}"))
            .await
            .expect(200)
            .json();
        let mut version = first["version"].as_u64().unwrap();
        loop {
            let now = buyer.get(&path).await.expect(200).json();
            let later = now["version"].as_u64().unwrap();
            assert!(later >= version, "{later} after {version}: {now}");
            version = later;
            if now["status"] == "paid" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        orders += 1;
    }
    orders
}

async fn views_are_rebuilt_beside_a_system_that_sells(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("AGAIN", 100, 100_000).await;
    let done = Arc::new(AtomicBool::new(false));
    let selling: Vec<_> = (0..3)
        .map(|_| tokio::spawn(sell(demo.shop.clone(), Arc::clone(&done))))
        .collect();

    let rebuilt = lines(&aside(&demo, &["rebuild", "--all", "--json"]));
    assert_eq!(rebuilt.len(), VIEWS);
    for view in &rebuilt {
        assert_eq!(
            (&view["serving"], &view["equal"]),
            (&json!(true), &json!(true)),
            "{view}"
        );
        assert_eq!(view["generation"], 2, "{view}");
        assert!(
            view["events"].as_u64().unwrap() > 0 && view["seconds"].is_number(),
            "{view}"
        );
    }
    let generations = lines(&aside(&demo, &["generations", "list", "--json"]));
    for generation in &generations {
        let is_new = generation["generation"] == 2;
        assert_eq!(generation["serving"], is_new, "{generation}");
        assert_eq!(generation["stage"], "following", "{generation}");
    }

    // The same, asked for over HTTP.
    let customer = demo.shop.guest().await;
    let path = "/ops/projections/orders/rebuild";
    customer.post(path, &json!({})).await.expect(403);
    demo.staff
        .post("/ops/projections/nothing/rebuild", &json!({}))
        .await
        .expect(404);
    let asked = demo.staff.post(path, &json!({})).await.expect(202).json();
    assert_eq!(asked, json!({ "view": "orders", "generation": 3 }));
    until("the generation that was asked for is read", || async {
        let shown = demo.staff.get("/ops/projections").await.expect(200).json();
        let projections = shown["projections"].as_array().unwrap().clone();
        let orders = projections.iter().find(|view| view["view"] == "orders").unwrap();
        (orders["generation"] == 3).then_some(())
    })
    .await;

    // Nobody takes away what somebody may still read.
    let early = aside(&demo, &["generations", "drop", "orders.g2"]);
    assert_eq!(early.status.code(), Some(1), "{early:?}");
    let text = String::from_utf8_lossy(&early.stderr);
    assert!(text.contains("moment ago"), "{text}");

    done.store(true, Ordering::Relaxed);
    for seller in selling {
        assert!(seller.await.unwrap() > 0);
    }
    until("every view is what the log folds to", || async {
        let verified = aside(&demo, &["rebuild", "--all", "--verify", "--json"]);
        (verified.status.code() == Some(0)).then_some(())
    })
    .await;
}

/// Killed at some moment, the next run takes the build up, once nobody can still be at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_is_killed_is_taken_up() {
    let demo = Demo::start(Profile::Embedded).await;
    demo.staff.stock_product("AGAIN", 100, 100).await;
    let data = demo.directory.path().join("data");
    let mut killed = Command::new(common::binary())
        .args(["rebuild", "orders", "--data-dir"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the build has begun", || async {
        let generations = lines(&aside(&demo, &["generations", "list", "--json"]));
        let begun = |generation: &Value| generation["name"] == "orders.g2";
        generations.iter().any(begun).then_some(())
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    // A projector takes it up, or the command line does: whoever is first.
    until("what was begun is read", || async {
        let again = aside(&demo, &["rebuild", "orders", "--json"]);
        (again.status.code() == Some(0)).then_some(())
    })
    .await;
    let verified = aside(&demo, &["rebuild", "orders", "--verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}
