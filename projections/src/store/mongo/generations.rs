//! Which generations there are, which of them is served, and how far each has come.

use std::sync::Arc;

use event_bus::{Checkpoint, PartitionKey};
use event_schemas::{LogIdentity, Position, Timestamp};
use futures_util::TryStreamExt as _;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use super::{INDEX_TIMEOUT, Mongo, MongoError, READ_TIMEOUT, WRITE_TIMEOUT, filter, number, within};
use crate::store::{GenerationRow, Lease, Stage, Table, ViewSchema, begun, choose};

/// `{_id: "<view>_g<N>", view, generation, version, log_id, epoch, stage, serving, target, builder?, builder_until?,
/// incarnation, progress: {<partition>: position}}`.
///
/// Progress stands in the row that it is of: whoever drops one drops both. The incarnation is of this very row, and names
/// its collection: a process that has not heard that its generation was dropped and made again touches nothing of it.
const GENERATIONS: &str = "generations";

/// The stage of a generation that was dropped. Its row stays, so that its number is not given again: caches, dead letters
/// and consumer groups go by it.
const DROPPED: &str = "dropped";

/// How often somebody else may take the number that we wanted.
const ATTEMPTS: usize = 32;

pub(super) async fn all(mongo: &Mongo) -> Result<Vec<GenerationRow>, MongoError> {
    let rows = mongo.database.collection::<Document>(GENERATIONS);
    let find = async {
        let cursor = rows
            .find(doc! { "stage": { "$ne": DROPPED } })
            .sort(doc! { "view": 1, "generation": 1 })
            .await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let found = within(READ_TIMEOUT, find).await?;
    found.iter().map(generation_row).collect()
}

fn generation_row(row: &Document) -> Result<GenerationRow, MongoError> {
    let wrong = || MongoError::Unexpected("a generation that cannot be read".to_owned());
    let small = |field| number(row, field).and_then(|number| u32::try_from(number).ok());
    let log = LogIdentity {
        log_id: row
            .get_str("log_id")
            .ok()
            .and_then(|id| id.parse().ok())
            .ok_or_else(wrong)?,
        epoch: number(row, "epoch").map(i64::cast_unsigned).ok_or_else(wrong)?,
    };
    let lease = match (row.get_str("builder"), number(row, "builder_until")) {
        (Ok(holder), Some(until)) => Some(Lease {
            holder: holder.to_owned(),
            until: Timestamp::from_microsecond(until).map_err(|_| wrong())?,
        }),
        _ => None,
    };
    let stage = match row.get_str("stage") {
        Ok(stage) => stage.parse().map_err(|_| wrong())?,
        // Of the first release, which knew no other.
        Err(_) => Stage::Following,
    };
    Ok(GenerationRow {
        view: row.get_str("view").map_err(|_| wrong())?.to_owned(),
        generation: small("generation").ok_or_else(wrong)?,
        version: small("version").ok_or_else(wrong)?,
        stage,
        serving: row.get_bool("serving").unwrap_or_default(),
        reached: progress(row, log)?,
        target: Position(number(row, "target").unwrap_or_default().cast_unsigned()),
        lease,
        promoted_at: match number(row, "promoted_at") {
            Some(at) => Some(Timestamp::from_microsecond(at).map_err(|_| wrong())?),
            None => None,
        },
        incarnation: Some(row.get_str("incarnation").map_err(|_| wrong())?.to_owned()),
    })
}

pub(super) async fn serving(
    mongo: &Mongo,
    schema: ViewSchema,
    log: LogIdentity,
) -> Result<GenerationRow, MongoError> {
    for _ in 0..ATTEMPTS {
        // In this order: if another process makes one after we looked, it has taken our number.
        let number = last_number(mongo, schema).await? + 1;
        let known = all(mongo).await?;
        if let Some(row) = choose(&known, &schema, log) {
            let table = Table::of(schema, row);
            if !table.outdated {
                // Whoever made it may have died before.
                create_indexes(mongo, &table).await?;
            }
            return Ok(row.clone());
        }
        let new = new_row(schema, number, log, Stage::Following, true, None);
        if let Some(row) = insert(mongo, new).await? {
            create_indexes(mongo, &Table::of(schema, &row)).await?;
            return Ok(row);
        }
    }
    Err(no_number(schema))
}

pub(super) async fn begin(
    mongo: &Mongo,
    schema: ViewSchema,
    log: LogIdentity,
    stage: Stage,
    lease: Option<Lease>,
) -> Result<GenerationRow, MongoError> {
    for _ in 0..ATTEMPTS {
        let number = last_number(mongo, schema).await? + 1;
        if let Some(row) = begun(&all(mongo).await?, &schema, log) {
            return Ok(row.clone());
        }
        let new = new_row(schema, number, log, stage, false, lease.clone());
        if let Some(row) = insert(mongo, new).await? {
            return Ok(row);
        }
    }
    Err(no_number(schema))
}

fn no_number(schema: ViewSchema) -> MongoError {
    MongoError::Unexpected(format!("no number is left for a generation of {}", schema.name))
}

/// The highest number that was ever given.
async fn last_number(mongo: &Mongo, schema: ViewSchema) -> Result<u32, MongoError> {
    let rows = mongo.database.collection::<Document>(GENERATIONS);
    let last = async {
        rows.find_one(doc! { "view": schema.name })
            .sort(doc! { "generation": -1 })
            .await
    };
    let last = within(READ_TIMEOUT, last).await?;
    let last = last.and_then(|row| number(&row, "generation")).unwrap_or(0);
    Ok(u32::try_from(last).unwrap_or(u32::MAX - 1))
}

fn new_row(
    schema: ViewSchema,
    generation: u32,
    log: LogIdentity,
    stage: Stage,
    serving: bool,
    lease: Option<Lease>,
) -> GenerationRow {
    GenerationRow {
        view: schema.name.to_owned(),
        generation,
        version: schema.version,
        stage,
        serving,
        reached: Checkpoint::start(log),
        target: Position(0),
        lease,
        promoted_at: None,
        incarnation: Some(ObjectId::new().to_hex()),
    }
}

/// Stores a new generation's row; none if another process was faster with the number.
async fn insert(mongo: &Mongo, row: GenerationRow) -> Result<Option<GenerationRow>, MongoError> {
    let rows = mongo.database.collection::<Document>(GENERATIONS);
    let mut document = this(&row);
    document.extend(doc! {
        "view": row.view.as_str(),
        "generation": i64::from(row.generation),
        "version": i64::from(row.version),
        "log_id": row.reached.log.log_id.to_string(),
        "epoch": row.reached.log.epoch.cast_signed(),
        "stage": row.stage.name(),
        "serving": row.serving,
        "target": 0_i64,
        "builder": row.lease.as_ref().map(|lease| lease.holder.clone()),
        "builder_until": row.lease.as_ref().map(|lease| lease.until.as_microsecond()),
        "progress": {},
    });
    match within(WRITE_TIMEOUT, rows.insert_one(document)).await {
        Ok(_) => Ok(Some(row)),
        Err(error) if error.is_duplicate() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn build(
    mongo: &Mongo,
    row: &GenerationRow,
    lease: &Lease,
    now: Timestamp,
    built: Position,
    target: Position,
) -> Result<bool, MongoError> {
    let mut of = this(row);
    of.insert(
        "$or",
        vec![
            doc! { "builder": Bson::Null },
            doc! { "builder": lease.holder.as_str() },
            doc! { "builder_until": { "$lte": now.as_microsecond() } },
        ],
    );
    let set = doc! {
        "builder": lease.holder.as_str(),
        "builder_until": lease.until.as_microsecond(),
    };
    let max = doc! {
        format!("progress.{}", PartitionKey::Log): built.0.cast_signed(),
        "target": target.0.cast_signed(),
    };
    if !update(mongo, of, doc! { "$set": set, "$max": max }).await? {
        return Ok(false);
    }
    let mut requested = this(row);
    requested.insert("stage", Stage::Requested.name());
    update(
        mongo,
        requested,
        doc! { "$set": { "stage": Stage::Building.name() } },
    )
    .await?;
    Ok(true)
}

pub(super) async fn follow(mongo: &Mongo, table: &Table, lease: &Lease) -> Result<bool, MongoError> {
    create_indexes(mongo, table).await?;
    let mut of = row(table);
    of.insert("stage", Stage::Building.name());
    of.insert("builder", lease.holder.as_str());
    let set = doc! { "stage": Stage::Following.name() };
    update(mongo, of, doc! { "$set": set }).await
}

pub(super) async fn release(
    mongo: &Mongo,
    row: &GenerationRow,
    lease: &Lease,
    stage: Option<Stage>,
) -> Result<(), MongoError> {
    let mut of = this(row);
    of.insert("builder", lease.holder.as_str());
    let mut set = doc! { "builder": Bson::Null, "builder_until": Bson::Null };
    if let Some(stage) = stage {
        set.insert("stage", stage.name());
    }
    update(mongo, of, doc! { "$set": set }).await.map(|_| ())
}

pub(super) async fn unblock(mongo: &Mongo, row: &GenerationRow) -> Result<(), MongoError> {
    let mut of = this(row);
    of.insert("stage", Stage::Blocked.name());
    let set = doc! { "stage": Stage::Following.name() };
    update(mongo, of, doc! { "$set": set }).await.map(|_| ())
}

/// First the new one, then not the old ones: in between the newer is chosen.
pub(super) async fn promote(mongo: &Mongo, row: &GenerationRow, now: Timestamp) -> Result<bool, MongoError> {
    let rows = all(mongo).await?;
    let serving =
        |other: &&GenerationRow| other.serving && other.view == row.view && other.version == row.version;
    if rows
        .iter()
        .filter(serving)
        .any(|other| other.generation > row.generation)
    {
        return Ok(false);
    }
    let set = doc! { "serving": true, "promoted_at": now.as_microsecond() };
    if !update(mongo, this(row), doc! { "$set": set }).await? {
        return Ok(false);
    }
    for other in rows
        .iter()
        .filter(serving)
        .filter(|other| other.generation < row.generation)
    {
        // One that is gone serves nobody.
        update(mongo, this(other), doc! { "$set": { "serving": false } }).await?;
    }
    Ok(true)
}

pub(super) async fn drop_generation(mongo: &Mongo, row: &GenerationRow) -> Result<bool, MongoError> {
    let set = doc! { "stage": DROPPED, "serving": false, "incarnation": "" };
    let mut of = this(row);
    of.insert("serving", row.serving);
    let dropped = update(mongo, of, doc! { "$set": set }).await?;
    if let (true, Some(incarnation)) = (dropped, &row.incarnation) {
        let name = format!("{}_g{}_{incarnation}", row.view, row.generation);
        // One that never held a document was never made, which servers answer in ways of their own.
        let named = mongo
            .database
            .list_collection_names()
            .filter(doc! { "name": name.as_str() });
        if !within(READ_TIMEOUT, named).await?.is_empty() {
            mongo.command(doc! { "drop": name }, WRITE_TIMEOUT).await?;
        }
    }
    Ok(dropped)
}

/// Whether one row was there to be updated.
async fn update(mongo: &Mongo, of: Document, change: Document) -> Result<bool, MongoError> {
    let updated = mongo
        .update(GENERATIONS, vec![doc! { "q": of, "u": change }])
        .await?;
    Ok(updated.unmatched == 0)
}

/// Finds the row of this very incarnation.
fn this(row: &GenerationRow) -> Document {
    doc! {
        "_id": format!("{}_g{}", row.view, row.generation),
        "incarnation": row.incarnation.clone().unwrap_or_default(),
    }
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
    mongo.command(command, INDEX_TIMEOUT).await.map(|_| ())
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
    progress(&found, log)
}

fn progress(row: &Document, log: LogIdentity) -> Result<Checkpoint, MongoError> {
    let unreadable = || MongoError::Unexpected("progress that cannot be read".to_owned());
    let progress = row.get_document("progress").map_err(|_| unreadable())?;
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
