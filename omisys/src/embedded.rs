//! The embedded profile: every service in this process, on SQLite. The one place that names concrete adapters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use command_api::{CommandApi, Random, Rules};
use event_schemas::{Clock, Code};
use event_store::{Executors, ExecutorOptions, Log, LogOptions};
use gateway::{Component, Gateway, Service, Status};
use identity::Identity;
use projections::{Projector, Views};
use query_api::QueryApi;
use sagas::provider::{Provider, SandboxOptions, SandboxProvider};
use sagas::{Sagas, SagasConfig, SecretStore};
use sqlite_file::{SqliteFile, Synchronous};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{DataDirLock, Files, open_file};

const STORE_REMEDY: &str = "run `omisys doctor`";
/// How long a settled system may take to be seen as one.
const SETTLE: Duration = Duration::from_secs(600);

/// Which provider moves the money. A real one and the sandbox never run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payments {
    /// None: only orders that cost nothing can be paid.
    None,
    /// The sandbox: nobody's money.
    Sandbox,
}

/// The running system.
pub struct Embedded {
    pub log: Log,
    pub executors: Executors,
    pub views: Views,
    pub identity: Identity,
    /// The command API's routes, for callers in this process.
    pub command: Router,
    pub gateway: Gateway,
    sagas: Sagas,
    projector: Projector,
    tasks: TaskTracker,
    stopping: CancellationToken,
    files: [SqliteFile; 2],
    _lock: DataDirLock,
}
