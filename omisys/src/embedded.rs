//! The embedded profile: every service in this process, on SQLite. The one place that names concrete adapters.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use database::Database;
use event_schemas::Clock;
use event_store::{ExecutorOptions, Executors, Log};
use gateway::{Gateway, MetricsSource, Service};
use identity::Identity;
use projections::{Projector, Views};
use query_api::QueryApi;
use sagas::fault::Faults;
use sagas::{SagaStream, Sagas, SagasDeps};
use sqlite_file::{SqliteFile, Synchronous};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts;
use crate::cli::Profile;
use crate::config::{Config, Payments};
use crate::error::{CliError, Context};
use crate::parts::{self, STORE_REMEDY};
use crate::stores::{DataDirLock, Files, fix_currency, open_file, open_log_file, open_log_in};

/// How long a settled system may take to be seen as one.
const SETTLE: Duration = Duration::from_secs(600);

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
    pub async fn start(config: &Config, metrics: MetricsSource) -> Result<Self, CliError> {
        let lock = DataDirLock::take(config)?;
        let files = Files::of(config);
        let log_file = open_log_file(config)?;
        let database = Database::from(&log_file);
        fix_currency(&database, config.shop.currency).await?;
        let identity = accounts::open_in(config, database.clone()).await?;
        let views_file = open_file(&files.views(), Synchronous::Normal)?;
        let clock = Clock::System;
        let log = open_log_in(&database).await?;
        let executors = Executors::start(&log, &ExecutorOptions::default());
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());

        let views = Views::open_sqlite(&views_file, log.identity()).await;
        let views = views.context("the read models could not be opened", STORE_REMEDY)?;
        let projector = Projector::start(&log, &views, clock.clone(), stopping.child_token()).await;
        let projector = projector.context("the projector could not start", STORE_REMEDY)?;
        tasks.spawn(parts::rebuilds(config, &views, &log).run(stopping.clone()));
        let (reading, stop_reading) = ((views.clone(), log.clone()), stopping.clone());
        tasks.spawn(async move { reading.0.follow_generations(&reading.1, stop_reading).await });
        let deps = SagasDeps {
            log: log.clone(),
            commands: executors.clone().into(),
            stream: SagaStream::Log,
            provider: parts::provider(config, &database).await?,
            database: database.clone(),
            clock: clock.clone(),
            config: parts::sagas_config(config),
            faults: Faults::default(),
        };
        let sagas = Sagas::start(deps)
            .await
            .context("the sagas could not start", STORE_REMEDY)?;
        tasks.spawn(identity.clone().run(stopping.clone().cancelled_owned()));

        let healing = parts::healing([database.clone(), Database::from(&views_file)]).await?;
        let command =
            parts::command_api(config, &log, &database, executors, &identity, healing.clone()).await?;
        let query = QueryApi {
            views: views.clone(),
            healing,
            verifier: identity.verifier(),
            clock,
            log: log.clone(),
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
        let gateway = Gateway::new(
            config.gateway.clone(),
            services,
            identity.verifier(),
            probe,
            metrics,
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

    /// Resolves with the reason when the sagas have stopped by themselves and another start may mend it. While they wait
    /// for an upgrade, `/readyz` says so, and everything else goes on.
    pub async fn sagas_ended(&self) -> Option<String> {
        self.sagas.ended().await
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

fn readiness(projector: Arc<Projector>, sagas: Arc<Sagas>) -> gateway::ReadinessProbe {
    Arc::new(move || {
        let mut components = parts::projections(&projector);
        components.extend(parts::sagas(&sagas));
        components
    })
}

/// Prints the OpenAPI document, which comes from the code: on stores in a folder that is thrown away.
pub async fn print_openapi(config: &Config) -> Result<(), CliError> {
    let directory = tempfile::tempdir().context(
        "no temporary folder",
        "set TMPDIR to a folder that you may write to",
    )?;
    let config = Config {
        profile: Profile::Embedded,
        data_dir: directory.path().to_owned(),
        payments: Payments { sandbox: true },
        ..config.clone()
    };
    let embedded = Embedded::start(&config, Arc::new(|_: &mut String| {})).await?;
    let document = embedded.gateway.openapi_text();
    embedded.stop().await;
    println!("{}", String::from_utf8_lossy(&document));
    Ok(())
}
