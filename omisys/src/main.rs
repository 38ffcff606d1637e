//! `omisys`: the binary. Reads the command line and the configuration, and composes the adapters.

mod accounts;
mod audit;
mod bench;
mod cli;
#[cfg(feature = "cluster")]
mod cluster;
mod config;
mod dead_letters;
mod demo;
mod doctor;
mod embedded;
mod error;
mod events;
mod health;
mod import;
mod keys;
mod local;
mod parts;
mod progress;
mod rebuild;
mod schemas;
mod serve;
mod stores;
mod telemetry;
mod transfer;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::cli::{Cli, Command, Profile, ServiceName};
use crate::config::Config;
use crate::embedded::Embedded;
use crate::error::{CliError, Context};
use crate::telemetry::Telemetry;

/// The system's allocator gives each of many threads an arena, which grow as the work moves from one to the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(
            "the runtime could not be started",
            "check the limits of this user on threads and files",
        )?;
    runtime.block_on(async {
        let telemetry = Telemetry::start(&config, cli.command.name(), cli.global.verbose)?;
        let outcome = run(&config, cli, telemetry.metrics()).await;
        telemetry.stop().await;
        outcome
    })
}

async fn run(config: &Config, cli: Cli, metrics: PrometheusHandle) -> Result<(), CliError> {
    let json = cli.global.json;
    match cli.command {
        Command::Serve(serve) => {
            let source = Arc::new(move |text: &mut String| text.push_str(&metrics.render()));
            serve::run(config, &serve, source, json).await
        }
        Command::Migrate(migrate) => migrate_stores(config, migrate.demo).await,
        Command::Gateway(command) => service(config, ServiceName::Gateway, &command, metrics, json).await,
        Command::CommandApi(command) => {
            service(config, ServiceName::CommandApi, &command, metrics, json).await
        }
        Command::QueryApi(command) => service(config, ServiceName::QueryApi, &command, metrics, json).await,
        Command::Identity(command) => service(config, ServiceName::Identity, &command, metrics, json).await,
        Command::Projector(command) => {
            let mut config = config.clone();
            config.projections.auto_rebuild &= !command.no_auto_rebuild;
            service(&config, ServiceName::Projector, &command.service, metrics, json).await
        }
        Command::Sagas(command) => service(config, ServiceName::Sagas, &command, metrics, json).await,
        Command::Relay(command) => service(config, ServiceName::Relay, &command, metrics, json).await,
        Command::Health(health) => health::run(&health, json).await,
        Command::Import(import) => import::run(config, &import, json).await,
        Command::Accounts(accounts) => accounts::run(config, &accounts, json).await,
        Command::Keys(keys) => keys::run(config, &keys, json).await,
        Command::Audit(audit) => audit::run(config, &audit, json).await,
        Command::Events(events) => events::run(config, &events, json).await,
        Command::Rebuild(rebuild) => rebuild::run(config, &rebuild, json).await,
        Command::Generations(generations) => rebuild::generations(config, &generations, json).await,
        Command::DeadLetters(letters) => dead_letters::run(config, &letters, json).await,
        Command::Schemas(schemas) => schemas::run(&schemas, json),
        Command::ExportLog(file) => transfer::export_log(config, &file, json).await,
        Command::ImportLog(file) => transfer::import_log(config, &file, json).await,
        Command::Backup(directory) => transfer::backup(config, &directory, json).await,
        Command::Restore(directory) => transfer::restore(config, &directory, json).await,
        Command::Openapi => embedded::print_openapi(config).await,
        Command::Doctor(doctor) => doctor::run(config, &doctor, json).await,
        Command::Bench(bench) => bench::run(config, &bench, json).await,
        Command::ServeBytes => bench::serve_bytes().await,
    }
}

#[cfg(feature = "cluster")]
async fn service(
    config: &Config,
    name: ServiceName,
    command: &cli::Service,
    metrics: PrometheusHandle,
    json: bool,
) -> Result<(), CliError> {
    cluster::run(config, name, command, metrics, json).await
}

#[cfg(not(feature = "cluster"))]
#[expect(clippy::unused_async, reason = "there is nothing to run")]
async fn service(
    _: &Config,
    _: ServiceName,
    _: &cli::Service,
    _: PrometheusHandle,
    _: bool,
) -> Result<(), CliError> {
    Err(stores::without_cluster())
}

/// The embedded profile's stores are made and upgraded whenever they are opened.
async fn migrate_stores(config: &Config, demo: bool) -> Result<(), CliError> {
    match config.profile {
        Profile::Embedded => {
            let metrics: gateway::MetricsSource = Arc::new(|_: &mut String| {});
            let embedded = Embedded::start(config, metrics).await?;
            if demo {
                demo::seed(&embedded.command, &embedded.identity).await?;
            }
            embedded.stop().await;
            println!("the stores are up to date");
            Ok(())
        }
        #[cfg(feature = "cluster")]
        Profile::Cluster => cluster::migrate(config, demo).await,
        #[cfg(not(feature = "cluster"))]
        Profile::Cluster => Err(stores::without_cluster()),
    }
}
