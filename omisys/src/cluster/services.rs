//! What each service is made of.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use event_bus::{Checkpoints, Relay, RelayOptions, RelayState, StreamSource};
use event_schemas::Clock;
use event_store::{ExecutorOptions, Executors, Log};
use gateway::{Gateway, MetricsSource, ReadinessProbe};
use identity::Identity;
use identity::verifier::Verifier;
use projections::Projector;
use query_api::QueryApi;
use sagas::commands::{CommandSender, RemoteCommands};
use sagas::fault::Faults;
use sagas::{SagaStream, Sagas, SagasDeps};
use tokio_util::sync::CancellationToken;
use upstreams::{HttpPool, PoolOptions};

use super::process::{Door, Running, service_token};
use super::{probe, stores};
use crate::cli::ServiceName;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::parts::{self, STORE_REMEDY, component, degraded};
use crate::stores::{key_source, open_log_in};

/// How often a relay is asked whether it goes on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts what `service` is; the listener is the process's.
pub async fn start(
    config: &Config,
    service: ServiceName,
    metrics: MetricsSource,
) -> Result<Running, CliError> {
    match service {
        ServiceName::Gateway => gateway(config, metrics).await,
        ServiceName::CommandApi => command_api(config).await,
        ServiceName::QueryApi => query_api(config).await,
        ServiceName::Identity => identity(config).await,
        ServiceName::Projector => projector(config).await,
        ServiceName::Sagas => sagas(config).await,
        ServiceName::Relay => relay(config).await,
    }
}

async fn gateway(config: &Config, metrics: MetricsSource) -> Result<Running, CliError> {
    let command = pool(config, "command-api", &config.upstreams.command_api).await?;
    let query = pool(config, "query-api", &config.upstreams.query_api).await?;
    let identity = pool(config, "identity", &config.upstreams.identity).await?;
    let verifier = Verifier::from_jwks(&config.identity, Clock::System);
    let stopping = CancellationToken::new();
    let readiness = probe::all(vec![follow_keys(&verifier, identity.clone(), &stopping)]);
    let services = gateway::Services {
        command: gateway::Service::http(command, command_api::openapi()),
        query: gateway::Service::http(query, query_api::openapi()),
        identity: gateway::Service::http(identity, identity::openapi()),
    };
    let gateway = Gateway::with_limits(
        config.gateway.clone(),
        services,
        verifier,
        Arc::clone(&readiness),
        metrics,
        stores::limits(config)?,
    )
    .context(
        "the gateway could not start",
        "mend the [gateway] section of the configuration",
    )?;
    Ok(Running {
        door: Door::Public(Box::new(gateway)),
        stop: Box::pin(async move { stopping.cancel() }),
        ..Running::new(Router::new(), readiness)
    })
}

/// Keeps the keys that `verifier` checks tokens with as `identity` publishes them; says whether it knows any.
fn follow_keys(verifier: &Verifier, identity: HttpPool, stopping: &CancellationToken) -> probe::Part {
    let (following, keys) = (verifier.clone(), verifier.clone());
    tokio::spawn(following.follow_jwks(identity, stopping.clone().cancelled_owned()));
    Arc::new(move || {
        let unknown = (!keys.has_keys()).then(|| "no signing key is known yet".to_owned());
        component("keys", unknown)
    })
}

/// The way to the replicas of a service.
async fn pool(config: &Config, name: &'static str, urls: &[String]) -> Result<HttpPool, CliError> {
    let options = PoolOptions {
        service_token: Some(service_token(config)?),
        ..PoolOptions::new(name, urls.to_vec())
    };
    HttpPool::start(options).await.context(
        "the configuration is wrong: upstreams",
        "give the URLs of each service, such as upstreams.query_api = [\"http://query-api:8082\"]",
    )
}

async fn command_api(config: &Config) -> Result<Running, CliError> {
    let (database, log) = open(config).await?;
    let identity = open_identity(config, &database).await?;
    let executors = Executors::start(&log, &ExecutorOptions::default());
    let internal = command_api::internal_router(executors.clone());
    let healing = parts::healing([database.clone()]).await?;
    let (router, _) = parts::command_api(config, &log, &database, executors, &identity, healing).await?;
    Ok(with_identity(
        router.merge(internal),
        probe::all(vec![probe::database(&database)]),
        identity,
    ))
}

async fn query_api(config: &Config) -> Result<Running, CliError> {
    let (database, log) = open(config).await?;
    let identity = pool(config, "identity", &config.upstreams.identity).await?;
    // A reader checks tokens, and makes none: it has no private key.
    let verifier = Verifier::from_database(&database, &config.identity, Clock::System)
        .await
        .context("the accounts could not be opened", STORE_REMEDY)?;
    let views = stores::views(config, &database, &log).await?;
    let stopping = CancellationToken::new();
    let keys = follow_keys(&verifier, identity, &stopping);
    let api = QueryApi {
        views: views.clone(),
        healing: parts::healing([database.clone()]).await?,
        verifier,
        clock: Clock::System,
        log: log.clone(),
        wait: QueryApi::DEFAULT_WAIT,
    };
    let (router, _) = query_api::router(api).split_for_parts();
    let reading = views.clone();
    tokio::spawn(async move { reading.follow_generations(&log, CancellationToken::new()).await });
    let parts = vec![
        probe::database(&database),
        probe::documents(&views),
        probe::cache(&views),
        keys,
    ];
    Ok(Running {
        ended: Box::pin(async move { views.gone().await }),
        stop: Box::pin(async move { stopping.cancel() }),
        ..Running::new(router, probe::all(parts))
    })
}

async fn identity(config: &Config) -> Result<Running, CliError> {
    let database = stores::open_database(config, false).await?;
    let limits = stores::limits(config)?;
    let identity = Identity::open_counting(
        &database,
        key_source(config),
        config.identity.clone(),
        Clock::System,
        &limits,
    )
    .await
    .context("accounts and keys could not be opened", STORE_REMEDY)?;
    let (router, _) = identity::router(identity.clone()).split_for_parts();
    let counting: probe::Part = Arc::new(move || {
        if limits.is_degraded() {
            degraded(
                "limits".to_owned(),
                "Redis does not answer: each process counts alone",
            )
        } else {
            component("limits", None)
        }
    });
    let readiness = probe::all(vec![probe::database(&database), counting]);
    Ok(with_identity(router, readiness, identity))
}

/// A service that checks tokens with the keys that all share, and takes changes over.
fn with_identity(router: Router, readiness: ReadinessProbe, identity: Identity) -> Running {
    let stopping = CancellationToken::new();
    let maintained = tokio::spawn(identity.run(stopping.clone().cancelled_owned()));
    Running {
        stop: Box::pin(async move {
            stopping.cancel();
            // It ends by itself now, or has.
            let _ = maintained.await;
        }),
        ..Running::new(router, readiness)
    }
}

async fn projector(config: &Config) -> Result<Running, CliError> {
    let (database, log) = open(config).await?;
    let views = stores::views(config, &database, &log).await?;
    let source = source(config, &database, &log).await?;
    let stopping = CancellationToken::new();
    let projector = Projector::start(source, &views, Clock::System, stopping.child_token()).await;
    let projector = Arc::new(projector.context("the projector could not start", STORE_REMEDY)?);
    let rebuilds = parts::rebuilds(config, &views, &log).run(stopping.child_token());
    let rebuilding = tokio::spawn(rebuilds);
    let (reading, stop_reading) = ((views.clone(), log.clone()), stopping.child_token());
    tokio::spawn(async move { reading.0.follow_generations(&reading.1, stop_reading).await });
    let shown = Arc::clone(&projector);
    let around = probe::all(vec![
        probe::database(&database),
        probe::documents(&views),
        probe::cache(&views),
    ]);
    let readiness: ReadinessProbe = Arc::new(move || {
        let mut components = parts::projections(&shown);
        components.extend(around());
        components
    });
    Ok(Running {
        ended: Box::pin(async move { views.gone().await }),
        stop: Box::pin(async move {
            stopping.cancel();
            projector.stop().await;
            // It ends by itself now, or has.
            let _ = rebuilding.await;
        }),
        ..Running::new(Router::new(), readiness)
    })
}

async fn sagas(config: &Config) -> Result<Running, CliError> {
    let (database, log) = open(config).await?;
    let owners = pool(config, "command-api", &config.upstreams.command_api).await?;
    let around = probe::all(vec![probe::database(&database), probe::service(owners.clone())]);
    let deps = SagasDeps {
        log: log.clone(),
        // To the replicas that have the aggregates in memory, which let in who shows the services' token.
        commands: CommandSender::Remote(RemoteCommands::start(owners)),
        stream: SagaStream::Kafka(source(config, &database, &log).await?),
        provider: parts::provider(config, &database).await?,
        database: database.clone(),
        clock: Clock::System,
        config: parts::sagas_config(config),
        faults: Faults::default(),
    };
    let sagas = Sagas::start(deps)
        .await
        .context("the sagas could not start", STORE_REMEDY)?;
    let sagas = Arc::new(sagas);
    let (shown, ending) = (Arc::clone(&sagas), Arc::clone(&sagas));
    let readiness: ReadinessProbe = Arc::new(move || {
        let mut components = parts::sagas(&shown);
        components.extend(around());
        components
    });
    Ok(Running {
        ended: Box::pin(async move { ending.ended().await.unwrap_or_default() }),
        stop: Box::pin(async move { sagas.stop().await }),
        ..Running::new(Router::new(), readiness)
    })
}

async fn relay(config: &Config) -> Result<Running, CliError> {
    let (database, log) = open(config).await?;
    let kafka = stores::kafka(config)?;
    let cancel = CancellationToken::new();
    let relay = Relay::start(&log, &database, &kafka, RelayOptions::default(), cancel)
        .await
        .context("the relay could not start", STORE_REMEDY)?;
    let relay = Arc::new(relay);
    let (shown, ending) = (Arc::clone(&relay), Arc::clone(&relay));
    let around = probe::database(&database);
    let readiness: ReadinessProbe = Arc::new(move || {
        let relay = match shown.state() {
            RelayState::Running | RelayState::Standby => component("relay", None),
            RelayState::Retrying(reason) => degraded("relay".to_owned(), &reason),
            RelayState::Failed(reason) => component("relay", Some(reason)),
            RelayState::Stopped => component("relay", Some("stopped".to_owned())),
        };
        vec![relay, around()]
    });
    Ok(Running {
        ended: Box::pin(failure(ending)),
        stop: Box::pin(async move { relay.stop().await }),
        ..Running::new(Router::new(), readiness)
    })
}

/// Resolves with the reason if the relay cannot go on by itself: whoever watches the process starts another.
async fn failure(relay: Arc<Relay>) -> String {
    loop {
        if let RelayState::Failed(reason) = relay.state() {
            return reason;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn open(config: &Config) -> Result<(database::Database, Log), CliError> {
    let database = stores::open_database(config, false).await?;
    let log = open_log_in(&database).await?;
    Ok((database, log))
}

async fn open_identity(config: &Config, database: &database::Database) -> Result<Identity, CliError> {
    crate::accounts::open_in(config, database.clone()).await
}

/// Where consumers have their events from.
async fn source(config: &Config, database: &database::Database, log: &Log) -> Result<StreamSource, CliError> {
    Ok(StreamSource {
        kafka: stores::kafka(config)?,
        log: log.clone(),
        checkpoints: Checkpoints::open(database)
            .await
            .context("the checkpoints could not be opened", STORE_REMEDY)?,
        gather: Duration::ZERO,
    })
}
