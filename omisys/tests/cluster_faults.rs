//! A cluster whose processes and servers are killed under load: what was acknowledged is there, once, what was begun is
//! finished, and the read models are what the log says.
#![cfg(feature = "cluster")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::Demo;
use http::Method;
use serde_json::{Value, json};
use testkit::{ClientError, Reply, ServerName, Servers, Service, Shop, User, cluster_is_to_be_tested, until};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Starts the servers that a test may kill.
const INFRA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/infra");
const BUYERS: usize = 4;
/// Of which one of two dies: those that write, each in its own way.
const KILLED_OF_TWO: [Service; 4] = [
    Service::CommandApi,
    Service::Relay,
    Service::Sagas,
    Service::Projector,
];
const STOCK: u32 = 1_000_000;
/// Checkouts that are acknowledged between two faults, so that each fault meets work under way.
const BETWEEN_FAULTS: usize = 10;

/// How long Kafka is away; more on demand: `OMISYS_TEST_KAFKA_AWAY_S=60`.
fn kafka_away() -> Duration {
    let seconds = std::env::var("OMISYS_TEST_KAFKA_AWAY_S").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(15))
}

/// A checkout that a client sent, under a key that it keeps until it has an answer.
struct Attempt {
    user: User,
    key: String,
    /// The order that was acknowledged.
    acknowledged: Option<String>,
}

/// Customers who buy all the time, whatever fails.
struct Load {
    buyers: JoinSet<Vec<Attempt>>,
    acknowledged: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Load {
    /// Customers of `demo` for a new product, of which there is always enough.
    async fn start(demo: &Demo, sku: &'static str) -> Self {
        demo.staff.stock_product(sku, 250, STOCK).await;
        let mut load = Self {
            buyers: JoinSet::new(),
            acknowledged: Arc::default(),
            over: Arc::default(),
        };
        for _ in 0..BUYERS {
            let (shop, acknowledged, over) = (
                demo.shop.clone(),
                Arc::clone(&load.acknowledged),
                Arc::clone(&load.over),
            );
            load.buyers.spawn(async move {
                let mut attempts = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    if let Ok(attempt) = buy(&shop, sku).await {
                        if attempt.acknowledged.is_some() {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        attempts.push(attempt);
                    } else {
                        // A client that hears nothing or 503 tries again a little later.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                attempts
            });
        }
        load
    }

    /// Waits until so many more checkouts have been acknowledged.
    async fn goes_on(&self, what: &str) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        until(&format!("checkouts are acknowledged {what}"), || async {
            (self.acknowledged.load(Ordering::Relaxed) >= from + BETWEEN_FAULTS).then_some(())
        })
        .await;
    }

    async fn stop(self) -> Vec<Attempt> {
        self.over.store(true, Ordering::Relaxed);
        self.buyers.join_all().await.into_iter().flatten().collect()
    }
}

/// One purchase; an error if it did not get as far as the checkout.
async fn buy(shop: &Shop, sku: &str) -> Result<Attempt, Option<ClientError>> {
    let ok = |reply: Reply| {
        if reply.status.is_success() {
            Ok(reply)
        } else {
            Err(None)
        }
    };
    let nobody = shop.anonymous();
    let guest = nobody
        .try_request(Method::POST, "/auth/guest", None, &[], Some(&json!({})))
        .await
        .map_err(Some)
        .and_then(ok)?;
    let user = nobody.signed_in(&guest.json());
    let item = json!({ "sku": sku, "quantity": 1 });
    let key = shop.fresh_key();
    user.try_request(Method::POST, "/v1/carts/mine/items", Some(&key), &[], Some(&item))
        .await
        .map_err(Some)
        .and_then(ok)?;
    let key = shop.fresh_key();
    let acknowledged = match user.try_check_out(&key, "tok_ok", 0).await {
        Ok(reply) if reply.status == 201 => reply.json()["order"]["id"].as_str().map(str::to_owned),
        Ok(reply) => {
            // Nothing else is a rule's business here: every unit is there, every cart is good.
            let status = reply.status.as_u16();
            assert!(
                [429, 500, 502, 503, 504].contains(&status),
                "{status}: {}",
                reply.json()
            );
            None
        }
        Err(_) => None,
    };
    Ok(Attempt {
        user,
        key,
        acknowledged,
    })
}

/// Once everything runs again: every attempt is one paid order, the stock counts each once, the audit finds nothing,
/// and the read models are a fold of the log.
async fn all_is_well(demo: &Demo, sku: &str, attempts: Vec<Attempt>) {
    let mut orders = Vec::new();
    for Attempt {
        user,
        key,
        acknowledged,
    } in attempts
    {
        let reply = until("the checkout is answered", || async {
            let reply = user.try_check_out(&key, "tok_ok", 0).await.ok()?;
            (reply.status == 201).then_some(reply)
        })
        .await;
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
            let reply = user.get(&format!("/v1/orders/{order}")).await;
            (reply.json()["status"] == "paid").then_some(())
        })
        .await;
    }
    let stock: Value = until("the stock shows every order once", || async {
        let stock = demo.staff.get(&format!("/v1/inventory/{sku}")).await.json();
        (stock["reserved"] == orders.len()).then_some(stock)
    })
    .await;
    assert_eq!(stock["on_hand"], STOCK);
    until(
        "the audit finds nothing, in the log or in the read models",
        || async {
            let output = demo.omisys(&["audit", "--grace", "0", "--views", "--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).ok()?;
            (report["breaches"] == json!([])).then_some(())
        },
    )
    .await;
    let audit = demo.audit();
    assert_eq!(audit["orders"], orders.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_is_killed_in_turn() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let mut demo = Demo::start_cluster(1, &[]).await;
    let load = Load::start(&demo, "KILLED").await;
    for service in Service::ALL {
        load.goes_on("before the kill").await;
        demo.cluster().kill(service.first()).await;
        demo.cluster().restart(service.first()).await.unwrap();
    }
    load.goes_on("after all kills").await;
    all_is_well(&demo, "KILLED", load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_each_service_are_harmless_and_one_of_them_may_die() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let mut demo = Demo::start_cluster(2, &[]).await;
    let load = Load::start(&demo, "TWINS").await;
    for service in KILLED_OF_TWO {
        load.goes_on("before the kill").await;
        demo.cluster().kill(service.first()).await;
    }
    load.goes_on("with one of each").await;
    for service in KILLED_OF_TWO {
        demo.cluster().restart(service.first()).await.unwrap();
    }
    load.goes_on("with two of each again").await;
    all_is_well(&demo, "TWINS", load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_is_killed_in_turn() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let servers = Servers::start(Path::new(INFRA)).await;
    let demo = Demo::start_on(&servers).await;
    let load = Load::start(&demo, "SERVERS").await;
    for server in ServerName::ALL {
        load.goes_on("before the kill").await;
        servers.kill(server).await;
        // What is not the log's may be away: commands go on.
        if server != ServerName::Postgres {
            load.goes_on(&format!("without {server:?}")).await;
        }
        // Longer than the relay waits for one delivery, so that it has to give up and begin again.
        if server == ServerName::Kafka {
            let back_at = Instant::now() + kafka_away();
            while Instant::now() < back_at {
                load.goes_on("while Kafka is away").await;
            }
        }
        servers.restart(server).await;
    }
    load.goes_on("after all kills").await;
    all_is_well(&demo, "SERVERS", load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_topics_are_deleted_and_nothing_is_missing() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let demo = Demo::start_cluster(1, &[]).await;
    let load = Load::start(&demo, "TOPICS").await;
    for _ in 0..2 {
        load.goes_on("before the topics are deleted").await;
        demo.stores().kafka().delete_topics().await.unwrap();
    }
    load.goes_on("after it").await;
    all_is_well(&demo, "TOPICS", load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_be_flushed_all_the_time() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let servers = Servers::start(Path::new(INFRA)).await;
    let demo = Demo::start_on(&servers).await;
    let load = Load::start(&demo, "FLUSHED").await;
    let flushing = tokio::spawn(servers.flush_redis_for_ever());
    for round in 0..5 {
        load.goes_on(&format!("in round {round} of flushing")).await;
    }
    let attempts = load.stop().await;
    all_is_well(&demo, "FLUSHED", attempts).await;
    flushing.abort();
}
