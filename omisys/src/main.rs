//! `omisys`: the binary. Reads the command line and the configuration, and composes the adapters.

mod accounts;
mod audit;
mod bench;
mod cli;
mod config;
mod demo;
mod doctor;
mod embedded;
mod error;
mod events;
mod import;
mod keys;
mod local;
mod progress;
mod serve;
mod stores;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::error::{CliError, Context};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbose = cli.global.verbose;
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print(verbose);
            error.exit_code()
        }
    }
}

fn start(cli: Cli) -> Result<(), CliError> {
    let config = Config::load(&cli.global)?;
    log_to_stderr(&config, cli.global.verbose)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(
            "the runtime could not be started",
            "check the limits of this user on threads and files",
        )?;
    runtime.block_on(run(&config, cli))
}

async fn run(config: &Config, cli: Cli) -> Result<(), CliError> {
    let json = cli.global.json;
    match cli.command {
        Command::Serve(serve) => serve::run(config, &serve, json).await,
        Command::Import(import) => import::run(config, &import, json).await,
        Command::Accounts(accounts) => accounts::run(config, &accounts, json).await,
        Command::Keys(keys) => keys::run(config, &keys, json).await,
        Command::Audit(audit) => audit::run(config, &audit, json).await,
        Command::Events(events) => events::run(config, &events, json).await,
        Command::Openapi => embedded::print_openapi(config).await,
        Command::Doctor(doctor) => doctor::run(config, &doctor, json).await,
        Command::Bench(bench) => bench::run(config, &bench, json).await,
    }
}

fn log_to_stderr(config: &Config, verbose: bool) -> Result<(), CliError> {
    let filter = if verbose { "info" } else { &config.log.filter };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        CliError::usage(
            format!("the configuration is wrong: log.filter: {error}"),
            "give a level such as warn, or levels by module such as sagas=debug",
        )
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = if config.log.json {
        subscriber.json().try_init()
    } else {
        subscriber.try_init()
    };
    set.map_err(|error| {
        CliError::failed("the log could not be set up", "report this as a bug").because(error)
    })
}
