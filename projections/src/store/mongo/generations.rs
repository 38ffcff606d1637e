//! Which generation of a view is served, and how far each has come.

use std::sync::Arc;

use event_bus::{Checkpoint, PartitionKey};
use event_schemas::{LogIdentity, Position};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, doc};

use super::{Mongo, MongoError, READ_TIMEOUT, WRITE_TIMEOUT, filter, number, within};
use crate::store::{Table, ViewSchema};

/// `{_id: "<view>_g<N>", view, generation, version, log_id, epoch, serving}`.
const GENERATIONS: &str = "generations";

/// `{_id: "<view>_g<N>/<partition>", view, generation, partition, log_id, epoch, position}`.
const PROGRESS: &str = "progress";

/// How often somebody else may take the number that we wanted.
const ATTEMPTS: usize = 32;

pub(super) async fn serving(
    mongo: &Mongo,
    schema: ViewSchema,
    log: LogIdentity,
) -> Result<Table, MongoError> {
    for _ in 0..ATTEMPTS {
        let rows = mongo.database.collection::<Document>(GENERATIONS);
        let find = async {
            let cursor = rows
                .find(doc! { "view": schema.name })
                .sort(doc! { "generation": -1 })
                .await?;
            cursor.try_collect::<Vec<Document>>().await
        };
        let known = within(READ_TIMEOUT, find).await?;
        let generation =
            |row: &Document| number(row, "generation").and_then(|number| u32::try_from(number).ok());
        let ours = |row: &&Document| {
            row.get_bool("serving").is_ok_and(|serving| serving)
                && number(row, "version") == Some(schema.version.into())
                && row.get_str("log_id").ok() == Some(log.log_id.to_string().as_str())
                && number(row, "epoch") == Some(log.epoch.cast_signed())
        };
        if let Some(generation) = known.iter().find(ours).and_then(generation) {
            let table = Table::new(schema, generation);
            create_indexes(mongo, &table).await?;
            return Ok(table);
        }
        let next = known.iter().filter_map(generation).max().unwrap_or(0) + 1;
        if next > 1 {
            tracing::info!(
                view = schema.name,
                generation = next,
                "a new generation for this version and log"
            );
        }
        let table = Table::new(schema, next);
        // Before anybody is told of it.
        create_indexes(mongo, &table).await?;
        let row = doc! {
            "_id": table.name(),
            "view": schema.name,
            "generation": i64::from(next),
            "version": i64::from(schema.version),
            "log_id": log.log_id.to_string(),
            "epoch": log.epoch.cast_signed(),
            "serving": true,
        };
        match within(WRITE_TIMEOUT, rows.insert_one(row)).await {
            Ok(_) => return Ok(table),
            // Another process was faster: see what it has made.
            Err(error) if error.is_duplicate() => {}
            Err(error) => return Err(error),
        }
    }
    Err(MongoError::Unexpected(format!(
        "no number is left for a generation of {}",
        schema.name
    )))
}

/// Makes the view's indexes; those that are there stay.
async fn create_indexes(mongo: &Mongo, table: &Table) -> Result<(), MongoError> {
    let indexes = table.schema.indexes.iter().map(|keys| {
        let mut fields: Document = keys.iter().map(|key| (filter::field(key), 1.into())).collect();
        fields.insert("_id", 1);
        doc! { "name": keys.join("_"), "key": fields }
    });
    let indexes: Vec<Document> = indexes.collect();
    if indexes.is_empty() {
        return Ok(());
    }
    let command = doc! { "createIndexes": table.name(), "indexes": indexes };
    mongo.command(command, WRITE_TIMEOUT).await.map(|_| ())
}

pub(super) async fn advance(
    mongo: &Mongo,
    tables: &[Arc<Table>],
    checkpoint: &Checkpoint,
) -> Result<(), MongoError> {
    let mut updates = Vec::with_capacity(tables.len() * checkpoint.positions().len());
    for table in tables {
        for (partition, position) in checkpoint.positions() {
            updates.push(doc! {
                "q": { "_id": progress_id(table, *partition) },
                "u": {
                    // A replica that lost its partition and does not know it yet takes nothing back.
                    "$max": { "position": position.0.cast_signed() },
                    "$set": {
                        "view": table.schema.name,
                        "generation": i64::from(table.generation),
                        "partition": partition.to_string(),
                        "log_id": checkpoint.log.log_id.to_string(),
                        "epoch": checkpoint.log.epoch.cast_signed(),
                    },
                },
                "upsert": true,
            });
        }
    }
    if updates.is_empty() {
        return Ok(());
    }
    // Two that create a row at once: one meets the other's, which is there now.
    for _ in 0..ATTEMPTS {
        let duplicates = mongo.update(PROGRESS, updates.clone()).await?;
        if duplicates.is_empty() {
            return Ok(());
        }
        updates = duplicates
            .into_iter()
            .filter_map(|place| updates.get(place).cloned())
            .collect();
    }
    Err(MongoError::Unexpected("progress could not be stored".to_owned()))
}

pub(super) async fn reached(
    mongo: &Mongo,
    table: &Table,
    log: LogIdentity,
) -> Result<Checkpoint, MongoError> {
    // All ids that begin with "<table>/": the character after the slash is the zero.
    let (from, until) = (format!("{}/", table.name()), format!("{}0", table.name()));
    let rows = mongo.database.collection::<Document>(PROGRESS);
    let find = async {
        let cursor = rows
            .find(doc! { "_id": { "$gte": from, "$lt": until } })
            .batch_size(10_000)
            .await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let mut reached = Checkpoint::start(log);
    for row in within(READ_TIMEOUT, find).await? {
        let partition = row
            .get_str("partition")
            .ok()
            .and_then(|text| text.parse::<PartitionKey>().ok());
        let position = number(&row, "position").map(|position| Position(position.cast_unsigned()));
        let (Some(partition), Some(position)) = (partition, position) else {
            return Err(MongoError::Unexpected("progress that cannot be read".to_owned()));
        };
        reached.advance(partition, position);
    }
    Ok(reached)
}

fn progress_id(table: &Table, partition: PartitionKey) -> String {
    format!("{}/{partition}", table.name())
}
