//! What is loaded over HTTP: processes of this binary, so that what they use is told apart from what the load uses.

use std::path::PathBuf;

use tempfile::TempDir;
use testkit::{Client, Server};

use crate::cli::{Bench, Profile};
use crate::config::{Config, Payments};
use crate::error::{CliError, Context};

const ROOM: &str = "set TMPDIR to a folder with room, on the disk to be measured";
const START: &str = "run `omisys doctor`; the processes inherit this one's environment and ./omisys.toml";
/// More than a benchmark sends: the limits of one client are not what is measured. How much is under way at once, and all
/// other limits, are as they are.
const UNLIMITED: [(&str, &str); 6] = [
    ("OMISYS_GATEWAY__PER_ADDRESS__REQUESTS", "1000000000"),
    ("OMISYS_GATEWAY__PER_ADDRESS__WINDOW_SECONDS", "1"),
    ("OMISYS_GATEWAY__PER_CALLER__REQUESTS", "1000000000"),
    ("OMISYS_GATEWAY__PER_CALLER__WINDOW_SECONDS", "1"),
    ("OMISYS_GATEWAY__TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
    ("OMISYS_LOG__FILTER", "warn"),
];

/// A running system.
pub struct System {
    /// Names its log and its read models.
    pub config: Config,
    running: Running,
}

enum Running {
    Embedded {
        server: Box<Server>,
        directory: TempDir,
    },
    /// The processes end before their stores do.
    #[cfg(feature = "cluster")]
    Cluster {
        cluster: Box<testkit::Cluster>,
        _stores: testkit::ClusterStores,
        _directory: TempDir,
    },
    Elsewhere(Box<Client>),
}

impl System {
    /// The one of `--against`, or one of its own on fresh stores of the configured profile.
    pub async fn start(config: &Config, command: &Bench) -> Result<Self, CliError> {
        if let Some(address) = &command.against {
            return Ok(Self {
                config: config.clone(),
                running: Running::Elsewhere(Box::new(Client::new(address))),
            });
        }
        match config.profile {
            Profile::Embedded => {
                let directory = folder()?;
                let server = serve(&directory).await?;
                Ok(Self {
                    config: Config {
                        data_dir: directory.path().join("data"),
                        payments: Payments { sandbox: true },
                        ..config.clone()
                    },
                    running: Running::Embedded {
                        server: Box::new(server),
                        directory,
                    },
                })
            }
            #[cfg(feature = "cluster")]
            Profile::Cluster => Self::start_cluster(config, command.replicas.unwrap_or(1)).await,
            #[cfg(not(feature = "cluster"))]
            Profile::Cluster => Err(crate::stores::without_cluster()),
        }
    }

    #[cfg(feature = "cluster")]
    async fn start_cluster(config: &Config, replicas: u8) -> Result<Self, CliError> {
        let directory = folder()?;
        let stores = crate::cluster::stores::own(config).await?;
        let config = crate::cluster::stores::in_own(config, &stores);
        let mut environment = stores.environment();
        if let Some(postgres) = &config.postgres {
            let connections = postgres.max_connections.to_string();
            environment.push(("OMISYS_POSTGRES__MAX_CONNECTIONS".to_owned(), connections));
        }
        let unlimited = UNLIMITED.map(|(key, value)| (key.to_owned(), value.to_owned()));
        environment.extend(unlimited);
        let cluster = testkit::Cluster::start(&binary()?, directory.path(), environment, replicas)
            .await
            .context("the cluster could not be started", START)?;
        Ok(Self {
            config,
            running: Running::Cluster {
                cluster: Box::new(cluster),
                _stores: stores,
                _directory: directory,
            },
        })
    }

    /// A client of its gateway.
    pub fn client(&self) -> &Client {
        match &self.running {
            Running::Embedded { server, .. } => &server.client,
            #[cfg(feature = "cluster")]
            Running::Cluster { cluster, .. } => &cluster.client,
            Running::Elsewhere(client) => client,
        }
    }

    /// Its processes on this machine, by name; of a system elsewhere none are known.
    pub fn processes(&self) -> Vec<(String, u32)> {
        match &self.running {
            Running::Embedded { server, .. } => server
                .pid()
                .map(|pid| ("serve".to_owned(), pid))
                .into_iter()
                .collect(),
            #[cfg(feature = "cluster")]
            Running::Cluster { cluster, .. } => cluster.pids(),
            Running::Elsewhere(_) => Vec::new(),
        }
    }

    /// Starts it again with nothing cached, at another address; leaves one alone whose caches outlive its processes.
    pub async fn restart(&mut self) -> Result<(), CliError> {
        if !self.can_restart() {
            return Ok(());
        }
        let nowhere = Running::Elsewhere(Box::new(Client::new("")));
        if let Running::Embedded { server, directory } = std::mem::replace(&mut self.running, nowhere) {
            server.kill().await;
            let server = Box::new(serve(&directory).await?);
            self.running = Running::Embedded { server, directory };
        }
        Ok(())
    }

    /// Ends its processes, if they are its own; then its stores go.
    pub async fn end(self) {
        match self.running {
            Running::Embedded { server, .. } => server.kill().await,
            #[cfg(feature = "cluster")]
            Running::Cluster { mut cluster, .. } => {
                for member in cluster.members() {
                    cluster.kill(member).await;
                }
            }
            Running::Elsewhere(_) => {}
        }
    }

    /// Whether [`System::restart`] can leave it with nothing cached.
    pub fn can_restart(&self) -> bool {
        matches!(self.running, Running::Embedded { .. })
    }
}

/// This binary.
pub fn binary() -> Result<PathBuf, CliError> {
    std::env::current_exe().context("this program's file is not known", "call it by its path")
}

/// A folder that is thrown away.
pub fn folder() -> Result<TempDir, CliError> {
    tempfile::tempdir().context("no temporary folder", ROOM)
}

async fn serve(directory: &TempDir) -> Result<Server, CliError> {
    let data = directory.path().join("data");
    Server::start(&binary()?, &data, &["--profile", "embedded"], &UNLIMITED)
        .await
        .context("the system could not be started", START)
}
