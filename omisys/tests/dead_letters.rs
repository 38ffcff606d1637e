//! The real binary when an event cannot be handled: it says so, everything else goes on, and what is mended heals in
//! order; and when the log holds an event that a newer binary wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::path::Path;
use std::process::Output;

use common::{Demo, System};
use database::{Database, DatabaseError, params};
use http::Method;
use serde_json::{Value, json};
use sqlite_file::{Options, SqliteFile};
use testkit::{Reply, User, until};

/// What is broken about an event: two characters before its payload, so that taking them away mends it.
const BREAK: &str = "payload = '{}' || payload";
const MEND: &str = "payload = substr(payload, 3)";

/// Changes what the log has stored of the first event of an order.
async fn rewrite(database: &Database, set: &'static str, order: &str) {
    let order = order.to_owned();
    let written = database.write(move |session| {
        let sql = format!(
            "UPDATE events SET {set} WHERE aggregate_type = 'order' AND aggregate_id = ?1 AND sequence = 1"
        );
        session.execute(&sql, &params![order])
    });
    assert_eq!(written.await, Ok::<_, DatabaseError>(1));
}

fn log_of(directory: &Path) -> Database {
    let file = SqliteFile::open(directory.join("data/log.db"), Options::default());
    file.unwrap().into()
}

async fn buy(demo: &Demo, wait: u32) -> (User, String) {
    let buyer = demo.shop.guest().await;
    buyer.add_to_cart("PARKED", 1).await.expect(200);
    let bought = buyer.check_out("tok_ok", wait).await.expect(201).json();
    (buyer, bought["order"]["id"].as_str().unwrap().to_owned())
}

async fn is_paid(buyer: &User, order: &str) {
    until("the order is shown paid", || async {
        let reply = buyer.get(&format!("/v1/orders/{order}")).await;
        (reply.json()["status"] == "paid").then_some(())
    })
    .await;
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The ids of what is parked, which all has to be of this order.
fn parked(demo: &Demo, order: &str) -> Vec<String> {
    let output = demo.omisys(&["dead-letters", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut ids = Vec::new();
    for line in lines(&output) {
        assert_eq!(
            line["scope"],
            format!("order/{order}"),
            "only its aggregate: {line}"
        );
        assert_eq!(line["type"], "OrderPlaced", "{line}");
        assert!(
            line["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{line}"
        );
        assert!(
            line["letters"].as_u64() >= Some(1) && line["attempts"] == 1,
            "{line}"
        );
        ids.push(line["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids
}

async fn readyz(demo: &Demo) -> Reply {
    match &demo.system {
        System::Embedded(_) => demo.staff.get("/readyz").await,
        #[cfg(feature = "cluster")]
        System::Cluster { cluster, .. } => internal(cluster, "/readyz").await,
    }
}

async fn metrics(demo: &Demo) -> String {
    let reply = match &demo.system {
        System::Embedded(_) => demo.staff.get("/metrics").await,
        #[cfg(feature = "cluster")]
        System::Cluster { cluster, .. } => internal(cluster, "/metrics").await,
    };
    String::from_utf8_lossy(&reply.expect(200).body).into_owned()
}

/// What the projector says of itself.
#[cfg(feature = "cluster")]
async fn internal(cluster: &testkit::Cluster, path: &str) -> Reply {
    let client = testkit::Client::new(&cluster.address(testkit::Service::Projector.first()));
    client.send(Method::GET, path, &[], "").await.unwrap()
}

async fn dead_letters_metric(demo: &Demo, value: u8) {
    let line = format!("omisys_dead_letters{{subscriber=\"orders.g1\"}} {value}");
    until(&line, || async {
        metrics(demo).await.contains(&line).then_some(())
    })
    .await;
}

/// From a broken event to a healed system; the order's events are in the log, `database`.
async fn parks_and_heals(demo: &Demo, database: &Database, order: &str, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|subscriber| format!("{subscriber}:order/{order}"))
        .collect();
    let ids = until("all who read it have parked it", || async {
        let ids = parked(demo, order);
        (ids.len() == expected.len()).then_some(ids)
    })
    .await;
    assert_eq!(ids, expected);
    // It tells.
    let ready = until("it is degraded", || async {
        let reply = readyz(demo).await;
        (reply.json()["status"] == "degraded").then_some(reply)
    })
    .await;
    assert_eq!(ready.status, 200, "the rest works");
    let detail = ready.json()["components"].to_string();
    assert!(
        detail.contains("projections/orders") && detail.contains("dead-letters"),
        "{detail}"
    );
    dead_letters_metric(demo, 1).await;
    // The rest goes on.
    let (other, bought) = buy(demo, 10).await;
    is_paid(&other, &bought).await;

    // The command line: not mended, not healed; nothing is given up by accident.
    let retry = |id: &str| demo.omisys(&["dead-letters", "retry", id, "--wait", "30", "--json"]);
    let output = retry(&expected[0]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(lines(&output)[0]["outcome"], "still_parked");
    let output = demo.omisys(&["dead-letters", "skip", &expected[0]]);
    assert_eq!(output.status.code(), Some(2), "without --yes: {output:?}");
    let output = demo.omisys(&["dead-letters", "retry", "orders.g1:order/nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = lines(&demo.omisys(&["dead-letters", "show", &expected[0], "--json"]));
    assert_eq!(shown[0]["attempts"], 2);
    assert!(
        shown[1..].iter().all(|letter| letter["reason"].is_null()),
        "they wait: {shown:?}"
    );

    rewrite(database, MEND, order).await;
    // The first through the API, by an admin; the others at the command line.
    let (first, rest) = expected.split_first().unwrap();
    let path = format!(
        "/ops/dead-letters/{}/retry",
        first.replace(':', "%3A").replace('/', "%2F")
    );
    let prefer = [(http::HeaderName::from_static("prefer"), "wait=10".to_owned())];
    let reply = demo
        .staff
        .try_request(Method::POST, &path, None, &prefer, Some(&json!({})))
        .await
        .unwrap();
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(reply.json()["outcome"], "healed", "{}", reply.json());
    for id in rest {
        let output = retry(id);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(lines(&output)[0]["outcome"], "healed");
    }
    let listed = demo.staff.get("/ops/dead-letters").await.expect(200).json();
    assert_eq!(listed["items"], json!([]));
    until("it is ready again", || async {
        (readyz(demo).await.json()["status"] == "ready").then_some(())
    })
    .await;
    dead_letters_metric(demo, 0).await;
}

/// The read models are what the log folds to, and nothing is broken.
async fn audited(demo: &Demo) {
    until("the audit finds nothing", || async {
        let output = demo.omisys(&["audit", "--views", "--grace", "0", "--json"]);
        output.status.success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_event_parks_its_order_and_heals_embedded() {
    let demo = Demo::start_with(&[]).await;
    demo.staff.stock_product("PARKED", 100, 1000).await;
    let (buyer, order) = buy(&demo, 10).await;
    is_paid(&buyer, &order).await;
    let directory = demo.kill().await;
    let log = log_of(directory.path());
    rewrite(&log, BREAK, &order).await;
    // The views are folded anew, and meet it.
    for file in ["views.db", "views.db-wal", "views.db-shm"] {
        let _ = std::fs::remove_file(directory.path().join("data").join(file));
    }
    // Nobody serves: what is asked now would have to wait.
    let demo = Demo::start_in(directory, "again", &[]).await;
    let listed = until("the API lists it", || async {
        let listed = demo
            .staff
            .get("/ops/dead-letters?limit=1")
            .await
            .expect(200)
            .json();
        listed["next_cursor"].is_string().then_some(listed)
    })
    .await;
    assert_eq!(listed["items"][0]["first"]["type"], "OrderPlaced");
    parks_and_heals(
        &demo,
        &log,
        &order,
        &["order_timeline.g1", "orders.g1", "sales.g1"],
    )
    .await;
    audited(&demo).await;

    // A request that nobody can answer is kept, and carried out once somebody can.
    let directory = demo.kill().await;
    rewrite(&log, BREAK, &order).await;
    for file in ["views.db", "views.db-wal", "views.db-shm"] {
        let _ = std::fs::remove_file(directory.path().join("data").join(file));
    }
    let demo = Demo::start_in(directory, "once more", &[]).await;
    until("it is parked", || async {
        (parked(&demo, &order).len() == 3).then_some(())
    })
    .await;
    let directory = demo.kill().await;
    rewrite(&log, MEND, &order).await;
    let data = directory.path().join("data");
    for view in ["order_timeline.g1", "orders.g1", "sales.g1"] {
        let id = format!("{view}:order/{order}");
        let output = common::omisys(&data, &["dead-letters", "retry", &id, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(lines(&output)[0]["outcome"], "accepted");
    }
    let demo = Demo::start_in(directory, "at last", &[]).await;
    until("it is healed", || async {
        let listed = lines(&demo.omisys(&["dead-letters", "list", "--json"]));
        listed.is_empty().then_some(())
    })
    .await;
    audited(&demo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_newer_binary_makes_it_not_ready_and_say_upgrade() {
    let demo = Demo::start_with(&[]).await;
    demo.staff.stock_product("PARKED", 100, 1000).await;
    let (buyer, order) = buy(&demo, 10).await;
    is_paid(&buyer, &order).await;
    let directory = demo.kill().await;
    let log = log_of(directory.path());
    rewrite(&log, "event_version = '99.0'", &order).await;
    // Both read the log again from its beginning.
    for file in ["views.db", "views.db-wal", "views.db-shm"] {
        let _ = std::fs::remove_file(directory.path().join("data").join(file));
    }
    let forget = log.write(|session| session.execute("DELETE FROM checkpoints", &[]));
    assert!(forget.await.map_err(|error: DatabaseError| error).unwrap() > 0);

    let demo = Demo::start_in(directory, "old", &[]).await;
    let told = until("both say so", || async {
        let components = demo.staff.get("/readyz").await.json()["components"].clone();
        let down = |name: &str| {
            components.as_array().is_some_and(|components| {
                components.iter().any(|component| {
                    component["name"] == name
                        && component["status"] == "down"
                        && component["detail"]
                            .as_str()
                            .is_some_and(|detail| detail.contains("upgrade"))
                })
            })
        };
        (down("projections") && down("sagas")).then_some(components)
    })
    .await;
    assert_eq!(demo.staff.get("/readyz").await.status, 503, "{told}");
    // It serves what it can.
    demo.shop.anonymous().get("/v1/products").await.expect(200);
    demo.shop.anonymous().get("/livez").await.expect(200);
    assert_eq!(parked(&demo, &order), Vec::<String>::new(), "it is no poison");

    let directory = demo.kill().await;
    rewrite(&log, "event_version = '1.0'", &order).await;
    let demo = Demo::start_in(directory, "new", &[]).await;
    until("it is ready", || async {
        (demo.staff.get("/readyz").await.json()["status"] == "ready").then_some(())
    })
    .await;
    audited(&demo).await;
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_event_parks_its_order_and_heals_in_a_cluster() {
    if !testkit::cluster_is_to_be_tested() {
        return;
    }
    let mut demo = Demo::start_cluster(1, &[]).await;
    demo.staff.stock_product("PARKED", 100, 1000).await;
    let url = demo
        .cluster()
        .environment()
        .iter()
        .find_map(|(key, value)| (key == "OMISYS_POSTGRES__URL").then(|| value.clone()))
        .unwrap();
    let options = database::PostgresOptions {
        url,
        max_connections: 2,
        migrate: false,
    };
    let log: Database = database::Postgres::connect(&options).await.unwrap().into();
    // It is broken before Kafka gets to know it.
    let relay = testkit::Service::Relay.first();
    demo.cluster().kill(relay).await;
    let (buyer, order) = buy(&demo, 0).await;
    rewrite(&log, BREAK, &order).await;
    demo.cluster().restart(relay).await.unwrap();
    parks_and_heals(
        &demo,
        &log,
        &order,
        &["order_timeline.g1", "orders.g1", "sagas", "sales.g1"],
    )
    .await;
    is_paid(&buyer, &order).await;
    audited(&demo).await;
}
