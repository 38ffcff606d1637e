//! What both profiles compose from the same pieces.

use std::collections::BTreeMap;

use axum::Router;
use command_api::{CommandApi, Random, Rules};
use database::Database;
use event_bus::Healing;
use event_schemas::{Clock, Code};
use event_store::{Executors, Log};
use gateway::{Component, Status};
use identity::Identity;
use projections::{Projector, ProjectorState, RebuildOptions, Rebuilds, Views};
use sagas::provider::{Provider, SandboxOptions, SandboxProvider};
use sagas::{Sagas, SagasConfig, SecretStore};
use utoipa::openapi::OpenApi;

use crate::cli::Profile;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::rebuild;
use crate::stores::Files;

/// What to try when a store fails.
pub const STORE_REMEDY: &str = "run `omisys doctor`";

/// Starts the command API on `executors`; answers its routes and their documentation.
pub async fn command_api(
    config: &Config,
    log: &Log,
    database: &Database,
    executors: Executors,
    identity: &Identity,
    healing: Healing,
) -> Result<(Router, OpenApi), CliError> {
    let services = command_api::Services {
        executors,
        log: log.clone(),
        secrets: SecretStore::open(database)
            .await
            .context("the secrets could not be opened", STORE_REMEDY)?,
        healing,
        verifier: identity.verifier(),
        fingerprinter: identity.fingerprinter(),
        clock: Clock::System,
        random: Random::System,
    };
    let rules = Rules {
        payment_window: config.shop.payment_window(),
        payment_methods: payment_methods(config)?,
        ..Rules::new(config.shop.currency)
    };
    let api = CommandApi::start(services, rules).await;
    let api = api.context("the command API could not start", STORE_REMEDY)?;
    Ok(command_api::router(api).split_for_parts())
}

/// The dead letters of all who keep theirs in one of `databases`.
pub async fn healing(databases: impl IntoIterator<Item = Database>) -> Result<Healing, CliError> {
    let healing = Healing::open(databases).await;
    healing.context("the dead letters could not be opened", STORE_REMEDY)
}

/// Method → provider.
fn payment_methods(config: &Config) -> Result<BTreeMap<Code, Code>, CliError> {
    if !config.payments.sandbox {
        return Ok(BTreeMap::new());
    }
    let sandbox = Code::new("sandbox").context("the payment methods are wrong", "report this as a bug")?;
    Ok(BTreeMap::from([(sandbox.clone(), sandbox)]))
}

/// Who moves the money; none unless the sandbox is on. A real provider comes with a later release.
pub async fn provider(config: &Config, database: &Database) -> Result<Option<Provider>, CliError> {
    if !config.payments.sandbox {
        return Ok(None);
    }
    let (clock, options) = (Clock::System, SandboxOptions::default());
    let sandbox = match config.profile {
        Profile::Embedded => SandboxProvider::open(Files::of(config).sandbox(), clock, options).await,
        Profile::Cluster => SandboxProvider::open_in(database, clock, options).await,
    };
    sandbox
        .map(|sandbox| Some(Provider::Sandbox(sandbox)))
        .context("the sandbox provider could not be opened", STORE_REMEDY)
}

/// How the sagas are run.
pub fn sagas_config(config: &Config) -> SagasConfig {
    SagasConfig {
        payment_window: config.shop.payment_window(),
        exclusive: config.profile == Profile::Embedded,
        ..SagasConfig::default()
    }
}

/// What rebuilds views that somebody asked for, or whose version has changed.
pub fn rebuilds(config: &Config, views: &Views, log: &Log) -> Rebuilds {
    Rebuilds {
        views: views.clone(),
        log: log.clone(),
        clock: Clock::System,
        options: RebuildOptions::new(rebuild::holder("projector")),
        automatic: config.projections.auto_rebuild,
    }
}

/// How the projections are, for `/readyz`.
pub fn projections(projector: &Projector) -> Vec<Component> {
    let state = match projector.state() {
        ProjectorState::Running => component("projections", None),
        ProjectorState::Retrying(reason) => degraded("projections".to_owned(), &reason),
        ProjectorState::Upgrade(reason) | ProjectorState::Failed(reason) => {
            component("projections", Some(reason))
        }
        ProjectorState::Stopped => component("projections", Some("stopped".to_owned())),
    };
    let parked = projector
        .status()
        .into_iter()
        .filter(|view| view.parked)
        .map(|view| {
            degraded(
                format!("projections/{}", view.view),
                "events wait in the dead letters: see `omisys dead-letters list`",
            )
        });
    std::iter::once(state).chain(parked).collect()
}

/// How the sagas are, for `/readyz`.
pub fn sagas(sagas: &Sagas) -> Vec<Component> {
    let mut components = vec![component("sagas", sagas.failure())];
    if let Some(waiting) = sagas.reconciling() {
        components.push(component("sagas/reconciling", Some(waiting)));
    }
    if let Some(trouble) = sagas.retrying() {
        components.push(degraded("sagas/store".to_owned(), &trouble));
    }
    if sagas.parked() {
        components.push(degraded(
            "sagas/dead-letters".to_owned(),
            "events, timers or effects wait in the dead letters: see `omisys dead-letters list`",
        ));
    }
    components
}

/// A part that works unless it `failed`.
pub fn component(name: &str, failed: Option<String>) -> Component {
    Component {
        name: name.to_owned(),
        status: if failed.is_some() {
            Status::Down
        } else {
            Status::Up
        },
        detail: failed,
    }
}

/// A part that works with less than it should.
pub fn degraded(name: String, detail: &str) -> Component {
    Component {
        name,
        status: Status::Degraded,
        detail: Some(detail.to_owned()),
    }
}
