//! The steps that callers take over HTTP, through the gateway.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, Method};
use serde::Deserialize;
use serde_json::json;
use testkit::load::{self, Load, Measured, Outcome, Pace, Step};
use testkit::{ClientError, Reply, User};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checks;
use super::receipts::Receipts;
use super::report::Report;
use super::shop::{self, Shopper, Stocked};
use super::system::System;
use super::{lag, processes, reading};
use crate::cli::{Bench, Scenario};
use crate::config::Config;
use crate::error::CliError;

/// How long a paid order's cart may take to be renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long a check-out waits for its order to be paid, in seconds: the most that the API allows.
const WAIT: &str = "wait=10";
/// How long the system is used before it is measured, and by how many: consumers join their groups, pools and caches fill.
const WARM_UP: Duration = Duration::from_secs(2);
const WARM_UP_CALLERS: usize = 16;
/// Kinds of failure that are told apart.
const FAILURES: usize = 10;
/// Of a hundred steps of `mixed`, those that read.
const READS: u64 = 95;

/// What callers share.
pub struct World {
    pub shop: Stocked,
    pub receipts: Receipts,
    /// Orders that can be read.
    pub orders: Vec<String>,
    failures: Mutex<BTreeMap<String, u64>>,
}

/// What came of a command.
pub enum Answer {
    /// With its consistency token.
    Accepted(String),
    Shed,
    Failed(String),
}

#[derive(Deserialize)]
struct Receipt {
    consistency_token: String,
}

/// Reads the answer to a command.
pub fn answer(reply: &Result<Reply, ClientError>) -> Answer {
    match reply {
        Ok(reply) if matches!(reply.status.as_u16(), 200 | 201) => {
            match serde_json::from_slice::<Receipt>(&reply.body) {
                Ok(receipt) => Answer::Accepted(receipt.consistency_token),
                Err(_) => Answer::Failed("a receipt without a token".to_owned()),
            }
        }
        Ok(reply) if matches!(reply.status.as_u16(), 429 | 503) => Answer::Shed,
        Ok(reply) => {
            let problem = reply.json();
            let kind = problem["type"].as_str().unwrap_or_default();
            Answer::Failed(format!("{} {kind}", reply.status.as_u16()))
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

impl World {
    pub fn new(shop: Stocked) -> Self {
        Self {
            shop,
            receipts: Receipts::default(),
            orders: Vec::new(),
            failures: Mutex::default(),
        }
    }

    /// What failed, and how often.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn forget_failures(&self) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn note(&self, failure: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.contains_key(&failure);
        let name = if known || failures.len() < FAILURES {
            failure
        } else {
            "others".to_owned()
        };
        *failures.entry(name).or_default() += 1;
    }

    /// The step that a command was; its receipt is kept.
    pub fn commanded(&self, reply: &Result<Reply, ClientError>) -> Outcome {
        match answer(reply) {
            Answer::Accepted(token) if self.receipts.keep_token(&token) => Outcome::Done,
            Answer::Accepted(token) => {
                self.note(format!("not a consistency token: {token}"));
                Outcome::Failed
            }
            Answer::Shed => Outcome::Shed,
            Answer::Failed(failure) => {
                self.note(failure);
                Outcome::Failed
            }
        }
    }

    /// The step that a read was.
    pub async fn read(&self, user: &User, path: &str) -> Outcome {
        let reply = user.try_request(Method::GET, path, None, &[], None).await;
        match &reply {
            Ok(reply) if reply.status == 200 => Outcome::Done,
            _ => self.commanded(&reply),
        }
    }
}

/// Runs `commands`, `checkout` or `mixed`.
pub async fn run(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let system = System::start(config, command).await?;
    let mut world = World::new(shop::stock(system.client(), command).await?);
    if command.scenario == Scenario::Mixed {
        world.orders = reading::place_orders(&system, &world.shop).await?;
    }
    let world = Arc::new(world);
    let scenario = command.scenario;
    let shared = Arc::clone(&world);
    let step = move |place, number| {
        let world = Arc::clone(&shared);
        async move {
            match scenario {
                Scenario::Checkout => check_out(&world, place, number).await,
                Scenario::Mixed => mixed(&world, place, number).await,
                _ => add(&world, place, number).await,
            }
        }
    };
    let mut report = measure(&system, command, command.load(), &world, step).await?;
    report.checks = checks::system(&system.config, &world.receipts).await?;
    report.failures = world.failures();
    if scenario == Scenario::Checkout {
        let lines = report.load.as_ref().map(Measured::units_per_second);
        report.also("lines_per_second", json!(lines));
    }
    report.also("receipts_checked", json!(world.receipts.count()));
    system.end().await;
    Ok(report)
}

/// Warms the system up and runs a load, with a look at the lag and at the processes beside it.
pub async fn measure<F, Fut>(
    system: &System,
    command: &Bench,
    load: Load,
    world: &World,
    step: F,
) -> Result<Report, CliError>
where
    F: Fn(usize, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Step> + Send + 'static,
{
    load::run(warm_up(load), step.clone()).await;
    world.forget_failures();
    let prober = shop::guest(&world.shop).await?;
    let over = CancellationToken::new();
    let loaded = async {
        let measured = load::run(load, step).await;
        over.cancel();
        measured
    };
    let sku = &world.shop.skus[0];
    let (measured, lag, used) = tokio::join!(
        loaded,
        lag::probe(&prober, sku, load.duration, over.clone()),
        processes::watch(system.processes(), over.clone()),
    );
    let mut report = Report::new(&system.config, command, measured);
    report.lag = Some(lag);
    report.processes = used;
    Ok(report)
}

/// The load before `load`.
pub fn warm_up(load: Load) -> Load {
    Load {
        pace: Pace::Closed,
        callers: load.callers.min(WARM_UP_CALLERS),
        duration: WARM_UP,
        ..load
    }
}

/// One more item in a cart.
async fn add(world: &World, place: usize, number: u64) -> Step {
    let line = world.shop.line(number);
    let reply = world.shop.shopper(place, number).add(&line.sku, 1).await;
    Step {
        outcome: world.commanded(&reply),
        kind: "add_to_cart",
        units: 1,
    }
}

async fn mixed(world: &World, place: usize, number: u64) -> Step {
    let by_chance = shop::mixed(number);
    if by_chance % 100 >= READS {
        return add(world, place, number).await;
    }
    let staff = &world.shop.staff.user().await;
    let (outcome, kind) = if by_chance.is_multiple_of(2) {
        let sku = &world.shop.line(number).sku;
        (
            world.read(staff, &format!("/v1/products?sku={sku}")).await,
            "product",
        )
    } else {
        let order = &world.orders[by_chance as usize / 2 % world.orders.len()];
        (world.read(staff, order).await, "order")
    };
    Step {
        outcome,
        kind,
        units: 1,
    }
}

/// A basket, filled, checked out and paid.
async fn check_out(world: &World, place: usize, number: u64) -> Step {
    let (shopper, basket) = (world.shop.shopper(place, number), world.shop.basket(number));
    let step = |outcome| Step {
        outcome,
        kind: "checkout",
        units: basket.len() as u64,
    };
    if shopper.untidy.load(Ordering::Relaxed) {
        let reply = shopper.clear().await;
        let outcome = world.commanded(&reply);
        if outcome != Outcome::Done {
            return step(outcome);
        }
        shopper.untidy.store(false, Ordering::Relaxed);
    }
    for line in basket {
        let outcome = fill(world, shopper, &line.sku, line.quantity).await;
        // What was shed is not in the cart.
        if outcome != Outcome::Shed {
            shopper.untidy.store(true, Ordering::Relaxed);
        }
        if outcome != Outcome::Done {
            return step(outcome);
        }
    }
    let user = shopper.member.user().await;
    let key = user.shop().fresh_key();
    let body = json!({ "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB" });
    let prefer = [(HeaderName::from_static("prefer"), WAIT.to_owned())];
    let path = "/v1/carts/mine/checkout";
    let reply = user
        .try_request(Method::POST, path, Some(&key), &prefer, Some(&body))
        .await;
    let outcome = world.commanded(&reply);
    let (Outcome::Done, Ok(reply)) = (outcome, reply) else {
        return step(outcome);
    };
    shopper.untidy.store(false, Ordering::Relaxed);
    let placed = reply.json();
    if placed["order"]["status"] == "paid" {
        return step(Outcome::Done);
    }
    let status = placed["order"]["status"].as_str().unwrap_or("unknown");
    world.note(format!("an order was {status} in the end"));
    step(Outcome::Failed)
}

/// Puts something into a cart, which may still be the one of the order that was paid last: a policy renews it.
async fn fill(world: &World, shopper: &Shopper, sku: &str, quantity: u32) -> Outcome {
    let end = Instant::now() + RENEWAL;
    loop {
        let reply = shopper.put(sku, quantity).await;
        match &reply {
            Ok(refused) if refused.status == 409 && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            _ => return world.commanded(&reply),
        }
    }
}
