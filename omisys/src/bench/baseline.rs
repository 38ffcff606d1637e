//! The commands of `append` through stock `postgres-es`, as its README sets it up.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::inventory::{InventoryCommand, StockItem};
use cqrs_es::AggregateError;
use event_schemas::{CommandId, ProductId};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use sqlx::postgres::PgPoolOptions;
use testkit::load::{self, Outcome, Step};

use super::executor::{SKUS, before, own_database, reference, sku, spread, uuid};
use super::http::warm_up;
use super::report::Report;
use crate::cli::Bench;
use crate::config::Config;
use crate::error::{CliError, Context};

/// Of the pool: what a service would have.
const CONNECTIONS: u32 = 16;
const WHAT: &str = "the baseline could not be set up";
const REMEDY: &str = "run `omisys doctor`";

/// `events` of postgres-es's `db/init.sql`. Snapshots are not used: OMISYS's aggregates do not come back from them as they
/// were (each event would be applied twice).
const TABLE: &str = "CREATE TABLE events (
    aggregate_type text                         NOT NULL,
    aggregate_id   text                         NOT NULL,
    sequence       bigint CHECK (sequence >= 0) NOT NULL,
    event_type     text                         NOT NULL,
    event_version  text                         NOT NULL,
    payload        json                         NOT NULL,
    metadata       json                         NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
)";

/// Runs it on the same server, with the same load, in a database of its own, and adds what came of it.
pub async fn add(config: &Config, command: &Bench, report: &mut Report) -> Result<(), CliError> {
    let own = own_database(config).await?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(own.url())
        .await
        .context(WHAT, REMEDY)?;
    sqlx::raw_sql(TABLE).execute(&pool).await.context(WHAT, REMEDY)?;
    let cqrs: Arc<PostgresCqrs<StockItem>> = Arc::new(postgres_cqrs(pool.clone(), Vec::new(), ()));
    let assigned = (0..SKUS).map(|number| {
        let cqrs = &cqrs;
        async move {
            let id = CommandId::from_uuid(uuid(number as u64));
            let assign = InventoryCommand::AssignSku {
                product_id: ProductId::for_command(id),
            };
            cqrs.execute(&sku(number), assign).await
        }
    });
    let assigned = stream::iter(assigned).buffer_unordered(CONNECTIONS as usize);
    let () = assigned.try_collect().await.context(WHAT, REMEDY)?;
    let (callers, reference) = (command.load().callers, reference()?);
    let step = move |place, number| {
        let receive = InventoryCommand::Receive {
            quantity: 1,
            reference: reference.clone(),
        };
        let cqrs = Arc::clone(&cqrs);
        async move {
            let metadata = HashMap::from([
                ("command_id".to_owned(), uuid(number).to_string()),
                ("actor".to_owned(), "bench".to_owned()),
            ]);
            let sku = sku(spread(place, number, callers));
            let executed = cqrs.execute_with_metadata(&sku, receive, metadata).await;
            let outcome = match executed {
                Ok(()) => Outcome::Done,
                // As a service that has no connection left would answer.
                Err(AggregateError::DatabaseConnectionError(_)) => Outcome::Shed,
                Err(_) => Outcome::Failed,
            };
            Step {
                outcome,
                kind: "receive",
                units: 1,
            }
        }
    };
    load::run(warm_up(command.load()), before(step.clone())).await;
    let measured = load::run(command.load(), step).await;
    pool.close().await;
    report.compare("stock postgres-es", measured);
    Ok(())
}
