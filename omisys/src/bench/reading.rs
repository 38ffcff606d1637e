//! Reads over HTTP, each kind alone, and beside each a bare axum handler that answers with the same bytes.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use bytes::Bytes;
use event_schemas::Clock;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use serde_json::{Value, json};
use testkit::load::{self, Load, Measured, Outcome, Step};
use testkit::{Client, Shop};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::http::{World, measure, warm_up};
use super::report::{Kind, Report};
use super::shop::{self, Stocked};
use super::system::{System, binary};
use super::{checks, lag};
use crate::cli::Bench;
use crate::config::Config;
use crate::error::{CliError, Context};

/// Orders that are placed to be read, each once or at random.
const ORDERS: usize = 2_000;
/// As [`ORDERS`], of a system that keeps what was read.
const FEW_ORDERS: usize = 200;
/// Documents that are read over and over, where all are to come from caches.
const HOT: usize = 64;
/// Orders placed at once.
const AT_ONCE: usize = 32;
const BARE: &str = "the bare handler could not be served";

/// Documents of one kind, and how they are read.
struct Phase {
    name: &'static str,
    paths: Arc<Vec<String>>,
    /// Each is read once, by a system that has just started, instead of the first few over and over.
    once: bool,
}

/// Reads orders and products: each once by a system that has just started, then a few over and over.
pub async fn run(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let mut system = System::start(config, command).await?;
    let mut stocked = shop::stock(system.client(), command).await?;
    let orders = Arc::new(place_orders(&system, &stocked).await?);
    let products: Vec<String> = stocked
        .skus
        .iter()
        .map(|sku| format!("/v1/products?sku={sku}"))
        .collect();
    let products = Arc::new(products);
    checks::quiet(&system.config).await?;
    system.restart().await?;
    let again = Clock::System.now().as_microsecond();
    let shop = Shop::new(system.client().clone(), format!("bench-{again}"));
    stocked.staff = shop::staff(&shop).await?;
    let world = Arc::new(World::new(stocked));

    let phase = |name, paths: &Arc<Vec<String>>, once| Phase {
        name,
        paths: Arc::clone(paths),
        once,
    };
    let mut kinds = Vec::new();
    if system.can_restart() {
        for cold in [
            phase("order_not_cached", &orders, true),
            phase("product_not_cached", &products, true),
        ] {
            let measured = load::run(cold.load(command), cold.step(&world).await?).await;
            kinds.push(Kind::of(cold.name, &measured, None));
        }
    }
    let order = phase("order", &orders, false);
    let step = order.step(&world).await?;
    load::run(warm_up(order.load(command)), step.clone()).await;
    let measured = load::run(order.load(command), step).await;
    let bare = order.bare(command, world.shop.staff.user().await.shop()).await?;
    kinds.push(Kind::of(order.name, &measured, Some(&bare)));
    // The last one is the scenario's own figure.
    let product = phase("product", &products, false);
    let mut report = measure(
        &system,
        command,
        product.load(command),
        &world,
        product.step(&world).await?,
    )
    .await?;
    let bare = product
        .bare(command, world.shop.staff.user().await.shop())
        .await?;
    if let Some(measured) = &report.load {
        kinds.push(Kind::of(product.name, measured, Some(&bare)));
    }
    let served = report.load.as_ref().map_or(0.0, Measured::goodput);
    report.ratio = Some(served / bare.goodput().max(0.001));
    report.kinds = kinds;
    report.failures = world.failures();
    report.checks = checks::system(&system.config, &world.receipts).await?;
    system.end().await;
    Ok(report)
}

impl Phase {
    fn load(&self, command: &Bench) -> Load {
        let load = command.load();
        let at_most = if self.once {
            self.paths.len() as u64
        } else {
            load.at_most
        };
        Load { at_most, ..load }
    }

    /// A read of one of the documents.
    async fn step(
        &self,
        world: &Arc<World>,
    ) -> Result<impl Fn(usize, u64) -> BoxFuture<'static, Step> + Clone + Send + use<>, CliError> {
        let reader = Arc::new(shop::staff(world.shop.staff.user().await.shop()).await?);
        let (name, once, paths, world) = (self.name, self.once, Arc::clone(&self.paths), Arc::clone(world));
        Ok(move |_, number| -> BoxFuture<'static, Step> {
            let (paths, world, reader) = (Arc::clone(&paths), Arc::clone(&world), Arc::clone(&reader));
            Box::pin(async move {
                let at = if once {
                    number as usize
                } else {
                    shop::mixed(number) as usize % HOT
                };
                let outcome = world.read(&*reader.user().await, &paths[at % paths.len()]).await;
                Step {
                    outcome,
                    kind: name,
                    units: 1,
                }
            })
        })
    }

    /// The same load on a handler that answers with the bytes of one of these documents, and does nothing else.
    async fn bare(&self, command: &Bench, shop: &Shop) -> Result<Measured, CliError> {
        let reader = shop::staff(shop).await?.user().await;
        let answered = reader
            .try_request(Method::GET, &self.paths[0], None, &[], None)
            .await
            .context("what is read could not be read", "run it again")?;
        let (mut child, client) = serve_elsewhere(&answered.body).await?;
        let bare = reader.in_shop(&Shop::new(client, "bench-bare"));
        let name = self.name;
        let step = move |_, _| {
            let bare = bare.clone();
            async move {
                let reply = bare.try_request(Method::GET, "/", None, &[], None).await;
                let outcome = if reply.is_ok_and(|reply| reply.status == 200) {
                    Outcome::Done
                } else {
                    Outcome::Failed
                };
                Step {
                    outcome,
                    kind: name,
                    units: 1,
                }
            }
        };
        load::run(warm_up(self.load(command)), step.clone()).await;
        let measured = load::run(self.load(command), step).await;
        // One that has ended by itself is as gone.
        let _ = child.kill().await;
        Ok(measured)
    }
}

/// Places orders of one line as staff; answers the paths at which they can be read, once all of them can.
pub async fn place_orders(system: &System, shop: &Stocked) -> Result<Vec<String>, CliError> {
    let count = if system.can_restart() { ORDERS } else { FEW_ORDERS };
    let staff = &shop.staff.user().await;
    let placed = (0..count as u64).map(|number| async move {
        let line = shop.line(number);
        let body = json!({
            "lines": [{ "sku": line.sku, "quantity": 1 }], "country": "GB",
            "payment": { "method": "sandbox", "token": "tok_ok" },
        });
        let answer = shop::must(staff, "/v1/orders", &body, 201).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = format!("/v1/orders/{}", text(&answer["order"]["id"]));
        if lag::seen(staff, &path, &text(&answer["consistency_token"])).await {
            return Ok(path);
        }
        Err(CliError::failed(
            format!("{path} cannot be read"),
            "look at the system's log",
        ))
    });
    stream::iter(placed).buffer_unordered(AT_ONCE).try_collect().await
}

/// Serves bytes in a process of its own, as what it is compared with is served.
async fn serve_elsewhere(bytes: &[u8]) -> Result<(Child, Client), CliError> {
    let remedy = "run it again";
    let mut child = Command::new(binary()?)
        .args(["serve-bytes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(BARE, remedy)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).await.context(BARE, remedy)?;
    }
    let Some(stdout) = child.stdout.take() else {
        return Err(CliError::failed(BARE, remedy));
    };
    let line = BufReader::new(stdout).lines().next_line().await;
    let address = line.context(BARE, remedy)?;
    let address = address.ok_or_else(|| CliError::failed(BARE, remedy))?;
    Ok((child, Client::new(&address)))
}

/// `omisys serve-bytes`, which `bench read` compares with: prints its address, and answers every GET of `/` with what was
/// on standard input, as a bare axum handler does.
pub async fn serve_bytes() -> Result<(), CliError> {
    let remedy = "this is for `omisys bench read`";
    let mut bytes = Vec::new();
    // Nothing else waits for this thread yet.
    std::io::stdin().read_to_end(&mut bytes).context(BARE, remedy)?;
    let bytes = Bytes::from(bytes);
    let handler = get(move || async move { ([(CONTENT_TYPE, "application/json")], bytes) });
    let listener = TcpListener::bind("127.0.0.1:0").await.context(BARE, remedy)?;
    println!("http://{}", listener.local_addr().context(BARE, remedy)?);
    axum::serve(listener, Router::new().route("/", handler))
        .await
        .context(BARE, remedy)
}
