//! Commands through the executor alone, without HTTP, sagas or read models, on a log that is thrown away.

use std::collections::HashSet;
use std::time::Duration;

use aggregates::inventory::{InventoryCommand, InventoryError, StockItem};
use database::Database;
use event_schemas::{
    Actor, AggregateType, Code, CommandId, Event, InventoryEvent, OrderId, ProductId, Reference, StreamId,
    Version,
};
use event_store::{CommandRequest, ExecuteError, Executor, ExecutorOptions, Executors, Log, Receipt};
use serde_json::json;
use tempfile::TempDir;
use testkit::load::{self, Outcome, Step};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::http::warm_up;
use super::receipts::Receipts;
use super::report::Report;
use super::{checks, processes, shop, system};
use crate::cli::{Bench, Profile};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{open_log_file, open_log_in};

/// Aggregates that the commands of `append` are spread over: each caller has some of its own.
pub const SKUS: usize = 4_096;
const HOT_SKU: &str = "BENCH-HOT";
/// More than can be reserved in a run, at first.
const PLENTY: u32 = 1_000_000_000;
const REMEDY: &str = "run `omisys doctor`";
const WHAT: &str = "the stock could not be filled";

/// A log of its own.
struct Own {
    database: Database,
    log: Log,
    _folder: Option<TempDir>,
    #[cfg(feature = "cluster")]
    _postgres: Option<database::testing::TestDatabase>,
}

impl Own {
    /// In a file, or in a database of its own on the configured server.
    async fn open(config: &Config) -> Result<Self, CliError> {
        match config.profile {
            Profile::Embedded => {
                let folder = system::folder()?;
                let config = Config {
                    data_dir: folder.path().to_owned(),
                    ..config.clone()
                };
                let database: Database = open_log_file(&config)?.into();
                Ok(Self {
                    log: open_log_in(&database).await?,
                    database,
                    _folder: Some(folder),
                    #[cfg(feature = "cluster")]
                    _postgres: None,
                })
            }
            #[cfg(feature = "cluster")]
            Profile::Cluster => {
                let postgres = own_database(config).await?;
                let database = postgres.database().clone();
                Ok(Self {
                    log: open_log_in(&database).await?,
                    database,
                    _folder: None,
                    _postgres: Some(postgres),
                })
            }
            #[cfg(not(feature = "cluster"))]
            Profile::Cluster => Err(crate::stores::without_cluster()),
        }
    }
}

/// A database that goes with its handle.
#[cfg(feature = "cluster")]
pub async fn own_database(config: &Config) -> Result<database::testing::TestDatabase, CliError> {
    let url = crate::cluster::stores::postgres_url(config)?;
    database::testing::TestDatabase::postgres_on(url).await.context(
        "a database of its own could not be made",
        "check postgres.url, that the server runs, and that its user may create databases",
    )
}

/// Receipts of stock, each durable before the next of its caller.
pub async fn append(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let own = Own::open(config).await?;
    let inventory = Executors::start(&own.log, &ExecutorOptions::default()).inventory;
    for number in 0..SKUS {
        let pending = inventory
            .enqueue(sku(number).as_str(), assign(number as u64))
            .await;
        if number + 1 == SKUS {
            pending.await.context(WHAT, REMEDY)?;
        }
    }
    let (receipts, callers) = (Receipts::default(), command.load().callers);
    let (kept, reference) = (receipts.clone(), reference()?);
    let step = move |place, number| {
        let command = InventoryCommand::Receive {
            quantity: 1,
            reference: reference.clone(),
        };
        let (inventory, kept) = (inventory.clone(), kept.clone());
        async move {
            let sku = sku(spread(place, number, callers));
            let submitted = inventory.submit(sku.as_str(), request(number, command)).await;
            step(&submitted, &kept, "receive")
        }
    };
    load::run(warm_up(command.load()), before(step.clone())).await;
    let mut report = measure(config, command, step).await;
    report.checks = checks::log(&own.database, &own.log, &receipts).await?;
    report.also("receipts_checked", json!(receipts.count()));
    #[cfg(feature = "cluster")]
    if command.baseline {
        super::baseline::add(config, command, &mut report).await?;
    }
    Ok(report)
}

/// A unit of one SKU for an order of its own, again and again, until long after there is none left.
pub async fn hot_sku(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let own = Own::open(config).await?;
    let inventory = Executors::start(&own.log, &ExecutorOptions::default()).inventory;
    let receive = InventoryCommand::Receive {
        quantity: PLENTY,
        reference: reference()?,
    };
    inventory.submit(HOT_SKU, assign(0)).await.context(WHAT, REMEDY)?;
    let received = inventory.submit(HOT_SKU, request(u64::MAX, receive)).await;
    received.context(WHAT, REMEDY)?;
    let receipts = Receipts::default();
    let (buying, kept) = (inventory.clone(), receipts.clone());
    let step = move |_, number| {
        let (inventory, kept) = (buying.clone(), kept.clone());
        async move {
            let reserve = InventoryCommand::Reserve {
                order_id: OrderId::from_uuid(uuid(number)),
                quantity: 1,
            };
            let submitted = inventory.submit(HOT_SKU, request(number, reserve)).await;
            step(&submitted, &kept, "reserve")
        }
    };
    let seconds = command.load().duration;
    let (mut report, short) = tokio::join!(measure(config, command, step), run_short(&inventory, seconds));
    short?;
    let said = promises(&own.log).await?;
    let answered = report.load.as_ref().map_or(0, |load| load.completed);
    report.checks = checks::log(&own.database, &own.log, &receipts).await?;
    let reserved = said.reserved.len() as u64;
    report.checks.extend([
        ("no_order_has_the_same_unit_twice", said.twice == 0),
        (
            "each_answer_is_one_promise_or_refusal_in_the_log",
            reserved + said.refused == answered,
        ),
    ]);
    report.also(
        "the_last_unit_was_asked_for",
        json!(said.refused > 0 && reserved == said.units),
    );
    report.also("units_reserved", json!(reserved));
    report.also("answered_with_none_left", json!(said.refused));
    Ok(report)
}

/// What the log says of the SKU that everybody wants.
#[derive(Default)]
struct Promises {
    /// On hand in the end.
    units: u64,
    reserved: HashSet<OrderId>,
    /// Reservations of an order that had one.
    twice: u64,
    refused: u64,
}

async fn promises(log: &Log) -> Result<Promises, CliError> {
    let stream = StreamId::new(AggregateType::Inventory, HOT_SKU);
    let (mut said, mut units) = (Promises::default(), 0_i64);
    for event in log
        .read_stream(&stream, Version(0), None)
        .await
        .context(WHAT, REMEDY)?
    {
        let Event::Inventory(event) = &event.event else {
            continue;
        };
        match event {
            InventoryEvent::StockReceived { quantity, .. } => units += i64::from(*quantity),
            InventoryEvent::StockAdjusted { delta, .. } => units += delta,
            InventoryEvent::StockReserved { order_id, .. } => {
                said.twice += u64::from(!said.reserved.insert(*order_id));
            }
            InventoryEvent::ReservationRejected { .. } => said.refused += 1,
            _ => {}
        }
    }
    said.units = u64::try_from(units).unwrap_or_default();
    Ok(said)
}

/// Once most of the time has passed, takes all units away but so many as are asked for in an eighth of it: the demand for
/// the last ones is what would oversell.
async fn run_short(inventory: &Executor<StockItem>, seconds: Duration) -> Result<(), CliError> {
    tokio::time::sleep(seconds * 7 / 10).await;
    let reserved = inventory
        .with_state(HOT_SKU, |item: &StockItem, _| item.reserved_total())
        .await
        .context("the stock could not be read", REMEDY)?;
    let left = reserved / 8 + 1;
    let mut available = u64::from(PLENTY) - reserved;
    let reason = Code::new("bench").context("no code", "report this as a bug")?;
    for attempt in 1..=100 {
        let away = i64::try_from(available.saturating_sub(left)).unwrap_or(i64::MAX);
        let adjust = InventoryCommand::Adjust {
            delta: -away,
            reason: reason.clone(),
        };
        match inventory
            .submit(HOT_SKU, request(u64::MAX - attempt, adjust))
            .await
        {
            Err(ExecuteError::Refused(InventoryError::BelowReserved { available: now })) => available = now,
            other => {
                return other
                    .map(drop)
                    .context("the stock could not be run short", "run it again");
            }
        }
    }
    Err(CliError::failed(
        "the stock could not be run short",
        "run it again",
    ))
}

async fn measure<F, Fut>(config: &Config, command: &Bench, step: F) -> Report
where
    F: Fn(usize, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Step> + Send + 'static,
{
    let over = CancellationToken::new();
    let loaded = async {
        let measured = load::run(command.load(), step).await;
        over.cancel();
        measured
    };
    let (measured, used) = tokio::join!(loaded, processes::watch(Vec::new(), over.clone()));
    let mut report = Report::new(config, command, measured);
    report.processes = used;
    report
}

fn step(
    submitted: &Result<Receipt, ExecuteError<InventoryError>>,
    kept: &Receipts,
    kind: &'static str,
) -> Step {
    let outcome = match submitted {
        Ok(receipt) => {
            kept.keep(receipt);
            Outcome::Done
        }
        Err(ExecuteError::Overloaded) => Outcome::Shed,
        Err(_) => Outcome::Failed,
    };
    Step {
        outcome,
        kind,
        units: 1,
    }
}

/// A step of the warm-up, under numbers that the load does not come to.
pub fn before<F, Fut>(step: F) -> impl Fn(usize, u64) -> Fut + Clone + Send + 'static
where
    F: Fn(usize, u64) -> Fut + Clone + Send + 'static,
{
    move |place, number| step(place, number | 1 << 40)
}

/// The SKU of a caller's step: its own, so that no two callers ever meet at one.
pub fn spread(place: usize, number: u64, callers: usize) -> usize {
    let each = (SKUS / callers).max(1);
    (place + callers * (number as usize / callers % each)) % SKUS
}

/// Its name.
pub fn sku(number: usize) -> String {
    format!("BENCH-{number}")
}

/// What `append` does.
pub fn reference() -> Result<Reference, CliError> {
    Reference::new("bench").context("no reference", "report this as a bug")
}

/// Makes a SKU a product's: stock is received for those only.
fn assign(number: u64) -> CommandRequest<InventoryCommand> {
    let id = CommandId::from_uuid(Uuid::from_u64_pair(number, u64::MAX));
    let product_id = ProductId::for_command(id);
    CommandRequest::new(id, actor(), InventoryCommand::AssignSku { product_id })
}

fn request(number: u64, command: InventoryCommand) -> CommandRequest<InventoryCommand> {
    CommandRequest::new(CommandId::from_uuid(uuid(number)), actor(), command)
}

/// Unlike any other of the run, spread over all ids as random ones are.
pub fn uuid(number: u64) -> Uuid {
    Uuid::from_u64_pair(shop::mixed(number) << 24, number)
}

fn actor() -> Actor {
    Actor::system("bench")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_callers_share_a_sku() {
        for callers in [1, 3, 64, 256, SKUS] {
            let of = |place| -> BTreeSet<usize> {
                (0..20_000).map(|number| spread(place, number, callers)).collect()
            };
            let (first, last) = (of(0), of(callers - 1));
            assert!(callers == 1 || first.is_disjoint(&last), "{callers}");
            assert!(first.iter().chain(&last).all(|sku| *sku < SKUS));
            assert_eq!(
                first.len(),
                (SKUS / callers).max(1).min(20_000 / callers + 1),
                "{callers}"
            );
        }
    }
}
