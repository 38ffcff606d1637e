//! The real binary's backups and exports: taken under load, cut short, brought elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Demo, Folder, Profile, binary, omisys};
use event_schemas::{Clock, OrderId, PaymentId};
use sagas::provider::{SandboxOptions, SandboxProvider};
use serde_json::Value;
#[cfg(feature = "cluster")]
use serde_json::json;
use testkit::{User, until};
use tokio::task::JoinSet;

const BUYERS: usize = 4;
/// Orders that are acknowledged before the backup begins.
const BEFORE: usize = 20;

/// A check-out that was acknowledged.
#[derive(Clone)]
struct Bought {
    user: User,
    key: String,
    order: String,
}

/// Buys until told to stop; each acknowledgement is noted at once.
async fn buy(shop: testkit::Shop, bought: Arc<Mutex<Vec<Bought>>>, ended: Arc<AtomicBool>) {
    while !ended.load(Ordering::SeqCst) {
        let user = shop.guest().await;
        user.add_to_cart("COPY", 1).await.expect(200);
        let key = shop.fresh_key();
        let reply = user.check_out_as(&key, "tok_ok", 0).await.expect(201).json();
        let order = reply["order"]["id"].as_str().unwrap().to_owned();
        bought.lock().unwrap().push(Bought { user, key, order });
    }
}

fn said(output: &Output) -> String {
    format!(
        "{:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no summary: {}", said(output)))
}

/// Keys, and what the provider remembers: neither is in a backup.
fn bring_keys_and_provider(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let ours = ["log.db", "views.db", "omisys.lock"];
        if entry.path().is_file() && !ours.iter().any(|ours| name.starts_with(ours)) {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_every_order_that_was_acknowledged_before() {
    let demo = Demo::start(Profile::Embedded).await;
    demo.staff.stock_product("COPY", 250, 1_000_000).await;
    let (bought, stop) = (Arc::<Mutex<Vec<Bought>>>::default(), Arc::<AtomicBool>::default());
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        buyers.spawn(buy(demo.shop.clone(), Arc::clone(&bought), Arc::clone(&stop)));
    }
    let count = || bought.lock().unwrap().len();
    until("orders are acknowledged", || async {
        (count() >= BEFORE).then_some(())
    })
    .await;
    let before = bought.lock().unwrap().clone();
    let backup = demo.directory.path().join("backup");
    let taken = tokio::task::block_in_place(|| demo.omisys(&["backup", backup.to_str().unwrap(), "--json"]));
    let taken = summary(&taken);
    // The provider goes on, and so does the log that is lost.
    let at_backup = count();
    until("more orders are acknowledged", || async {
        (count() >= at_backup + 5).then_some(())
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    buyers.join_all().await;
    let lost = demo.kill().await;

    let folder = Folder::new();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let restored = summary(&omisys(
        &data,
        &["restore", lost.path().join("backup").to_str().unwrap(), "--json"],
    ));
    assert_eq!(restored["events"], taken["events"]);
    assert_eq!(restored["log_id"], taken["log_id"]);
    assert!(restored["epoch"].as_u64() > taken["epoch"].as_u64());
    assert!(restored["sagas_go_on_after"].as_u64().unwrap() > 0);
    bring_keys_and_provider(&lost.path().join("data"), &data);
    let demo = Demo::start_in(folder, "restored", &[]).await;
    for Bought { user, key, order } in &before {
        let user = user.in_shop(&demo.shop);
        let reply = user.check_out_as(key, "tok_ok", 0).await.expect(201);
        assert_eq!(
            reply.header("idempotent-replayed"),
            Some("true"),
            "acknowledged, and lost"
        );
        assert_eq!(reply.json()["order"]["id"], *order);
        until("every order is paid", || async {
            (user.order_status(order).await.as_deref() == Some("paid")).then_some(())
        })
        .await;
    }
    until("nothing is under way any more", || async {
        demo.audit()["breaches"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    let folder = demo.kill().await;
    let audit = omisys(&data, &["audit", "--grace", "0", "--views", "--json"]);
    assert!(audit.status.success(), "{}", said(&audit));
    let sandbox = SandboxProvider::open(data.join("sandbox.db"), Clock::System, SandboxOptions::default())
        .await
        .unwrap();
    for Bought { order, .. } in &before {
        let order: OrderId = order.parse().unwrap();
        let charged = sandbox.charged(PaymentId::for_order(order)).await.unwrap();
        assert_eq!(charged, 250, "the provider's own books");
    }
    drop(folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_came_halfway_is_not_served_and_nothing_is_overwritten() {
    let demo = Demo::start(Profile::Embedded).await;
    demo.staff.stock_product("COPY", 250, 10).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("COPY", 1).await.expect(200);
    guest.check_out("tok_ok", 10).await.expect(201);
    let path = |name: &str| demo.directory.path().join(name).to_str().unwrap().to_owned();
    let (plain, zipped) = (path("log.ndjson"), path("log.ndjson.gz"));
    let exported = summary(&demo.omisys(&["export-log", &zipped, "--json"]));
    assert!(exported["events"].as_u64().unwrap() > 5);
    assert!(exported["receipts"].as_u64().unwrap() > 5);
    assert!(exported["rows"]["accounts"].is_null(), "accounts are a backup's");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&zipped).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    }
    let again = demo.omisys(&["export-log", &zipped]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    let piped = demo.omisys(&["export-log", "-"]);
    assert!(piped.status.success(), "{}", said(&piped));
    std::fs::write(&plain, &piped.stdout).unwrap();

    let moved = demo.directory.path().join("moved");
    let mut import = Command::new(binary())
        .args(["import-log", "-", "--data-dir"])
        .arg(&moved)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = import.stdin.take().unwrap();
    stdin.write_all(&piped.stdout[..piped.stdout.len() / 2]).unwrap();
    until("the import has begun", || async {
        moved.join("log.db").exists().then_some(())
    })
    .await;
    let served = || omisys(&moved, &["audit", "--json"]);
    until("the store says that it is not finished", || async {
        said(&served()).contains("was not finished").then_some(())
    })
    .await;
    import.kill().unwrap();
    import.wait().unwrap();
    drop(stdin);
    let (text, status) = (said(&served()), served().status);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("was not finished") && text.contains("import-log"),
        "{text}"
    );
    let imported = summary(&omisys(&moved, &["import-log", &zipped, "--json"]));
    assert_eq!(imported["events"], exported["events"]);
    let audit = omisys(&moved, &["audit", "--grace", "0", "--json"]);
    assert!(audit.status.success(), "{}", said(&audit));
    let twice = omisys(&moved, &["import-log", &plain]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(said(&twice).contains("not empty"), "{}", said(&twice));
    let other_currency = Command::new(binary())
        .args(["import-log", &plain, "--data-dir", &path("euro")])
        .env("OMISYS_SHOP__CURRENCY", "EUR")
        .output()
        .unwrap();
    assert_eq!(other_currency.status.code(), Some(2), "{}", said(&other_currency));

    let backup = path("backup");
    summary(&demo.omisys(&["backup", &backup, "--json"]));
    let taken = demo.omisys(&["backup", &backup]);
    assert_eq!(taken.status.code(), Some(1), "{}", said(&taken));
    std::fs::remove_file(Path::new(&backup).join("manifest.json")).unwrap();
    let half = omisys(&demo.directory.path().join("half"), &["restore", &backup]);
    assert_eq!(half.status.code(), Some(1));
    assert!(said(&half).contains("no finished backup"), "{}", said(&half));
}

/// The database is restored; topics, documents and cache still hold what the lost one had.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_beside_stale_topics_and_documents() {
    if !testkit::cluster_is_to_be_tested() {
        return;
    }
    let demo = Demo::start(Profile::Cluster).await;
    demo.staff.stock_product("COPY", 250, 1_000).await;
    let mut bought = Vec::new();
    for number in 0..6 {
        let user = demo.shop.guest().await;
        user.add_to_cart("COPY", 1).await.expect(200);
        let key = demo.shop.fresh_key();
        let reply = user.check_out_as(&key, "tok_ok", 20).await.expect(201).json();
        let order = reply["order"]["id"].as_str().unwrap().to_owned();
        until("the order is paid", || async {
            (user.order_status(&order).await.as_deref() == Some("paid")).then_some(())
        })
        .await;
        // The last ones are lost: the topics have them.
        if number < 4 {
            bought.push(Bought { user, key, order });
        }
        if number == 3 {
            let backup = demo.directory.path().join("backup");
            summary(&demo.omisys(&["backup", backup.to_str().unwrap(), "--json"]));
        }
    }
    let (lost, stale) = demo.kill_cluster().await;
    let stores = testkit::ClusterStores::create().await;
    let kept = [
        "OMISYS_KAFKA__TOPIC_PREFIX",
        "OMISYS_MONGODB__DATABASE",
        "OMISYS_REDIS__KEY_PREFIX",
    ];
    let stale_environment = stale.environment();
    let environment: Vec<(String, String)> = stores
        .environment()
        .into_iter()
        .map(|pair| {
            let of_lost = stale_environment.iter().find(|(key, _)| *key == pair.0);
            of_lost
                .filter(|(key, _)| kept.contains(&key.as_str()))
                .cloned()
                .unwrap_or(pair)
        })
        .collect();
    let restore = Command::new(binary())
        .args(["restore", "--profile", "cluster", "--json"])
        .arg(lost.path().join("backup"))
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .output()
        .unwrap();
    summary(&restore);
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    bring_keys_and_provider(&lost.path().join("keys"), &folder.path().join("keys"));
    let demo = Demo::start_cluster_in(folder, stores, environment).await;
    for Bought { user, key, order } in &bought {
        let user = user.in_shop(&demo.shop);
        until("the order is shown", || async {
            (user.order_status(order).await.as_deref() == Some("paid")).then_some(())
        })
        .await;
        let reply = user.check_out_as(key, "tok_ok", 0).await.expect(201);
        assert_eq!(reply.header("idempotent-replayed"), Some("true"));
    }
    // New orders go on beside what the topics have of the lost ones.
    let guest = demo.shop.guest().await;
    guest.add_to_cart("COPY", 1).await.expect(200);
    let reply = guest.check_out("tok_ok", 20).await.expect(201).json();
    let order = reply["order"]["id"].as_str().unwrap().to_owned();
    until("a new order is paid", || async {
        (guest.order_status(&order).await.as_deref() == Some("paid")).then_some(())
    })
    .await;
    until("nothing is under way any more", || async {
        (demo.audit()["breaches"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(demo.audit()["orders"], 5, "what was lost is not served");
    drop(stale);
}
