//! The command line: exit codes, JSON on stdout, errors in two lines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use common::{binary, omisys};
use serde_json::Value;

fn with_input(data_dir: &std::path::Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn accounts_are_made_listed_disabled_and_reset() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let create = [
        "accounts",
        "create",
        "--role",
        "admin",
        "--email",
        "ops@example.com",
        "--json",
    ];
    let created = with_input(data, &create, "a long enough password\n");
    assert!(created.status.success(), "{}", stderr(&created));
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    assert_eq!(
        (&created["role"], &created["email"]),
        (&"admin".into(), &"ops@example.com".into())
    );
    let twice = with_input(data, &create, "a long enough password\n");
    assert_eq!(twice.status.code(), Some(1), "one account an address");
    let short = with_input(
        data,
        &[
            "accounts",
            "create",
            "--role",
            "staff",
            "--email",
            "s@example.com",
        ],
        "short\n",
    );
    assert_eq!(short.status.code(), Some(2));
    assert!(stderr(&short).contains("try:"));
    let reset = with_input(
        data,
        &["accounts", "reset-password", "--email", "ops@example.com"],
        "another long password",
    );
    assert!(reset.status.success(), "{}", stderr(&reset));
    // Without an admin nobody could undo it.
    let staff = with_input(
        data,
        &[
            "accounts",
            "create",
            "--role",
            "staff",
            "--email",
            "s@example.com",
        ],
        "a long enough password",
    );
    assert!(staff.status.success());
    assert!(
        omisys(data, &["accounts", "disable", "--email", "s@example.com"])
            .status
            .success()
    );
    let listed = omisys(data, &["accounts", "list", "--json"]);
    let lines: Vec<Value> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().any(|account| account["status"] == "disabled"));
}

#[test]
fn keys_are_rotated_and_retired() {
    let directory = tempfile::tempdir().unwrap();
    let made = with_input(
        directory.path(),
        &[
            "accounts",
            "create",
            "--role",
            "admin",
            "--email",
            "a@example.com",
        ],
        "a long enough password",
    );
    assert!(made.status.success(), "{}", stderr(&made));
    let keys = |arguments: &[&str]| -> Vec<Value> {
        let output = omisys(directory.path(), arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let before = keys(&["keys", "list", "--json"]);
    let after = keys(&["keys", "rotate", "--json"]);
    assert_eq!(after.len(), before.len() + 1);
    let unknown = omisys(directory.path(), &["keys", "retire", "no-such-key"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn what_is_wrong_is_said_in_two_lines() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (vec!["audit"], 1),
        (vec!["events", "tail"], 1),
        (vec!["accounts", "list"], 1),
        (vec!["keys", "list"], 1),
        (vec!["serve", "--demo", "--listen", "0.0.0.0:0"], 2),
        (vec!["doctor", "--config", "/no/such/file.toml"], 2),
        (vec!["frobnicate"], 2),
        (vec!["accounts", "create"], 2),
    ] {
        let output = omisys(directory.path(), &arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(
            text.starts_with("error:") && !text.contains("panicked"),
            "{arguments:?}: {text}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_subcommand_has_help_with_an_example_or_children() {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        "serve", "import", "accounts", "keys", "audit", "events", "schemas", "openapi", "doctor", "bench",
    ] {
        let output = omisys(directory.path(), &[command, "--help"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && (text.contains("Example:") || text.contains("Commands:")),
            "{command}: {text}"
        );
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let output = Command::new(binary())
        .arg("doctor")
        .env("OMISYS_SHOP__CURRENCY", "XXY")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("shop.currency"), "{}", stderr(&output));
}

#[test]
fn the_openapi_document_comes_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let output = omisys(directory.path(), &["openapi"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/v1/carts/mine/checkout"]["post"].is_object());
}

#[test]
fn schemas_are_exported_as_they_are_committed() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new/folder");
    let export = |dir: &std::path::Path| {
        omisys(
            directory.path(),
            &["schemas", "export", dir.to_str().unwrap(), "--json"],
        )
    };
    let output = export(&out);
    assert!(output.status.success(), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = told["files"].as_array().unwrap();
    assert!(files.len() > 50, "{told}");
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../event-schemas");
    for file in files {
        let file = file.as_str().unwrap();
        let read = |folder: &std::path::Path| std::fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read(&out), read(&committed), "{file}");
    }
    assert!(export(&out).status.success(), "over what is there");
    let refused = export(&out.join("asyncapi.json"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("is no folder"), "{}", stderr(&refused));
}

#[test]
fn a_shop_keeps_its_currency_and_its_demo_to_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("retail.csv");
    std::fs::write(
        &file,
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n\
        1,A,x,1,2010-12-01 08:26:00,1,,France\n",
    )
    .unwrap();
    let data = directory.path().join("data");
    assert!(
        omisys(&data, &["import", "online-retail", file.to_str().unwrap()])
            .status
            .success()
    );
    let mut other = Command::new(binary());
    other
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .env("OMISYS_SHOP__CURRENCY", "EUR");
    let output = other.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("shop.currency"), "{}", stderr(&output));
    let create = [
        "accounts",
        "create",
        "--role",
        "admin",
        "--email",
        "admin@demo.example",
    ];
    assert!(with_input(&data, &create, "demo-admin-1").status.success());
    let output = omisys(&data, &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("admin@demo.example"),
        "{}",
        stderr(&output)
    );
}

/// What the dashboard and the alerts ask for is what the table of the operations page lists.
#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let read =
        |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        text.match_indices("omisys_")
            .map(|(start, _)| {
                let rest = &text[start..];
                let end = rest
                    .find(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'))
                    .unwrap_or(rest.len());
                rest[..end].trim_end_matches("_bucket").to_owned()
            })
            .collect()
    };
    let listed = names(&read("docs/operations.md"));
    let asked = names(&read("infra/grafana/dashboards/omisys.json"));
    assert!(asked.len() > 10, "{asked:?}");
    assert!(asked.is_subset(&listed), "{:?}", asked.difference(&listed));
}
