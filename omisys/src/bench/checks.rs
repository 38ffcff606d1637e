//! What must hold of the log and of the read models, whatever the load was.

use std::time::Duration;

use aggregates::audit;
use database::Database;
use event_store::Log;
use projections::{VIEW_NAMES, Views};
use tokio::time::{Instant, sleep};

use super::receipts::Receipts;
use crate::audit::walk;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{open_log, open_views};

const WHAT: &str = "the log could not be read";
const REMEDY: &str = "run `omisys doctor`";
/// How long what the load began may take to come to its end.
const SETTLE: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nothing that was begun in the run is owed yet.
const NOTHING_OWED: Duration = Duration::from_secs(24 * 3_600);

const STOCK: [&str; 4] = [
    audit::OVERSOLD,
    audit::HOLDING,
    audit::RESERVED_FIRST,
    audit::NOTHING_HELD,
];
const MONEY: [&str; 8] = [
    audit::PAID,
    audit::REFUNDED,
    audit::CAPTURED_ONCE,
    audit::REFUND_LIMIT,
    audit::REFUNDED_ONCE,
    audit::CURRENCY,
    audit::BALANCE,
    audit::NOTHING_KEPT,
];

/// A check and whether it held.
pub type Checks = Vec<(&'static str, bool)>;

/// Of a whole system, once what is under way has come to its end: it may go on running.
pub async fn system(config: &Config, receipts: &Receipts) -> Result<Checks, CliError> {
    let (database, log) = open_log(config).await?;
    let views = open_views(config, &database, &log).await?;
    let end = Instant::now() + SETTLE;
    loop {
        settle(&log, end).await?;
        // What is under way looks like what is owed.
        let mut checks = of_log(&database, &log, receipts, Duration::ZERO).await?;
        let (equal, waiting) = compare(&views, &log).await?;
        checks.push(("projections_equal_a_fold_of_the_log", equal && !waiting));
        if checks.iter().all(|(_, held)| *held) || Instant::now() > end {
            return Ok(checks);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Of a log that nobody but the load has written to, which promised nothing beyond its commands.
pub async fn log(database: &Database, log: &Log, receipts: &Receipts) -> Result<Checks, CliError> {
    of_log(database, log, receipts, NOTHING_OWED).await
}

async fn of_log(
    database: &Database,
    log: &Log,
    receipts: &Receipts,
    grace: Duration,
) -> Result<Checks, CliError> {
    let findings = walk(database, log, grace).await?;
    let broken: Vec<&str> = findings
        .breaches
        .iter()
        .filter_map(|breach| breach["invariant"].as_str())
        .collect();
    let none_of = |names: &[&str]| !broken.iter().any(|invariant| names.contains(invariant));
    let others = broken
        .iter()
        .any(|invariant| !STOCK.contains(invariant) && !MONEY.contains(invariant));
    let missing = receipts.missing(log).await.context(WHAT, REMEDY)?;
    Ok(vec![
        ("nothing_is_oversold", none_of(&STOCK)),
        ("money_is_conserved", none_of(&MONEY)),
        ("no_other_invariant_is_broken", !others),
        ("every_acknowledged_command_is_in_the_log", missing == 0),
    ])
}

/// Waits until the configured log stands still for a moment.
pub async fn quiet(config: &Config) -> Result<(), CliError> {
    let (_database, log) = open_log(config).await?;
    settle(&log, Instant::now() + SETTLE).await
}

/// Waits until the log stands still for a moment.
async fn settle(log: &Log, end: Instant) -> Result<(), CliError> {
    let mut before = log.head().await.context(WHAT, REMEDY)?;
    while Instant::now() < end {
        sleep(LOOK_EVERY).await;
        let head = log.head().await.context(WHAT, REMEDY)?;
        if head == before {
            break;
        }
        before = head;
    }
    Ok(())
}

/// Whether every view is what the log folds to, and whether one has not come to its head yet.
async fn compare(views: &Views, log: &Log) -> Result<(bool, bool), CliError> {
    let (mut equal, mut waiting) = (true, false);
    for name in VIEW_NAMES {
        let found = views
            .verify(log, name)
            .await
            .context(&format!("{name} could not be compared"), REMEDY)?;
        equal &= found.equal();
        waiting |= found.waiting > 0;
    }
    Ok((equal, waiting))
}
