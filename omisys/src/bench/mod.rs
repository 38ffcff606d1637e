//! `omisys bench`: load on the system, and checks of what the load left behind.
//!
//! * `system`: what is loaded — processes of this binary on stores that are thrown away, or a system that runs.
//! * `shop`: guests, goods and baskets; `http`: the steps over HTTP; `reading`: reads beside a bare handler.
//! * `executor`: commands without HTTP, and `baseline` the same through stock `postgres-es`; `rebuilding`: the log's readers.
//! * `lag`, `processes`: what is measured beside the load; `receipts`, `checks`: what must hold after it.
//! * `report`, `page`: how it is told.

#[cfg(feature = "cluster")]
mod baseline;
mod checks;
mod executor;
mod http;
mod lag;
mod page;
mod processes;
mod reading;
mod rebuilding;
mod receipts;
mod report;
mod shop;
mod system;

use std::time::Duration;

use testkit::load::{Load, Pace};

use crate::cli::{Baskets, Bench, Profile, Scenario};
use crate::config::Config;
use crate::error::CliError;
use crate::serve::Signals;
use report::Report;

pub use reading::serve_bytes;

/// How many are under way at once, unless it is said.
const CALLERS: usize = 64;
/// Of `hot-sku`, whose point they are.
const HOT_CALLERS: usize = 200;

/// Runs the subcommand; a check that fails is an error. Without `--against` the configured stores are not touched, but
/// by `rebuild`.
pub async fn run(config: &Config, command: &Bench, json: bool) -> Result<(), CliError> {
    let command = sensible(config, command)?;
    let mut signals = Signals::new()?;
    // What is dropped takes its processes and stores along.
    let report = tokio::select! {
        report = scenario(config, &command) => report?,
        () = signals.next() => return Err(CliError::failed("stopped before the end", "run it again")),
    };
    report.tell(json)?;
    if let Some(directory) = &command.report {
        report.write(directory)?;
    }
    report.verdict()
}

async fn scenario(config: &Config, command: &Bench) -> Result<Report, CliError> {
    match command.scenario {
        Scenario::Append => executor::append(config, command).await,
        Scenario::HotSku => executor::hot_sku(config, command).await,
        Scenario::Commands | Scenario::Checkout | Scenario::Mixed => http::run(config, command).await,
        Scenario::Read => reading::run(config, command).await,
        Scenario::Rebuild => rebuilding::run(config, command).await,
    }
}

/// The command with its defaults, if all of it can be had.
fn sensible(config: &Config, command: &Bench) -> Result<Bench, CliError> {
    let scenario = command.scenario;
    let over_http = !matches!(scenario, Scenario::Append | Scenario::HotSku | Scenario::Rebuild);
    if command.against.is_some() && !over_http {
        return Err(CliError::usage(
            format!("{} loads no address", scenario.name()),
            "leave --against out, or choose commands, checkout, read or mixed",
        ));
    }
    if command.baseline && scenario != Scenario::Append {
        return Err(CliError::usage(
            format!("there is no baseline for {}", scenario.name()),
            "leave --baseline out, or choose append",
        ));
    }
    if command.baseline && config.profile == Profile::Embedded {
        return Err(CliError::usage(
            "the baseline is stock postgres-es, and needs PostgreSQL",
            "add --profile cluster with postgres.url configured, to a binary built with `--features cluster`",
        ));
    }
    if command.replicas.is_some()
        && (command.against.is_some() || config.profile == Profile::Embedded || !over_http)
    {
        return Err(CliError::usage(
            "replicas are of a cluster that the benchmark starts",
            "leave --replicas out, or add --profile cluster without --against, and choose commands, checkout, read or mixed",
        ));
    }
    let sells = matches!(
        scenario,
        Scenario::Commands | Scenario::Checkout | Scenario::Mixed
    );
    if command.baskets == Baskets::Retail && !sells {
        return Err(CliError::usage(
            format!("{} fills no baskets", scenario.name()),
            "leave --baskets out, or choose commands, checkout or mixed",
        ));
    }
    let default = if scenario == Scenario::HotSku {
        HOT_CALLERS
    } else {
        CALLERS
    };
    Ok(Bench {
        callers: Some(command.callers.unwrap_or(default)),
        ..command.clone()
    })
}

impl Bench {
    fn load(&self) -> Load {
        Load {
            pace: self
                .rate
                .map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            callers: self.callers.unwrap_or(CALLERS),
            duration: Duration::from_secs(self.seconds),
            at_most: u64::MAX,
        }
    }
}
