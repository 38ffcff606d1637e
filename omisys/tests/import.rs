//! The import on a small file of the retailer's form: equal to the file, however often it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{binary, omisys};
use serde_json::{Value, json};

const INVOICES: u32 = 150;

/// Invoices with repeated codes, thousandths of a pound, missing customers, write-offs, cancellations and bad debt.
fn retail_file(path: &Path) {
    let mut text =
        String::from("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n");
    for invoice in 0..INVOICES {
        let customer = if invoice % 5 == 0 {
            String::new()
        } else {
            format!("{}.0", 12_346 + invoice % 20)
        };
        let country = if invoice % 3 == 0 {
            "France"
        } else {
            "United Kingdom"
        };
        let day = 1 + invoice % 28;
        for line in 0..=invoice % 6 {
            let code = 20_000 + (invoice * 7 + line * 3) % 40;
            let (quantity, price) = (1 + (invoice + line) % 12, (invoice * 37 + line) % 900);
            writeln!(
                text,
                "{},{code},GIFT {code},{quantity},2010-12-{day:02} 10:00:00,{}.{:02}5,{customer},{country}",
                536_365 + invoice,
                price / 100,
                price % 100
            )
            .unwrap();
        }
        if invoice % 4 == 0 {
            writeln!(
                text,
                "{},POST,POSTAGE,1,2010-12-{day:02} 10:00:00,18,{customer},{country}",
                536_365 + invoice
            )
            .unwrap();
        }
        if invoice % 30 == 0 {
            writeln!(
                text,
                "{},20001,damaged,-3,2010-12-{day:02} 11:00:00,0,,United Kingdom",
                600_000 + invoice
            )
            .unwrap();
            writeln!(
                text,
                "C{},20001,GIFT,-1,2010-12-{day:02} 11:00:00,1,{customer},{country}",
                700_000 + invoice
            )
            .unwrap();
        }
    }
    writeln!(
        text,
        "A1,B,Adjust bad debt,1,2010-12-28 12:00:00,-11.06,,United Kingdom"
    )
    .unwrap();
    std::fs::write(path, text).unwrap();
}

fn start(file: &Path, data_dir: &Path) -> Child {
    let mut command = Command::new(binary());
    command
        .args(["import", "online-retail", "--json", "--data-dir"])
        .arg(data_dir)
        .arg(file);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn finish(file: &Path, data_dir: &Path) -> Value {
    let output = omisys(
        data_dir,
        &["import", "online-retail", "--json", file.to_str().unwrap()],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn books_equal_the_file_however_often_the_import_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (file, data_dir) = (directory.path().join("retail.csv"), directory.path().join("data"));
    retail_file(&file);
    for kill in 0..6_u64 {
        let mut import = start(&file, &data_dir);
        // The moments are spread over the run, from its first requests to its last orders.
        std::thread::sleep(Duration::from_millis(150 + 350 * kill));
        // An import that was done before the kill is as good a state to go on from.
        let _ = import.kill();
        import.wait().unwrap();
    }
    let report = finish(&file, &data_dir);
    assert_eq!(report["equal"], true, "{report}");
    assert_eq!(report["orders"], INVOICES);
    assert_eq!(
        (&report["adjustments"], &report["left_out"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(report["by_country"]["France"]["orders"], 50);
    let audit = || {
        let output = omisys(&data_dir, &["audit", "--grace", "0", "--views", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let once = audit();
    assert_eq!(
        (&once["breaches"], &once["orders"]),
        (&json!([]), &json!(INVOICES))
    );
    // Once more from the start: nothing is sold twice, no event is added.
    assert_eq!(finish(&file, &data_dir)["equal"], true);
    assert_eq!(audit()["events"], once["events"]);
}

#[test]
fn a_limited_run_goes_on_to_the_whole_file() {
    let directory = tempfile::tempdir().unwrap();
    let (file, data_dir) = (directory.path().join("retail.csv"), directory.path().join("data"));
    retail_file(&file);
    let output = omisys(
        &data_dir,
        &[
            "import",
            "online-retail",
            "--limit",
            "20",
            "--json",
            file.to_str().unwrap(),
        ],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["equal"], &report["orders"]),
        (&json!(true), &json!(20)),
        "{report}"
    );
    assert_eq!(finish(&file, &data_dir)["equal"], true);
}

#[test]
fn a_file_of_another_form_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.csv");
    std::fs::write(
        &file,
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n\
        1,A,x,1,yesterday,1,,France\n",
    )
    .unwrap();
    let output = omisys(
        &directory.path().join("data"),
        &["import", "online-retail", file.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("line 2") && text.contains("yesterday") && text.contains("try:"),
        "{text}"
    );
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_of_a_cluster_equal_the_file_too_and_a_repeat_sells_nothing() {
    if !testkit::cluster_is_to_be_tested() {
        return;
    }
    let demo = common::Demo::start(common::Profile::Cluster).await;
    let file = demo.directory.path().join("retail.csv");
    retail_file(&file);
    let import = || {
        let output = demo.omisys(&["import", "online-retail", "--json", file.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let first = import();
    assert_eq!(first["equal"], true, "{first}");
    assert_eq!(first["orders"], INVOICES);
    let again = import();
    assert_eq!(again["orders"], first["orders"]);
    assert_eq!(demo.audit()["orders"], INVOICES);
    assert_eq!(demo.audit()["breaches"], json!([]));
}
