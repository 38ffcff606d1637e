//! `omisys bench`: what it reports, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use common::omisys;
use serde_json::Value;

/// Every check that a load over HTTP is followed by.
const CHECKS: [&str; 5] = [
    "every_acknowledged_command_is_in_the_log",
    "money_is_conserved",
    "no_other_invariant_is_broken",
    "nothing_is_oversold",
    "projections_equal_a_fold_of_the_log",
];

fn bench(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [&["bench", "--json"], arguments].concat();
    let output = omisys(directory.path(), &arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn commands_are_checked_and_reported() {
    let pages = tempfile::tempdir().unwrap();
    let folder = pages.path().join("new");
    let rate = ["--rate", "50", "--callers", "4"];
    let arguments = [
        &["commands", "--seconds", "1", "--report", folder.to_str().unwrap()],
        &rate[..],
    ]
    .concat();
    let report = bench(&arguments);
    assert_eq!(
        (&report["scenario"], &report["profile"], &report["loop"]),
        (&"commands".into(), &"embedded".into(), &"open".into())
    );
    assert_eq!((&report["callers"], &report["rate"]), (&4.into(), &50.into()));
    assert_eq!(names(&report["checks"]), CHECKS);
    assert!(
        report["checks"]
            .as_object()
            .unwrap()
            .values()
            .all(|held| *held == true)
    );
    let completed = report["completed"].as_u64().unwrap();
    assert!(completed > 0 && report["errors"]["failed"] == 0, "{report}");
    assert!(report["receipts_checked"].as_u64().unwrap() >= completed);
    for figure in [
        "throughput",
        "goodput",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "p999_ms",
        "max_ms",
    ] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    assert!(report["lag"]["probes"].as_u64().unwrap() > 0 && report["lag"]["unseen"] == 0);
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    if std::path::Path::new("/proc/self/stat").exists() {
        let processes = report["processes"].as_array().unwrap();
        let processes: Vec<&str> = processes
            .iter()
            .map(|process| process["name"].as_str().unwrap())
            .collect();
        assert_eq!(processes, ["bench", "serve"]);
    }
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("commands.json")).unwrap()).unwrap();
    let seconds = kept["series"].as_array().unwrap();
    let in_seconds: u64 = seconds
        .iter()
        .map(|second| second["completed"].as_u64().unwrap())
        .sum();
    assert_eq!(in_seconds, completed);
    let page = std::fs::read_to_string(folder.join("commands.html")).unwrap();
    assert!(page.matches("<svg").count() >= 4 && page.contains("prefers-color-scheme: dark"));
    assert!(
        !page.contains("http://") && !page.contains("src="),
        "it needs nothing from elsewhere"
    );
}

#[test]
fn one_sku_is_reserved_until_it_is_sold_out_and_never_sold_twice() {
    let report = bench(&["hot-sku", "--seconds", "2", "--callers", "16"]);
    assert_eq!(report["checks"]["nothing_is_oversold"], true);
    assert_eq!(report["checks"]["no_order_has_the_same_unit_twice"], true);
    assert_eq!(
        report["checks"]["each_answer_is_one_promise_or_refusal_in_the_log"],
        true
    );
    let reserved = report["units_reserved"].as_u64().unwrap();
    let refused = report["answered_with_none_left"].as_u64().unwrap();
    assert!(reserved > 0, "{report}");
    assert_eq!(reserved + refused, report["completed"].as_u64().unwrap());
}

#[test]
fn what_cannot_be_had_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["append", "--baseline"][..],
        &["read", "--baseline"],
        &["append", "--against", "http://127.0.0.1:1"],
        &["checkout", "--replicas", "2"],
        &["read", "--baskets", "retail", "--retail-file", "x"],
        &["checkout", "--baskets", "retail"],
        &["commands", "--callers", "0"],
        &["commands", "--seconds", "7201"],
        &["commands", "--rate", "0"],
    ] {
        let output = omisys(directory.path(), &[&["bench"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    }
}

#[cfg(feature = "cluster")]
#[test]
fn append_on_postgresql_is_compared_with_the_stock_store() {
    if !testkit::cluster_is_to_be_tested() {
        return;
    }
    let url = std::env::var("OMISYS_TEST_POSTGRES_URL").expect("the cluster is to be tested");
    let output = std::process::Command::new(common::binary())
        .args(["bench", "append", "--baseline", "--json", "--profile", "cluster"])
        .args(["--seconds", "1", "--callers", "16"])
        .env("OMISYS_POSTGRES__URL", url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checks"]["every_acknowledged_command_is_in_the_log"], true);
    assert_eq!(report["baseline"]["errors"]["failed"], 0, "{report}");
    assert!(report["baseline"]["goodput"].as_f64().unwrap() > 0.0 && report["ratio"].as_f64().is_some());
}
