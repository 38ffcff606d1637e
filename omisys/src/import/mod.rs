//! `omisys import`: a real retailer's year, sold through the real command path.
//!
//! Every step is a request under an idempotency key that depends on the file only, so a run that was killed is
//! repeated from the start and sells nothing twice.

mod countries;
mod figures;
pub mod file;
mod shop;

use std::path::Path;
use std::time::Duration;

use event_schemas::{AccountId, Currency, CustomerId, derive_uuid};
use futures_util::stream::{self, StreamExt};
use identity::verifier::Role;
use projections::DocId;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::Import;
use crate::config::{Config, MAX_PAYMENT_WINDOW_MINUTES};
use crate::error::{CliError, Context};
use crate::local::{Local, LocalError};
use crate::progress::Progress;
use figures::Figures;
use file::{Adjustment, Product, Sale, SaleLine, Year};
use shop::Shop;

/// Requests under way at once: enough for the log's group commit, few enough to keep memory flat.
const CONCURRENT: usize = 256;
/// How long a step is tried while the system is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long a cluster's books may stand still before they are what they are.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Sales read at once.
const SALES_PAGE: usize = 500;
const RESUME: &str = "run the same command again: it goes on where it stopped";

/// What a run reports.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    books: Figures,
    expected: Figures,
    equal: bool,
    /// Cancellation invoices in the file; they wait for returns.
    cancellations_waiting: usize,
    seconds: f64,
}

/// Runs the subcommand.
pub async fn run(config: &Config, command: &Import, json: bool) -> Result<(), CliError> {
    let Import::OnlineRetail { file, limit } = command;
    let started = Instant::now();
    let year = read(file, *limit).await?;
    // An import that is resumed days later must not find its orders cancelled for want of payment meanwhile.
    let mut config = config.clone();
    config.shop.payment_window_minutes = MAX_PAYMENT_WINDOW_MINUTES;
    if config.shop.currency != Currency::GBP {
        return Err(CliError::usage(
            format!(
                "the retailer sold in GBP, and this shop sells in {}",
                config.shop.currency.code()
            ),
            "import into a shop whose shop.currency is GBP",
        ));
    }
    let shop = Shop::open(&config).await?;
    let sold = sell(&shop, &year).await;
    let books = match sold {
        Ok((orders, adjusted)) => settled_books(&shop, &year, &orders, adjusted).await,
        Err(error) => Err(error),
    };
    shop.close().await;
    let books = books?;
    let report = Report {
        equal: books == year.expected,
        books,
        expected: year.expected,
        cancellations_waiting: year.cancellations,
        seconds: started.elapsed().as_secs_f64(),
    };
    print(&report, json)?;
    if report.equal {
        return Ok(());
    }
    Err(CliError::failed(
        "the books differ from the file",
        "run `omisys audit`, and compare the report's two sides",
    ))
}

async fn read(path: &Path, limit: Option<usize>) -> Result<Year, CliError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read(&owned, limit)).await;
    read.context("reading the file was broken off", RESUME)?.context(
        &format!("{} cannot be sold", path.display()),
        "give the UCI \"Online Retail\" data set as CSV, or CSV in gzip",
    )
}

/// Sells everything; answers the order of each sale and how many adjustments were acknowledged.
async fn sell(shop: &Shop, year: &Year) -> Result<(Vec<String>, usize), CliError> {
    let importer = AccountId::from_uuid(derive_uuid("omisys/import/online-retail", &[]));
    let customers = year
        .customers
        .iter()
        .map(|name| (customer_id(name).into(), Role::Customer));
    let accounts: Vec<_> = customers.chain([(importer, Role::Staff)]).collect();
    shop.identity
        .create_bare_accounts(&accounts)
        .await
        .context("the customers could not be created", RESUME)?;
    let local = Local::new(shop.command.clone(), shop.identity.clone(), importer);
    each("products", &year.products, |product| {
        list(local.clone(), product.clone())
    })
    .await?;
    let adjusted = each("adjustments", &year.adjustments, |adjustment| {
        write_off(local.clone(), adjustment.clone())
    })
    .await?;
    let orders = each("orders", &year.sales, |sale| place(local.clone(), sale.clone())).await?;
    Ok((orders, adjusted.len()))
}

/// Runs `step` for every item, [`CONCURRENT`] at once, with a progress bar; answers in the order of the items.
async fn each<T, R, F>(what: &'static str, items: &[T], step: impl Fn(&T) -> F) -> Result<Vec<R>, CliError>
where
    R: Send + 'static,
    F: Future<Output = Result<R, LocalError>> + Send + 'static,
{
    let mut progress = Progress::new(what, items.len() as u64);
    let mut steps = stream::iter(items.iter().map(|item| tokio::spawn(step(item)))).buffered(CONCURRENT);
    let mut results = Vec::with_capacity(items.len());
    while let Some(result) = steps.next().await {
        let result = result.context("a step was broken off", RESUME)?;
        results.push(result.context(&format!("not all {what} could be sold"), RESUME)?);
        progress.step();
    }
    Ok(results)
}

/// Posts, and again if the system is busy.
async fn post(
    local: &Local,
    path: &str,
    key: &str,
    prefer: Option<&str>,
    body: &Value,
) -> Result<Value, LocalError> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    loop {
        match local.post(path, key, prefer, body).await {
            Err(LocalError::Refused { status, .. })
                if [429, 503].contains(&status.as_u16()) && Instant::now() < end =>
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            other => return other,
        }
    }
}

async fn list(local: Local, product: Product) -> Result<(), LocalError> {
    let Product {
        sku,
        title,
        price,
        tracked,
        needed,
    } = product;
    let key = |step: &str| format!("online-retail-{step}-{sku}");
    let created = post(
        &local,
        "/v1/products",
        &key("product"),
        None,
        &json!({ "title": title }),
    )
    .await?;
    let id = created["id"].as_str().unwrap_or_default();
    let variant = json!({ "sku": sku, "price": pence(price), "tracked": tracked });
    post(
        &local,
        &format!("/v1/products/{id}/variants"),
        &key("variant"),
        None,
        &variant,
    )
    .await?;
    post(
        &local,
        &format!("/v1/products/{id}/publish"),
        &key("publish"),
        None,
        &json!({}),
    )
    .await?;
    if needed > 0 {
        let receipt = json!({ "quantity": needed, "reference": "online-retail" });
        post(
            &local,
            &format!("/v1/inventory/{sku}/receipts"),
            &key("stock"),
            None,
            &receipt,
        )
        .await?;
    }
    Ok(())
}

async fn write_off(local: Local, adjustment: Adjustment) -> Result<(), LocalError> {
    let Adjustment { key, sku, delta } = adjustment;
    let body = json!({ "delta": delta, "reason": "write-off" });
    let key = format!("online-retail-adjustment-{key}");
    post(
        &local,
        &format!("/v1/inventory/{sku}/adjustments"),
        &key,
        None,
        &body,
    )
    .await
    .map(drop)
}

async fn place(local: Local, sale: Sale) -> Result<String, LocalError> {
    let line = |line: &SaleLine| json!({ "sku": line.sku, "quantity": line.quantity, "unit_price": pence(line.unit_price) });
    let lines: Vec<Value> = sale.lines.iter().map(line).collect();
    let body = json!({
        "customer": customer_id(&sale.customer), "country": countries::code(&sale.country), "lines": lines,
        "occurred_at": sale.at, "payment": { "method": "sandbox", "token": "tok_ok" },
    });
    let key = format!("online-retail-invoice-{}", sale.invoice);
    let placed = post(&local, "/v1/orders", &key, Some("wait=10"), &body).await?;
    Ok(placed["order"]["id"].as_str().unwrap_or_default().to_owned())
}

/// What the read models say of these orders, once they show all that happened: once nothing is under way, or, where
/// other processes are still at it, once the books are the file's or have not changed for a while.
async fn settled_books(
    shop: &Shop,
    year: &Year,
    orders: &[String],
    adjusted: usize,
) -> Result<Figures, CliError> {
    shop.settle().await?;
    let mut last = books(shop, year, orders, adjusted).await?;
    let mut give_up_at = Instant::now() + STANDSTILL;
    while last != year.expected && Instant::now() < give_up_at && !shop.is_settled() {
        tokio::time::sleep(MAX_PAUSE).await;
        let now = books(shop, year, orders, adjusted).await?;
        if now != last {
            give_up_at = Instant::now() + STANDSTILL;
            last = now;
        }
    }
    Ok(last)
}

/// What the read models say of these orders.
async fn books(shop: &Shop, year: &Year, orders: &[String], adjusted: usize) -> Result<Figures, CliError> {
    let mut books = Figures {
        adjustments: adjusted as u64,
        left_out: year.expected.left_out,
        ..Figures::default()
    };
    let ids: Vec<DocId> = orders.iter().map(|order| DocId::from(order.as_str())).collect();
    for page in ids.chunks(SALES_PAGE) {
        let sales = shop.views.sales().get_many(page).await;
        for sale in sales
            .context("the sales could not be read", RESUME)?
            .into_iter()
            .flatten()
        {
            let country = countries::name(sale.doc.country.as_str()).unwrap_or("unknown");
            let units = sale.doc.lines.iter().map(|line| u64::from(line.quantity)).sum();
            books.count_order(country, sale.doc.lines.len() as u64, units, sale.doc.paid);
        }
    }
    Ok(books)
}

fn print(report: &Report, json: bool) -> Result<(), CliError> {
    if json {
        let line = serde_json::to_string(report)
            .context("the report could not be written", "report this as a bug")?;
        println!("{line}");
        return Ok(());
    }
    let rows = [
        ("orders", report.books.orders, report.expected.orders),
        ("lines", report.books.lines, report.expected.lines),
        ("units", report.books.units, report.expected.units),
        (
            "adjustments",
            report.books.adjustments,
            report.expected.adjustments,
        ),
    ];
    println!("{:<24}{:>16}{:>16}", "", "books", "file");
    for (name, books, file) in rows {
        println!("{name:<24}{books:>16}{file:>16}");
    }
    println!(
        "{:<24}{:>16}{:>16}",
        "revenue",
        pounds(report.books.revenue_pence),
        pounds(report.expected.revenue_pence)
    );
    for (country, file) in &report.expected.by_country {
        let books = report
            .books
            .by_country
            .get(country)
            .map_or(0, |books| books.revenue_pence);
        println!(
            "  {country:<22}{:>16}{:>16}",
            pounds(books),
            pounds(file.revenue_pence)
        );
    }
    println!(
        "{} in {:.1} s; left out: {} bad-debt invoices; waiting for returns: {} cancellations",
        if report.equal { "equal" } else { "NOT EQUAL" },
        report.seconds,
        report.expected.left_out,
        report.cancellations_waiting,
    );
    Ok(())
}

fn pence(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "GBP" })
}

fn pounds(pence: i64) -> String {
    format!("{}.{:02}", pence / 100, pence % 100)
}

/// The account of the customer whom the retailer numbers so.
fn customer_id(name: &str) -> CustomerId {
    CustomerId::from_uuid(derive_uuid(
        "omisys/import/online-retail/customer",
        &[name.as_bytes()],
    ))
}
