//! A log into an empty database.

use std::collections::BTreeSet;

use database::{Database, DatabaseError, KeptRow, KeptTable, Value};
use event_bus::{Checkpoint, Checkpoints, PartitionKey, Partitioning};
use event_schemas::{Clock, LogIdentity, Position, StreamId};
use event_store::{ImportError, LogImport, RawEvent, RawReceipt};
use tokio::sync::mpsc;

use super::TABLES;
use super::file::{Counts, End, FileError, FileReader, Header, Line};
use crate::progress::Progress;

/// Lines that are stored together.
const BATCH: usize = 2_000;
/// Their most payload bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Batches that may wait for the database.
const BATCHES_WAITING: usize = 2;

/// What was brought in.
pub struct Imported {
    pub log: LogIdentity,
    pub head: Position,
    pub counts: Counts,
    /// Where the sagas go on.
    pub sagas: Position,
}

/// Why a log was not brought in. The store is as empty as before, or says that the import was not finished.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] ImportError),
    #[error("reading the file panicked")]
    Panicked,
}

impl From<DatabaseError> for BringError {
    fn from(error: DatabaseError) -> Self {
        Self::Store(error.into())
    }
}

/// What is stored in one transaction.
enum Batch {
    Rows(&'static KeptTable, Vec<KeptRow>),
    Events(Vec<RawEvent>),
    Receipts(Vec<RawReceipt>),
}

/// Brings the log of `file`, whose header has been read, into `database`, which must be empty. All of it is checked
/// before any of it can be used. `expected` is the hash that the file must have, where someone else knows it.
pub async fn import(
    database: &Database,
    header: Header,
    file: FileReader,
    expected: Option<String>,
) -> Result<Imported, BringError> {
    let now = Clock::System.now();
    let import = LogImport::begin(database, &TABLES, now).await?;
    let (sender, mut batches) = mpsc::channel(BATCHES_WAITING);
    let head = header.head;
    let reading = tokio::task::spawn_blocking(move || Reading::new(file, head, sender).run());
    let mut progress = Progress::new("events", head.0);
    while let Some(batch) = batches.recv().await {
        match batch {
            Batch::Rows(table, rows) => {
                database
                    .write(move |session| table.insert(session, &rows))
                    .await
                    .map_err(|error: DatabaseError| error)?;
            }
            Batch::Events(events) => {
                let count = events.len();
                import.events(events).await?;
                (0..count).for_each(|_| progress.step());
            }
            Batch::Receipts(receipts) => import.receipts(receipts).await?,
        }
    }
    let (end, sagas) = reading.await.map_err(|_| BringError::Panicked)??;
    if expected.is_some_and(|expected| expected != end.sha256) {
        return Err(FileError::Damaged("it is not the file of this backup".to_owned()).into());
    }
    let finish = import.finish(header.log, head, now, move |session, identity| {
        // Nobody but the sagas has come any way in this log.
        Checkpoints::forget_all_in(session)?;
        if sagas > Position(0) {
            Checkpoints::save_in(session, sagas::SUBSCRIBER, &Checkpoint::at(identity, sagas))?;
        }
        Ok(())
    });
    Ok(Imported {
        log: finish.await?,
        head,
        counts: end.counts,
        sagas,
    })
}

/// Takes the file apart, on a thread of its own.
struct Reading {
    file: FileReader,
    head: Position,
    batches: mpsc::Sender<Batch>,
    rows: Option<(&'static KeptTable, Vec<KeptRow>)>,
    events: Vec<RawEvent>,
    event_bytes: usize,
    receipts: Vec<RawReceipt>,
    position: Position,
    handled: Handled,
}

impl Reading {
    fn new(file: FileReader, head: Position, batches: mpsc::Sender<Batch>) -> Self {
        Self {
            file,
            head,
            batches,
            rows: None,
            events: Vec::new(),
            event_bytes: 0,
            receipts: Vec::new(),
            position: Position(0),
            handled: Handled::default(),
        }
    }

    /// The last line, and where the sagas go on.
    fn run(mut self) -> Result<(End, Position), FileError> {
        loop {
            match self.file.next()? {
                Line::Header(_) => return Err(self.file.wrong("a second header")),
                Line::Sagas { partition, position } => {
                    if position > self.head {
                        return Err(self.file.wrong("the sagas are beyond the log"));
                    }
                    let partition = partition.parse().map_err(|error| self.wrong(&error))?;
                    self.handled.note(partition, position);
                }
                Line::Row { table, values } => self.row(&table, values)?,
                Line::Event(event) => self.event(event)?,
                Line::Receipt(receipt) => {
                    if receipt.position > self.head {
                        return Err(self.file.wrong("a receipt from beyond the log"));
                    }
                    self.receipts.push(receipt);
                    if self.receipts.len() == BATCH {
                        self.flush()?;
                    }
                }
                Line::End(end) => {
                    if self.position != self.head {
                        return Err(self.file.wrong("events are missing at the end"));
                    }
                    self.flush()?;
                    return Ok((end, self.handled.up_to(self.head)));
                }
            }
        }
    }

    fn event(&mut self, event: RawEvent) -> Result<(), FileError> {
        if event.position.0 != self.position.0 + 1 {
            let reason = format!("position {} follows {}", event.position, self.position);
            return Err(self.file.wrong(reason));
        }
        self.position = event.position;
        self.handled.observe(&event);
        self.event_bytes += event.payload.len();
        self.events.push(event);
        if self.events.len() == BATCH || self.event_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        name: &str,
        mut values: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), FileError> {
        let Some(table) = TABLES.iter().find(|table| table.name == name) else {
            return Err(self.file.wrong(format!("there is no table {name}")));
        };
        let columns = table.columns.iter().map(|column| match values.remove(*column) {
            Some(serde_json::Value::Null) => Ok(Value::Null),
            Some(serde_json::Value::String(text)) => Ok(Value::from(text)),
            Some(serde_json::Value::Number(number)) => number.as_i64().map(Value::from).ok_or(*column),
            _ => Err(*column),
        });
        let row = columns.collect::<Result<KeptRow, _>>();
        let row = row.map_err(|column| {
            self.file
                .wrong(format!("{name}.{column} is missing or of no use"))
        })?;
        if let Some(column) = values.keys().next() {
            return Err(self.file.wrong(format!("{name} has no column {column}")));
        }
        if self
            .rows
            .as_ref()
            .is_some_and(|(held, rows)| *held != table || rows.len() == BATCH)
        {
            self.flush()?;
        }
        self.rows.get_or_insert_with(|| (table, Vec::new())).1.push(row);
        Ok(())
    }

    /// Hands over what is held.
    fn flush(&mut self) -> Result<(), FileError> {
        let rows = self.rows.take().map(|(table, rows)| Batch::Rows(table, rows));
        self.event_bytes = 0;
        let events = std::mem::take(&mut self.events);
        let receipts = std::mem::take(&mut self.receipts);
        let events = (!events.is_empty()).then_some(Batch::Events(events));
        let receipts = (!receipts.is_empty()).then_some(Batch::Receipts(receipts));
        for batch in [rows, events, receipts].into_iter().flatten() {
            // Nobody takes it when the database has failed; there it is said why.
            let gone = self.batches.blocking_send(batch).is_err();
            if gone {
                return Err(FileError::Damaged("nobody reads on".to_owned()));
            }
        }
        Ok(())
    }

    fn wrong(&self, error: &impl std::fmt::Display) -> FileError {
        self.file.wrong(error.to_string())
    }
}

/// Up to where the sagas have handled everything: one position, whatever the parts were that their stream had. Repeats
/// from there on are absorbed by the ids of their commands.
#[derive(Default)]
struct Handled {
    places: Vec<(PartitionKey, Position)>,
    /// In how many partitions the stream was split; in several ways if that was changed.
    splits: BTreeSet<u16>,
    first_unhandled: Option<Position>,
}

impl Handled {
    fn note(&mut self, partition: PartitionKey, position: Position) {
        if let PartitionKey::Topic { of, .. } = partition {
            self.splits.insert(of);
        }
        self.places.push((partition, position));
    }

    fn observe(&mut self, event: &RawEvent) {
        if self.first_unhandled.is_none() && !self.holds(event) {
            self.first_unhandled = Some(event.position);
        }
    }

    fn holds(&self, event: &RawEvent) -> bool {
        let up_to = |key: PartitionKey| {
            self.places
                .iter()
                .any(|(place, position)| *place == key && *position >= event.position)
        };
        if up_to(PartitionKey::Log) {
            return true;
        }
        // The sagas would not have passed over an event of a type that they do not know.
        let Ok(aggregate_type) = event.aggregate_type.parse() else {
            return false;
        };
        let stream = StreamId {
            aggregate_type,
            aggregate_id: event.aggregate_id.clone(),
        };
        self.splits.iter().any(|partitions| {
            up_to(
                Partitioning::Kafka {
                    partitions: *partitions,
                }
                .of(&stream),
            )
        })
    }

    fn up_to(&self, head: Position) -> Position {
        self.first_unhandled
            .map_or(head, |position| Position(position.0.saturating_sub(1)))
    }
}
