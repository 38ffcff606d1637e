//! Where the year is sold: in a system of this process, or in the cluster that runs on the configured servers.

use std::sync::Arc;

use axum::Router;
use identity::Identity;
use projections::Views;

use crate::cli::Profile;
use crate::config::Config;
use crate::embedded::Embedded;
use crate::error::CliError;

/// A shop that can be sold in.
pub struct Shop {
    /// The command API's routes, in this process.
    pub command: Router,
    pub identity: Identity,
    pub views: Views,
    system: System,
}

enum System {
    Embedded(Box<Embedded>),
    /// Its sagas and projectors are other processes.
    #[cfg(feature = "cluster")]
    Cluster(database::Database),
}

impl Shop {
    /// Opens the shop of the configured profile; the embedded one is made if it is missing.
    pub async fn open(config: &Config) -> Result<Self, CliError> {
        match config.profile {
            Profile::Embedded => {
                let mut config = config.clone();
                config.payments.sandbox = true;
                let embedded = Embedded::start(&config, Arc::new(|_: &mut String| {})).await?;
                Ok(Self {
                    command: embedded.command.clone(),
                    identity: embedded.identity.clone(),
                    views: embedded.views.clone(),
                    system: System::Embedded(Box::new(embedded)),
                })
            }
            #[cfg(feature = "cluster")]
            Profile::Cluster => Self::open_cluster(config).await,
            #[cfg(not(feature = "cluster"))]
            Profile::Cluster => Err(crate::stores::without_cluster()),
        }
    }

    #[cfg(feature = "cluster")]
    async fn open_cluster(config: &Config) -> Result<Self, CliError> {
        use event_store::{ExecutorOptions, Executors};

        if !config.payments.sandbox {
            return Err(CliError::usage(
                "the retailer's customers pay through the sandbox, and it is off",
                "set payments.sandbox = true for this command and for all services, in a cluster for trying out",
            ));
        }
        let (database, log) = crate::stores::open_log(config).await?;
        let identity = crate::accounts::open_in(config, database.clone()).await?;
        let views = crate::cluster::stores::views(config, &database, &log).await?;
        let executors = Executors::start(&log, &ExecutorOptions::default());
        let healing = crate::parts::healing([database.clone()]).await?;
        let (command, _) =
            crate::parts::command_api(config, &log, &database, executors, &identity, healing).await?;
        Ok(Self {
            command,
            identity,
            views,
            system: System::Cluster(database),
        })
    }

    /// Waits until nothing is under way, where this process can tell; the processes of a cluster are not asked.
    pub async fn settle(&self) -> Result<(), CliError> {
        match &self.system {
            System::Embedded(embedded) => embedded.settle().await,
            #[cfg(feature = "cluster")]
            System::Cluster(_) => Ok(()),
        }
    }

    /// Whether [`Shop::settle`] has waited for everything.
    pub const fn is_settled(&self) -> bool {
        match &self.system {
            System::Embedded(_) => true,
            #[cfg(feature = "cluster")]
            System::Cluster(_) => false,
        }
    }

    /// Lets what is under way come to its end.
    pub async fn close(self) {
        match self.system {
            System::Embedded(embedded) => embedded.stop().await,
            #[cfg(feature = "cluster")]
            System::Cluster(database) => {
                // What was acknowledged is durable whether or not the connections end well.
                let _ = database.close().await;
            }
        }
    }
}
