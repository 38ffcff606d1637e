//! The embedded profile: every service in this process, on SQLite. The one place that names concrete adapters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use command_api::{CommandApi, Random, Rules};
use event_schemas::{Clock, Code};
use event_store::{ExecutorOptions, Executors, Log, LogOptions};
use gateway::{Component, Gateway, Service, Status};
use identity::Identity;
use projections::{Projector, Views};
use query_api::QueryApi;
use sagas::fault::Faults;
use sagas::provider::{Provider, SandboxOptions, SandboxProvider};
use sagas::{Sagas, SagasConfig, SagasDeps, SecretStore};
use sqlite_file::{SqliteFile, Synchronous};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::openapi::OpenApi;

use crate::accounts;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{DataDirLock, Files, fix_currency, open_file, open_log_file};

const STORE_REMEDY: &str = "run `omisys doctor`";
/// How long a settled system may take to be seen as one.
const SETTLE: Duration = Duration::from_secs(600);

/// Which provider moves the money. A real one and the sandbox never run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payments {
    /// None: a checkout is refused, since no payment method is there. A real provider comes with a later release.
    None,
    /// The sandbox: nobody's money.
    Sandbox,
}

/// The running system.
pub struct Embedded {
    pub log: Log,
    pub views: Views,
    pub identity: Identity,
    /// The command API's routes, for callers in this process.
    pub command: Router,
    pub gateway: Gateway,
    sagas: Arc<Sagas>,
    projector: Arc<Projector>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    files: [SqliteFile; 2],
    _lock: DataDirLock,
}

impl Embedded {
    /// Takes the data directory, opens the stores, goes on where they stood, and starts every service but the listener.
    pub async fn start(config: &Config, payments: Payments) -> Result<Self, CliError> {
        let lock = DataDirLock::take(config)?;
        let files = Files::of(config);
        let log_file = open_log_file(config)?;
        fix_currency(&log_file, config.shop.currency).await?;
        let identity = accounts::open_in(config, log_file.clone()).await?;
        let views_file = open_file(&files.views(), Synchronous::Normal)?;
        let clock = Clock::System;
        let log = Log::open(
            &log_file,
            LogOptions {
                clock: clock.clone(),
                ..LogOptions::default()
            },
        )
        .await
        .context("the log could not be opened", STORE_REMEDY)?;
        let executors = Executors::start(&log, &ExecutorOptions::default());
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());

        let views = Views::open(&views_file, log.identity()).await;
        let views = views.context("the read models could not be opened", STORE_REMEDY)?;
        let projector = Projector::start(&log, &views, clock.clone(), stopping.child_token()).await;
        let projector = projector.context("the projector could not start", STORE_REMEDY)?;
        let provider = open_provider(&files, payments, &clock)?;
        let deps = SagasDeps {
            log: log.clone(),
            executors: executors.clone(),
            file: log_file.clone(),
            provider,
            clock: clock.clone(),
            config: SagasConfig {
                payment_window: config.shop.payment_window(),
                ..SagasConfig::default()
            },
            faults: Faults::default(),
        };
        let sagas = Sagas::start(deps)
            .await
            .context("the sagas could not start", STORE_REMEDY)?;
        tasks.spawn(identity.clone().run(stopping.clone().cancelled_owned()));

        let command = start_command_api(config, payments, &log, &log_file, executors, &identity).await?;
        let query = QueryApi {
            views: views.clone(),
            verifier: identity.verifier(),
            clock,
            head: log.watch(),
            wait: QueryApi::DEFAULT_WAIT,
        };
        let projector = Arc::new(projector);
        let sagas = Arc::new(sagas);
        let services = gateway::Services {
            command: Service::in_process(command.clone()),
            query: Service::in_process(query_api::router(query).split_for_parts()),
            identity: Service::in_process(identity::router(identity.clone()).split_for_parts()),
        };
        let probe = readiness(Arc::clone(&projector), Arc::clone(&sagas));
        let numbers = metrics(Arc::clone(&projector), log.clone());
        let gateway = Gateway::new(
            config.gateway.clone(),
            services,
            identity.verifier(),
            probe,
            numbers,
        )
        .context(
            "the gateway could not start",
            "mend the [gateway] section of the configuration",
        )?;
        Ok(Self {
            command: command.0,
            log,
            views,
            identity,
            gateway,
            sagas,
            projector,
            tasks,
            stopping,
            files: [log_file, views_file],
            _lock: lock,
        })
    }

    /// The file that the log is in.
    pub fn log_file(&self) -> &SqliteFile {
        &self.files[0]
    }

    /// Resolves when the sagas have stopped by themselves, with the reason.
    pub async fn sagas_stopped(&self) -> Option<String> {
        self.sagas.stopped().await
    }

    /// Waits until nothing is under way: every policy has run, every effect is done, every read model shows it.
    pub async fn settle(&self) -> Result<(), CliError> {
        let settled = tokio::time::timeout(SETTLE, self.sagas.idle()).await;
        settled
            .context("the sagas did not come to rest", "run `omisys audit`")?
            .context("the sagas stopped", "run `omisys doctor`")?;
        let head = self
            .log
            .head()
            .await
            .context("the log could not be read", STORE_REMEDY)?;
        if self.views.reach(head, Instant::now() + SETTLE).await {
            return Ok(());
        }
        Err(CliError::failed(
            "the read models did not catch up",
            "run `omisys doctor`",
        ))
    }

    /// Lets what is under way come to its end, in the order in which it flows, and closes the stores.
    pub async fn stop(self) {
        self.sagas.stop().await;
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.projector.stop().await;
        for file in self.files {
            if let Err(error) = file.close().await {
                tracing::warn!(%error, "a store did not close; nothing acknowledged is lost");
            }
        }
    }
}

async fn start_command_api(
    config: &Config,
    payments: Payments,
    log: &Log,
    log_file: &SqliteFile,
    executors: Executors,
    identity: &Identity,
) -> Result<(Router, OpenApi), CliError> {
    let services = command_api::Services {
        executors,
        log: log.clone(),
        secrets: SecretStore::open(log_file).context("the secrets could not be opened", STORE_REMEDY)?,
        verifier: identity.verifier(),
        fingerprinter: identity.fingerprinter(),
        clock: Clock::System,
        random: Random::System,
    };
    let rules = Rules {
        payment_window: config.shop.payment_window(),
        payment_methods: payment_methods(payments)?,
        ..Rules::new(config.shop.currency)
    };
    let api = CommandApi::start(services, rules).await;
    let api = api.context("the command API could not start", STORE_REMEDY)?;
    Ok(command_api::router(api).split_for_parts())
}

fn open_provider(files: &Files, payments: Payments, clock: &Clock) -> Result<Option<Provider>, CliError> {
    match payments {
        Payments::None => Ok(None),
        Payments::Sandbox => SandboxProvider::open(files.sandbox(), clock.clone(), SandboxOptions::default())
            .map(|sandbox| Some(Provider::Sandbox(sandbox)))
            .context("the sandbox provider could not be opened", STORE_REMEDY),
    }
}

/// Method → provider.
fn payment_methods(payments: Payments) -> Result<BTreeMap<Code, Code>, CliError> {
    if payments == Payments::None {
        return Ok(BTreeMap::new());
    }
    let sandbox = Code::new("sandbox").context("the payment methods are wrong", "report this as a bug")?;
    Ok(BTreeMap::from([(sandbox.clone(), sandbox)]))
}

fn readiness(projector: Arc<Projector>, sagas: Arc<Sagas>) -> gateway::ReadinessProbe {
    Arc::new(move || {
        let component = |name: &str, failed: Option<String>| Component {
            name: name.to_owned(),
            status: if failed.is_some() {
                Status::Down
            } else {
                Status::Up
            },
            detail: failed,
        };
        let projector_state = projector.state();
        let projector_failed = (!projector_state.is_ready()).then(|| format!("{projector_state:?}"));
        let parked = projector
            .status()
            .into_iter()
            .filter(|view| view.parked)
            .map(|view| Component {
                name: format!("projections/{}", view.view),
                status: Status::Degraded,
                detail: Some("events wait in the dead letters".to_owned()),
            });
        let sagas_parked = sagas.parked().then(|| Component {
            name: "sagas/dead-letters".to_owned(),
            status: Status::Degraded,
            detail: Some("events, timers or effects wait in the dead letters".to_owned()),
        });
        let parts = [
            component("projections", projector_failed),
            component("sagas", sagas.failure()),
        ];
        parts.into_iter().chain(parked).chain(sagas_parked).collect()
    })
}

fn metrics(projector: Arc<Projector>, log: Log) -> gateway::MetricsSource {
    Arc::new(move |text: &mut String| {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP omisys_log_head Position of the last event.\n# TYPE omisys_log_head counter"
        );
        let _ = writeln!(text, "omisys_log_head {}", log.watch().borrow().0);
        let _ = writeln!(
            text,
            "# HELP omisys_view_lag_events Events not yet in a view.\n# TYPE omisys_view_lag_events gauge"
        );
        for view in projector.status() {
            let _ = writeln!(
                text,
                "omisys_view_lag_events{{view=\"{}\"}} {}",
                view.view, view.lag
            );
        }
    })
}

/// Prints the OpenAPI document, which comes from the code: on stores in a folder that is thrown away.
pub async fn print_openapi(config: &Config) -> Result<(), CliError> {
    let directory = tempfile::tempdir().context(
        "no temporary folder",
        "set TMPDIR to a folder that you may write to",
    )?;
    let config = Config {
        data_dir: directory.path().to_owned(),
        ..config.clone()
    };
    let embedded = Embedded::start(&config, Payments::Sandbox).await?;
    let document = embedded.gateway.openapi_text();
    embedded.stop().await;
    println!("{}", String::from_utf8_lossy(&document));
    Ok(())
}
