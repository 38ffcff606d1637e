//! Documents in MongoDB: a collection per generation of a view.
//!
//! There are no transactions here, nor need there be: each document is replaced under a guard on its revision, says
//! itself what has been folded into it, and progress is stored after the documents that it speaks of.

mod error;
mod filter;
mod generations;

use std::collections::HashMap;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position, Timestamp};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection, Database};

pub use error::MongoError;

use super::{
    DocumentWrite, GenerationRow, Lease, Moved, Stage, StoredDocument, StoredPage, Table, ViewSchema,
    ViewWrites,
};
use crate::error::ViewError;
use crate::query::{After, KeyValue, Query};
use crate::view::DocId;
use error::DUPLICATE_KEY;

/// A server that hangs must not hang us: the driver itself waits for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Indexes of many documents take their time.
const INDEX_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of documents that one command carries. A command is one BSON document, of at most 16 MB.
const COMMAND_BYTES: usize = 8 << 20;

/// Updates that one command carries; the server takes 100,000.
const COMMAND_UPDATES: usize = 10_000;

/// Bytes that an update takes beside its document's body, keys included.
const UPDATE_BYTES: usize = 1_024;

/// Ids that one read asks for.
const READ_IDS: usize = 10_000;

/// Where the documents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoOptions {
    /// `mongodb://host:port,…/?replicaSet=…`; may hold a password, so keep it out of logs.
    pub url: String,
    /// The database that holds the views.
    pub database: String,
}

/// MongoDB, connected. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Mongo {
    database: Database,
}

impl Mongo {
    /// Prepares connections; they are made when first needed, and made again when they break.
    pub async fn connect(options: &MongoOptions) -> Result<Self, MongoError> {
        let mut parsed = ClientOptions::parse(&options.url).await?;
        parsed.app_name.get_or_insert_with(|| "omisys".to_owned());
        parsed.connect_timeout.get_or_insert(Duration::from_secs(2));
        parsed
            .server_selection_timeout
            .get_or_insert(Duration::from_secs(3));
        parsed.max_pool_size.get_or_insert(50);
        // What was read or acknowledged outlives the primary.
        parsed.read_concern = Some(ReadConcern::majority());
        parsed.write_concern = Some(
            WriteConcern::builder()
                .w(mongodb::options::Acknowledgment::Majority)
                .journal(true)
                .build(),
        );
        let client = Client::with_options(parsed)?;
        Ok(Self {
            database: client.database(&options.database),
        })
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), MongoError> {
        self.command(doc! { "ping": 1 }, READ_TIMEOUT).await.map(|_| ())
    }

    /// The database.
    pub fn name(&self) -> &str {
        self.database.name()
    }

    /// Deletes the database with everything in it.
    pub async fn drop_database(&self) -> Result<(), MongoError> {
        within(WRITE_TIMEOUT, self.database.drop()).await
    }

    /// Deletes what `collection` holds.
    #[cfg(test)]
    pub(super) async fn empty(&self, collection: &str) {
        let all = self.database.collection::<Document>(collection);
        all.delete_many(Document::new()).await.unwrap();
    }

    async fn command(&self, command: Document, limit: Duration) -> Result<Document, MongoError> {
        within(limit, self.database.run_command(command)).await
    }

    /// Runs `updates` (statements of the `update` command, none an upsert) unordered, durable on a majority.
    async fn update(&self, collection: &str, updates: Vec<Document>) -> Result<Updated, MongoError> {
        let count = updates.len();
        let command = doc! {
            "update": collection,
            "updates": updates,
            "ordered": false,
            "writeConcern": { "w": "majority", "j": true },
        };
        let reply = self.command(command, WRITE_TIMEOUT).await?;
        let (done, duplicates) = outcome(&reply)?;
        if !duplicates.is_empty() {
            return Err(MongoError::refused(DUPLICATE_KEY, "in an update"));
        }
        let Some(unmatched) = count.checked_sub(done) else {
            return Err(MongoError::Unexpected(format!("{done} of {count} updates")));
        };
        Ok(Updated { unmatched })
    }

    /// Inserts `documents` unordered, durable on a majority. Returns the places of those whose id is taken.
    async fn insert(&self, collection: &str, documents: Vec<Document>) -> Result<Vec<usize>, MongoError> {
        let count = documents.len();
        let command = doc! {
            "insert": collection,
            "documents": documents,
            "ordered": false,
            "writeConcern": { "w": "majority", "j": true },
        };
        let reply = self.command(command, WRITE_TIMEOUT).await?;
        let (done, duplicates) = outcome(&reply)?;
        // Some servers count what was refused among what was done.
        if done + duplicates.len() < count {
            let message = format!("{done} of {count} inserts, {} duplicates", duplicates.len());
            return Err(MongoError::Unexpected(message));
        }
        Ok(duplicates)
    }
}

/// How many writes of a command were done, and the places of those that met a duplicate key. Any other refusal is an error.
fn outcome(reply: &Document) -> Result<(usize, Vec<usize>), MongoError> {
    let mut duplicates = Vec::new();
    if let Ok(errors) = reply.get_array("writeErrors") {
        for error in errors.iter().filter_map(Bson::as_document) {
            let index = number(error, "index").and_then(|index| usize::try_from(index).ok());
            match (number(error, "code").map(|code| code as i32), index) {
                (Some(DUPLICATE_KEY), Some(index)) => duplicates.push(index),
                (code, _) => return Err(MongoError::refused(code.unwrap_or_default(), "in a write")),
            }
        }
    }
    if let Ok(error) = reply.get_document("writeConcernError") {
        let code = number(error, "code").unwrap_or_default();
        return Err(MongoError::Unavailable(format!("not on a majority: {code}")));
    }
    let done = number(reply, "n")
        .and_then(|done| usize::try_from(done).ok())
        .unwrap_or_default();
    Ok((done, duplicates))
}

/// What an update came to.
struct Updated {
    /// How many statements found nothing to update; the server does not say which.
    unmatched: usize,
}

impl fmt::Debug for Mongo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mongo")
            .field("database", &self.name())
            .finish_non_exhaustive()
    }
}

/// Documents in MongoDB collections.
#[derive(Debug, Clone)]
pub(crate) struct MongoViewStore {
    mongo: Mongo,
}

impl MongoViewStore {
    pub(crate) const fn new(mongo: Mongo) -> Self {
        Self { mongo }
    }

    /// As [`super::ViewStore::generations`].
    pub(crate) async fn generations(&self) -> Result<Vec<GenerationRow>, ViewError> {
        Ok(generations::all(&self.mongo).await?)
    }

    /// As [`super::ViewStore::serving`]. Generations of another log are left alone: somebody may still read them.
    pub(crate) async fn serving(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
    ) -> Result<GenerationRow, ViewError> {
        Ok(generations::serving(&self.mongo, schema, log).await?)
    }

    /// As [`super::ViewStore::begin`].
    pub(crate) async fn begin(
        &self,
        schema: ViewSchema,
        log: LogIdentity,
        stage: Stage,
        lease: Option<Lease>,
    ) -> Result<GenerationRow, ViewError> {
        Ok(generations::begin(&self.mongo, schema, log, stage, lease).await?)
    }

    /// As [`super::ViewStore::build`].
    pub(crate) async fn build(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        now: Timestamp,
        built: Position,
        target: Position,
    ) -> Result<bool, ViewError> {
        Ok(generations::build(&self.mongo, row, lease, now, built, target).await?)
    }

    /// As [`super::ViewStore::follow`].
    pub(crate) async fn follow(&self, table: &Table, lease: &Lease) -> Result<bool, ViewError> {
        Ok(generations::follow(&self.mongo, table, lease).await?)
    }

    /// As [`super::ViewStore::release`].
    pub(crate) async fn release(
        &self,
        row: &GenerationRow,
        lease: &Lease,
        stage: Option<Stage>,
    ) -> Result<(), ViewError> {
        Ok(generations::release(&self.mongo, row, lease, stage).await?)
    }

    /// As [`super::ViewStore::unblock`].
    pub(crate) async fn unblock(&self, row: &GenerationRow) -> Result<(), ViewError> {
        Ok(generations::unblock(&self.mongo, row).await?)
    }

    /// As [`super::ViewStore::promote`].
    pub(crate) async fn promote(&self, row: &GenerationRow, now: Timestamp) -> Result<bool, ViewError> {
        Ok(generations::promote(&self.mongo, row, now).await?)
    }

    /// As [`super::ViewStore::drop_generation`].
    pub(crate) async fn drop_generation(&self, row: &GenerationRow) -> Result<bool, ViewError> {
        Ok(generations::drop_generation(&self.mongo, row).await?)
    }

    /// As [`super::ViewStore::load_all`].
    pub(crate) async fn load_all(
        &self,
        wanted: Vec<(Arc<Table>, Vec<DocId>)>,
    ) -> Result<Vec<Vec<StoredDocument>>, ViewError> {
        let mut found = Vec::with_capacity(wanted.len());
        for (table, ids) in wanted {
            found.push(self.load(&table, &ids).await?);
        }
        Ok(found)
    }

    async fn load(&self, table: &Table, ids: &[DocId]) -> Result<Vec<StoredDocument>, MongoError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_IDS) {
            let wanted: Vec<&str> = ids.iter().map(DocId::as_str).collect();
            let rows = self
                .rows(
                    table,
                    doc! { "_id": { "$in": wanted } },
                    doc! { "rev": 1, "body": 1 },
                )
                .await?;
            for row in rows {
                found.push(stored(row)?);
            }
        }
        Ok(found)
    }

    /// The revisions of the documents that are there, of those asked for.
    pub(crate) async fn revisions(
        &self,
        table: &Table,
        ids: &[DocId],
    ) -> Result<Vec<(DocId, u64)>, MongoError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_IDS) {
            let wanted: Vec<&str> = ids.iter().map(DocId::as_str).collect();
            let rows = self
                .rows(table, doc! { "_id": { "$in": wanted } }, doc! { "rev": 1 })
                .await?;
            for mut row in rows {
                found.push((id(&mut row)?, revision(&row)?));
            }
        }
        Ok(found)
    }

    async fn rows(
        &self,
        table: &Table,
        filter: Document,
        projection: Document,
    ) -> Result<Vec<Document>, MongoError> {
        let collection = self.collection(table);
        let find = async {
            // All in one answer, as far as its 16 MB go.
            let cursor = collection
                .find(filter)
                .projection(projection)
                .batch_size(READ_IDS as u32)
                .await?;
            cursor.try_collect().await
        };
        within(READ_TIMEOUT, find).await
    }

    /// As [`super::ViewStore::find`].
    pub(crate) async fn find(&self, table: &Table, query: &Query) -> Result<StoredPage, ViewError> {
        let page = filter::page(&table.schema, query)?;
        let mut projection = doc! { "rev": 1, "body": 1 };
        if let Some(order) = &page.order {
            projection.insert(order, 1);
        }
        let collection = self.collection(table);
        let limit = query.limit + 1;
        let find = async {
            let cursor = collection
                .find(page.filter)
                .projection(projection)
                .sort(page.sort)
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
                .await?;
            cursor.try_collect::<Vec<Document>>().await
        };
        let mut rows = within(READ_TIMEOUT, find).await?;
        // One more than asked: there is a next page, and it begins after what we have.
        let more = rows.len() > query.limit;
        rows.truncate(query.limit);
        let mut next = None;
        let mut documents = Vec::with_capacity(rows.len());
        for mut row in rows {
            let key = page.order.as_ref().and_then(|order| row.remove(order));
            let document = stored(row)?;
            next = Some(After {
                key: filter::key(key),
                id: document.id.to_string(),
            });
            documents.push(document);
        }
        Ok(StoredPage {
            documents,
            next: next.filter(|_| more),
        })
    }

    /// As [`super::ViewStore::scan`].
    pub(crate) async fn scan(
        &self,
        table: &Table,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(StoredDocument, Vec<KeyValue>)>, ViewError> {
        let collection = self.collection(table);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let find = async {
            let cursor = collection
                .find(doc! { "_id": { "$gt": after } })
                .sort(doc! { "_id": 1 })
                .limit(limit)
                .await?;
            cursor.try_collect::<Vec<Document>>().await
        };
        let rows = within(READ_TIMEOUT, find).await?;
        let scanned = rows.into_iter().map(|mut row| {
            let keys = table.schema.keys.iter();
            let keys = keys
                .map(|key| filter::key(row.remove(filter::field(key.name))))
                .collect();
            Ok((stored(row)?, keys))
        });
        scanned.collect()
    }

    /// As [`super::ViewStore::count`].
    pub(crate) async fn count(&self, table: &Table) -> Result<u64, MongoError> {
        let reply = self
            .mongo
            .command(doc! { "count": table.name() }, READ_TIMEOUT)
            .await?;
        Ok(number(&reply, "n").unwrap_or_default().cast_unsigned())
    }

    /// As [`super::ViewStore::write`], without progress: see [`MongoViewStore::advance`].
    pub(crate) async fn write(&self, writes: &[ViewWrites]) -> Result<Moved, MongoError> {
        let mut moved: Moved = Vec::with_capacity(writes.len());
        for view in writes {
            moved.push(self.write_view(&view.table, &view.documents).await?);
        }
        Ok(moved)
    }

    async fn write_view(&self, table: &Table, documents: &[DocumentWrite]) -> Result<Vec<usize>, MongoError> {
        let mut moved = Vec::new();
        let mut begin = 0;
        while begin < documents.len() {
            let (mut end, mut bytes) = (begin, 0);
            while end < documents.len() && end - begin < COMMAND_UPDATES {
                bytes += documents[end].body.len() + UPDATE_BYTES;
                if end > begin && bytes > COMMAND_BYTES {
                    break;
                }
                end += 1;
            }
            let here = self.write_chunk(table, &documents[begin..end]).await?;
            moved.extend(here.into_iter().map(|place| begin + place));
            begin = end;
        }
        Ok(moved)
    }

    /// The places of the documents that had moved. New ones are inserted, which is many times faster than an upsert.
    async fn write_chunk(
        &self,
        table: &Table,
        documents: &[DocumentWrite],
    ) -> Result<Vec<usize>, MongoError> {
        let (new, old): (Vec<usize>, Vec<usize>) =
            (0..documents.len()).partition(|place| documents[*place].expected == 0);
        let mut moved = Vec::new();
        if !new.is_empty() {
            let rows = new
                .iter()
                .map(|place| inserted(&table.schema, &documents[*place]));
            let duplicates = self.mongo.insert(table.name(), rows.collect()).await?;
            moved.extend(duplicates.into_iter().filter_map(|index| new.get(index).copied()));
        }
        if !old.is_empty() {
            let statements = old.iter().map(|place| update(&table.schema, &documents[*place]));
            let updated = self.mongo.update(table.name(), statements.collect()).await?;
            if updated.unmatched > 0 {
                moved.extend(self.not_stored(table, documents).await?);
            }
        }
        Ok(moved)
    }

    /// The places of the replacements that are not what is stored. One that was stored and replaced since is among them:
    /// folding it again changes nothing.
    async fn not_stored(&self, table: &Table, documents: &[DocumentWrite]) -> Result<Vec<usize>, MongoError> {
        let replaced = || {
            documents
                .iter()
                .enumerate()
                .filter(|(_, write)| write.expected > 0)
        };
        let ids: Vec<DocId> = replaced().map(|(_, write)| write.id.clone()).collect();
        let stored = self.load(table, &ids).await?;
        let stored: HashMap<&str, &StoredDocument> =
            stored.iter().map(|stored| (stored.id.as_str(), stored)).collect();
        let is_stored = |write: &DocumentWrite| {
            let found = stored.get(write.id.as_str());
            found.is_some_and(|found| found.rev == write.expected + 1 && *found.body == *write.body)
        };
        Ok(replaced()
            .filter(|(_, write)| !is_stored(write))
            .map(|(place, _)| place)
            .collect())
    }

    /// Stores how far the documents of these views have come. After [`MongoViewStore::write`], never before it.
    pub(crate) async fn advance(
        &self,
        tables: &[Arc<Table>],
        checkpoint: &Checkpoint,
    ) -> Result<(), MongoError> {
        generations::advance(&self.mongo, tables, checkpoint).await
    }

    /// As [`super::ViewStore::still_there`].
    pub(crate) async fn still_there(&self, tables: &[Arc<Table>]) -> Result<(), MongoError> {
        generations::still_there(&self.mongo, tables).await
    }

    /// How far the documents have come.
    pub(crate) async fn reached(&self, table: &Table, log: LogIdentity) -> Result<Checkpoint, MongoError> {
        generations::reached(&self.mongo, table, log).await
    }

    fn collection(&self, table: &Table) -> Collection<Document> {
        self.mongo.database.collection(table.name())
    }
}

/// A new document: one that is there already meets its own id.
fn inserted(schema: &ViewSchema, write: &DocumentWrite) -> Document {
    let mut row = doc! { "_id": write.id.as_str() };
    row.extend(fields(schema, write));
    row
}

/// One statement: replaces the document if it is still the one that was folded on. One that has moved, or is gone, is not
/// matched.
fn update(schema: &ViewSchema, write: &DocumentWrite) -> Document {
    doc! {
        "q": { "_id": write.id.as_str(), "rev": write.expected.cast_signed() },
        "u": { "$set": fields(schema, write) },
    }
}

fn fields(schema: &ViewSchema, write: &DocumentWrite) -> Document {
    let mut fields = doc! { "rev": write.expected.cast_signed() + 1, "body": &*write.body };
    if let Some(keys) = &write.keys {
        for (key, value) in schema.keys.iter().zip(keys) {
            fields.insert(filter::field(key.name), filter::value(value));
        }
    }
    fields
}

fn stored(mut row: Document) -> Result<StoredDocument, MongoError> {
    let Some(Bson::String(body)) = row.remove("body") else {
        return Err(MongoError::Unexpected("a document without a body".to_owned()));
    };
    Ok(StoredDocument {
        rev: revision(&row)?,
        id: id(&mut row)?,
        body,
    })
}

fn id(row: &mut Document) -> Result<DocId, MongoError> {
    match row.remove("_id") {
        Some(Bson::String(id)) => Ok(DocId::from(id.as_str())),
        _ => Err(MongoError::Unexpected(
            "a document without a text for its id".to_owned(),
        )),
    }
}

fn revision(row: &Document) -> Result<u64, MongoError> {
    let rev = number(row, "rev").map(i64::cast_unsigned);
    rev.ok_or_else(|| MongoError::Unexpected("a document without a revision".to_owned()))
}

/// A whole number, however wide it was sent.
fn number(row: &Document, field: &str) -> Option<i64> {
    match row.get(field)? {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        Bson::Double(value) => Some(*value as i64),
        _ => None,
    }
}

async fn within<T>(
    limit: Duration,
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T, MongoError> {
    match tokio::time::timeout(limit, call.into_future()).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(MongoError::TimedOut),
    }
}
