//! Which generation of a view is served, and how far each has come.

use std::sync::Arc;

use event_bus::{Checkpoint, PartitionKey};
use event_schemas::{LogIdentity, Position};
use futures_util::TryStreamExt as _;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use super::{Mongo, MongoError, READ_TIMEOUT, WRITE_TIMEOUT, filter, number, within};
use crate::store::{Table, ViewSchema};

/// `{_id: "<view>_g<N>", view, generation, version, log_id, epoch, serving, incarnation, progress: {<partition>: position}}`.
///
/// Progress stands in the row that it is of: whoever drops one drops both. The incarnation is of this very row, and names
/// its collection: a process that has not heard that its generation was dropped and made again touches nothing of it.
const GENERATIONS: &str = "generations";

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
        let found = known.iter().find(ours).and_then(|row| {
            let incarnation = row.get_str("incarnation").ok()?;
            Some(Table::incarnation(schema, generation(row)?, incarnation))
        });
        if let Some(table) = found {
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
        let incarnation = ObjectId::new().to_hex();
        let table = Table::incarnation(schema, next, &incarnation);
        let row = doc! {
            "_id": row_id(&table),
            "view": schema.name,
            "generation": i64::from(next),
            "version": i64::from(schema.version),
            "log_id": log.log_id.to_string(),
            "epoch": log.epoch.cast_signed(),
            "serving": true,
            "incarnation": incarnation,
            "progress": {},
        };
        match within(WRITE_TIMEOUT, rows.insert_one(row)).await {
            Ok(_) => {
                create_indexes(mongo, &table).await?;
                return Ok(table);
            }
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
    let mut furthest = Document::new();
    for (partition, position) in checkpoint.positions() {
        furthest.insert(format!("progress.{partition}"), position.0.cast_signed());
    }
    if furthest.is_empty() || tables.is_empty() {
        return Ok(());
    }
    let statements = tables.iter().map(|table| {
        let mut row = row(table);
        row.insert("log_id", checkpoint.log.log_id.to_string());
        row.insert("epoch", checkpoint.log.epoch.cast_signed());
        // A replica that lost its partition and does not know it yet takes nothing back.
        doc! { "q": row, "u": { "$max": furthest.clone() } }
    });
    let updated = mongo.update(GENERATIONS, statements.collect()).await?;
    if updated.unmatched == 0 {
        return Ok(());
    }
    still_there(mongo, tables).await?;
    Err(MongoError::Unexpected(
        "progress of another log than the documents'".to_owned(),
    ))
}

/// Fails if one of these generations is gone, even if it was made again since.
pub(super) async fn still_there(mongo: &Mongo, tables: &[Arc<Table>]) -> Result<(), MongoError> {
    let ids: Vec<String> = tables.iter().map(|table| row_id(table)).collect();
    let rows = mongo.database.collection::<Document>(GENERATIONS);
    let find = async {
        let cursor = rows
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "incarnation": 1 })
            .await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let found = within(READ_TIMEOUT, find).await?;
    let is_there = |table: &Table| {
        let mut rows = found
            .iter()
            .filter(|row| row.get_str("_id").is_ok_and(|id| id == row_id(table)));
        rows.any(|row| {
            row.get_str("incarnation")
                .is_ok_and(|incarnation| incarnation == incarnation_of(table))
        })
    };
    match tables.iter().find(|table| !is_there(table)) {
        Some(gone) => Err(MongoError::Gone(row_id(gone))),
        None => Ok(()),
    }
}

pub(super) async fn reached(
    mongo: &Mongo,
    table: &Table,
    log: LogIdentity,
) -> Result<Checkpoint, MongoError> {
    let rows = mongo.database.collection::<Document>(GENERATIONS);
    let Some(found) = within(READ_TIMEOUT, rows.find_one(row(table))).await? else {
        return Err(MongoError::Gone(row_id(table)));
    };
    let unreadable = || MongoError::Unexpected("progress that cannot be read".to_owned());
    let progress = found.get_document("progress").map_err(|_| unreadable())?;
    let mut reached = Checkpoint::start(log);
    for partition in progress.keys() {
        let position = number(progress, partition).map(|position| Position(position.cast_unsigned()));
        let (Ok(partition), Some(position)) = (partition.parse::<PartitionKey>(), position) else {
            return Err(unreadable());
        };
        reached.advance(partition, position);
    }
    Ok(reached)
}

/// Finds the row of this very incarnation.
fn row(table: &Table) -> Document {
    doc! { "_id": row_id(table), "incarnation": incarnation_of(table) }
}

fn row_id(table: &Table) -> String {
    format!("{}_g{}", table.schema.name, table.generation)
}

fn incarnation_of(table: &Table) -> &str {
    table.name().rsplit('_').next().unwrap_or_default()
}
