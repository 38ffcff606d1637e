//! `omisys bench`: load in a closed loop on stores of its own, with checks of what the load left behind.

use std::sync::Arc;
use std::time::Duration;

use aggregates::inventory::{InventoryCommand, StockItem};
use event_schemas::{Actor, Clock, CommandId, Position, ProductId, Reference, derive_uuid};
use event_store::{CommandRequest, Executor, ExecutorOptions, Executors};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use testkit::{Client, Shop, User};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::cli::{Bench, Profile, Scenario};
use crate::config::{Config, Payments};
use crate::demo;
use crate::embedded::Embedded;
use crate::error::{CliError, Context};
use crate::stores::{open_log, open_log_file, open_log_in};

const REMEDY: &str = "set TMPDIR to a folder with room, on the disk to be measured";
/// Aggregates that the commands of `append` are spread over.
const SKUS: usize = 4_096;
/// How long what the load began may take to come to its end.
const SETTLE: Duration = Duration::from_secs(120);
/// How long a paid order's cart may take to be renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// More than a benchmark sends: its limits are not what is measured.
const UNLIMITED: gateway::Rate = gateway::Rate {
    requests: 1_000_000_000,
    window_seconds: 1,
};

/// What one caller, or all of them, measured.
struct Load {
    /// Microseconds.
    latency: Histogram<u64>,
    errors: u64,
    seconds: f64,
}

impl Load {
    fn new() -> Result<Self, CliError> {
        let latency =
            Histogram::new_with_bounds(1, 120_000_000, 3).context("no histogram", "report this as a bug")?;
        Ok(Self {
            latency,
            errors: 0,
            seconds: 0.0,
        })
    }
}

/// Runs the subcommand; a check that fails is an error. Without `--against` the configured stores are not touched.
pub async fn run(config: &Config, command: &Bench, json: bool) -> Result<(), CliError> {
    let (load, checks) = match &command.against {
        Some(address) => against(config, command, address).await?,
        None => on_its_own(config, command).await?,
    };
    report(command, &load, &checks, json);
    let failed = checks
        .as_object()
        .is_some_and(|checks| checks.values().any(|held| held == false));
    if failed || load.errors > 0 {
        return Err(CliError::failed(
            "the load did not leave what it should",
            "look at the checks and errors above",
        ));
    }
    Ok(())
}

/// Loads a system of its own, on stores that are thrown away.
async fn on_its_own(config: &Config, command: &Bench) -> Result<(Load, Value), CliError> {
    let directory = tempfile::tempdir().context("no temporary folder", REMEDY)?;
    let mut config = Config {
        profile: Profile::Embedded,
        data_dir: directory.path().to_owned(),
        payments: Payments { sandbox: true },
        ..config.clone()
    };
    config.gateway.per_address = UNLIMITED;
    config.gateway.per_caller = UNLIMITED;
    config.gateway.trusted_proxies = vec![
        "127.0.0.1"
            .parse()
            .context("no address", "report this as a bug")?,
    ];
    match command.scenario {
        Scenario::Append => append(&config, command).await,
        Scenario::Checkout => over_http(&config, command, buy).await,
        Scenario::Read => over_http(&config, command, read).await,
    }
}

/// Loads a running system, which must hold the demo, and checks the log that the configuration names.
async fn against(config: &Config, command: &Bench, address: &str) -> Result<(Load, Value), CliError> {
    let client = Client::new(address);
    let load = match command.scenario {
        Scenario::Append => {
            return Err(CliError::usage(
                "append loads the executor, not an address",
                "leave --against out, or choose checkout or read",
            ));
        }
        Scenario::Checkout => load_http(client, command, buy).await?,
        Scenario::Read => load_http(client, command, read).await?,
    };
    let (database, log) = open_log(config).await?;
    let end = Instant::now() + SETTLE;
    loop {
        let findings = audit::walk(&database, &log, Duration::ZERO).await?;
        // What is under way looks like what is owed.
        if findings.breaches.is_empty() || Instant::now() > end {
            let checks = json!({ "no_invariant_is_broken": findings.breaches.is_empty(), "orders_in_the_log": findings.orders });
            return Ok((load, checks));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Runs `step` from `callers` tasks at once until the time is over.
async fn closed_loop<S, F, Fut>(command: &Bench, callers: Vec<S>, step: F) -> Result<Load, CliError>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(S, u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send,
{
    let started = Instant::now();
    let end = started + Duration::from_secs(command.seconds);
    let mut tasks = JoinSet::new();
    for caller in callers {
        let (step, mut load) = (step.clone(), Load::new()?);
        tasks.spawn(async move {
            let mut round = 0;
            while Instant::now() < end {
                let begun = Instant::now();
                let done = step(caller.clone(), round).await;
                load.latency
                    .saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
                load.errors += u64::from(!done);
                round += 1;
            }
            load
        });
    }
    let mut all = Load::new()?;
    for load in tasks.join_all().await {
        all.latency
            .add(load.latency)
            .context("no histogram", "report this as a bug")?;
        all.errors += load.errors;
    }
    all.seconds = started.elapsed().as_secs_f64();
    Ok(all)
}

/// Receipts of stock through the executor alone, each durable before the next of its caller.
async fn append(config: &Config, command: &Bench) -> Result<(Load, Value), CliError> {
    let log = open_log_in(&open_log_file(config)?.into()).await?;
    let inventory = Executors::start(&log, &ExecutorOptions::default()).inventory;
    let reference = Reference::new("bench").context("no reference", "report this as a bug")?;
    assign_skus(&inventory).await?;
    let callers = (0..command.callers).collect();
    let load = closed_loop(command, callers, move |caller: usize, round| {
        let (inventory, reference) = (inventory.clone(), reference.clone());
        async move {
            let id = CommandId::from_uuid(derive_uuid(
                "omisys/bench",
                &[&caller.to_be_bytes(), &round.to_be_bytes()],
            ));
            let receive = InventoryCommand::Receive {
                quantity: 1,
                reference,
            };
            let sku = format!("BENCH-{}", (caller * 31 + round as usize) % SKUS);
            inventory
                .submit(
                    sku.as_str(),
                    CommandRequest::new(id, Actor::system("bench"), receive),
                )
                .await
                .is_ok()
        }
    })
    .await?;
    let head = log.head().await.context("the log could not be read", REMEDY)?;
    let acknowledged = load.latency.len() - load.errors;
    let checks =
        json!({ "every_acknowledged_command_is_in_the_log": head == Position(acknowledged + SKUS as u64) });
    Ok((load, checks))
}

/// Stock is received for SKUs of a product only.
async fn assign_skus(inventory: &Executor<StockItem>) -> Result<(), CliError> {
    for sku in 0..SKUS {
        let id = CommandId::from_uuid(derive_uuid("omisys/bench/assign", &[&sku.to_be_bytes()]));
        let assign = InventoryCommand::AssignSku {
            product_id: ProductId::for_command(id),
        };
        let request = CommandRequest::new(id, Actor::system("bench"), assign);
        let pending = inventory.enqueue(format!("BENCH-{sku}").as_str(), request).await;
        if sku + 1 == SKUS {
            pending.await.context("the SKUs could not be assigned", REMEDY)?;
        }
    }
    Ok(())
}

/// A step over HTTP, through the gateway on loopback, of guests with addresses of their own.
async fn over_http<F, Fut>(config: &Config, command: &Bench, step: F) -> Result<(Load, Value), CliError>
where
    F: Fn(Buyer, u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send,
{
    let embedded = Embedded::start(config, Arc::new(|_: &mut String| {})).await?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("no port", "free a port on loopback")?;
    let address = listener
        .local_addr()
        .context("no port", "free a port on loopback")?;
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let gateway = tokio::spawn(gateway::serve(
        listener,
        embedded.gateway.clone(),
        soft.clone(),
        hard,
    ));
    demo::seed(&embedded.command, &embedded.identity).await?;
    let load = load_http(Client::new(&format!("http://{address}")), command, step).await?;
    embedded.settle().await?;
    let findings = audit::walk(&embedded.log_file().into(), &embedded.log, Duration::ZERO).await?;
    soft.cancel();
    // The listener has nothing to answer any more.
    let _ = gateway.await;
    embedded.stop().await;
    let checks = json!({ "no_invariant_is_broken": findings.breaches.is_empty(), "orders_in_the_log": findings.orders });
    Ok((load, checks))
}

/// A step of guests of the demo at `client`'s address, each with one SKU that nobody else's run has sold.
async fn load_http<F, Fut>(client: Client, command: &Bench, step: F) -> Result<Load, CliError>
where
    F: Fn(Buyer, u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send,
{
    let run = Clock::System.now().as_millisecond();
    let shop = Shop::new(client, format!("bench-{run}"));
    let sku: Arc<str> = format!("BENCH-{run}").into();
    let (_, email, password) = demo::ACCOUNTS[0];
    shop.login(email, password)
        .await
        .stock_product(&sku, 1_000, 100_000_000)
        .await;
    let mut buyers = Vec::new();
    for _ in 0..command.callers {
        let guest = Arc::new(shop.guest().await);
        buyers.push(Buyer {
            guest,
            sku: Arc::clone(&sku),
        });
    }
    closed_loop(command, buyers, step).await
}

/// A guest and what it buys.
#[derive(Clone)]
struct Buyer {
    guest: Arc<User>,
    sku: Arc<str>,
}

async fn buy(Buyer { guest, sku }: Buyer, _: u64) -> bool {
    // After an order was paid, a policy renews the cart: whoever buys again at once may be too early.
    let end = Instant::now() + RENEWAL;
    loop {
        match guest.add_to_cart(&sku, 1).await.status.as_u16() {
            200 | 201 => break,
            409 if Instant::now() < end => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => return false,
        }
    }
    guest.check_out("tok_ok", 10).await.json()["order"]["status"] == "paid"
}

async fn read(Buyer { guest, sku }: Buyer, _: u64) -> bool {
    guest.get(&format!("/v1/products?sku={sku}")).await.status == 200
}

fn report(command: &Bench, load: &Load, checks: &Value, json: bool) {
    let millis = |micros: u64| micros as f64 / 1_000.0;
    let throughput = load.latency.len() as f64 / load.seconds;
    let [p50, p99] = [0.5, 0.99].map(|quantile| millis(load.latency.value_at_quantile(quantile)));
    let max = millis(load.latency.max());
    let scenario = format!("{:?}", command.scenario).to_lowercase();
    if json {
        println!(
            "{}",
            json!({
                "scenario": scenario, "callers": command.callers, "throughput": throughput, "p50_ms": p50, "p99_ms": p99,
                "max_ms": max, "errors": load.errors, "checks": checks,
            })
        );
        return;
    }
    println!(
        "{scenario}, {} callers, closed loop: {throughput:.0}/s  p50 {p50:.2} ms  p99 {p99:.2} ms  max {max:.2} ms",
        command.callers
    );
    println!("errors: {}  checks: {checks}", load.errors);
}
