//! `omisys migrate` on a cluster: everything that has tables, collections, topics or keys makes what it needs.

use event_bus::{Checkpoints, DeadLetters};
use event_store::{ExecutorOptions, Executors};
use sagas::SecretStore;

use super::stores;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::parts::{self, STORE_REMEDY};
use crate::stores::{fix_currency, open_log_in};
use crate::{accounts, demo};

/// Creates or upgrades the stores; with `with_demo`, puts the demo into them.
pub async fn run(config: &Config, with_demo: bool) -> Result<(), CliError> {
    const WHAT: &str = "the tables could not be made";
    let database = stores::open_database(config, true).await?;
    fix_currency(&database, config.shop.currency).await?;
    let log = open_log_in(&database).await?;
    let identity = accounts::open_in(config, database.clone()).await?;
    Checkpoints::open(&database).await.context(WHAT, STORE_REMEDY)?;
    DeadLetters::open(&database, "migrate")
        .await
        .context(WHAT, STORE_REMEDY)?;
    SecretStore::open(&database).await.context(WHAT, STORE_REMEDY)?;
    sagas::migrate(&database).await.context(WHAT, STORE_REMEDY)?;
    parts::provider(config, &database).await?;
    stores::kafka(config)?.ensure_topics().await.context(
        "the topics could not be made",
        "check kafka.brokers, and that Kafka runs",
    )?;
    stores::views(config, &database, &log).await?;
    if with_demo {
        let executors = Executors::start(&log, &ExecutorOptions::default());
        let healing = parts::healing([database.clone()]).await?;
        let (command, _) = parts::command_api(config, &log, &database, executors, &identity, healing).await?;
        demo::seed(&command, &identity).await?;
    }
    database
        .close()
        .await
        .context("the database did not close", "run it again: what was made stays")?;
    println!("the stores are up to date");
    Ok(())
}
