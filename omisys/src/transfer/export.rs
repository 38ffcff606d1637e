//! A log out of its database.

use database::{Database, DatabaseError, KeptTable};
use event_bus::{Checkpoint, Checkpoints};
use event_schemas::{Clock, LogIdentity, Position};
use event_store::{Log, ReadError};

use super::file::{Counts, FileError, FileWriter, Header};
use crate::progress::Progress;
use crate::stores;

/// Events or receipts read together.
const PAGE: usize = 2_000;
/// Rows beside the log read together.
const ROWS: usize = 500;

/// What was written.
pub struct Exported {
    pub log: LogIdentity,
    pub head: Position,
    pub counts: Counts,
    pub sha256: String,
    /// Before compression.
    pub bytes: u64,
}

/// Why a log could not be written to a file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the log cannot be read: {0}")]
    Store(#[from] DatabaseError),
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    #[error("the file cannot be written: {0}")]
    File(#[from] FileError),
}

/// Writes the log, and the rows of `tables`, as of one moment, while others go on writing.
///
/// The moment is that of the first transaction: it reads the head, the sagas' position and the rows, all of which change.
/// The log up to that head never changes again, so it is read page by page afterwards, and no long transaction holds up
/// anybody (SQLite's WAL, PostgreSQL's vacuum). In this order nothing can be lost: the sagas' position cannot be beyond
/// the log, every event up to it has its rows, and every event behind it is in the file for the sagas to go on with.
pub async fn export(
    database: &Database,
    log: &Log,
    tables: Vec<KeptTable>,
    mut file: FileWriter,
) -> Result<Exported, ExportError> {
    let currency = stores::currency(database).await?;
    let taken_at = Clock::System.now();
    let snapshot = database.read(move |session| {
        let (identity, head) = Log::head_in(session)?;
        file.header(Header::new(identity, head, taken_at, currency, &tables))?;
        let checkpoint = Checkpoints::load_in(session, sagas::SUBSCRIBER)?;
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.log == identity);
        for (partition, position) in checkpoint.iter().flat_map(Checkpoint::positions) {
            file.sagas(partition.to_string(), *position)?;
        }
        for table in &tables {
            let mut last = None;
            loop {
                let page = table.page(session, last.as_ref(), ROWS)?;
                let full = page.len() == ROWS;
                last = page.last().cloned();
                for row in page {
                    file.row(table, row)?;
                }
                if !full {
                    break;
                }
            }
        }
        Ok::<_, ExportError>((file, identity, head))
    });
    let (mut file, identity, head) = snapshot.await?;

    let mut progress = Progress::new("events", head.0);
    let mut position = Position(0);
    while position < head {
        let page = log.read_raw(position, PAGE).await?;
        let before = position;
        for event in page.iter().take_while(|event| event.position <= head) {
            position = event.position;
            file.event(event)?;
            progress.step();
        }
        if position == before {
            return Err(FileError::Damaged(format!("the log ends at {position} instead of {head}")).into());
        }
    }
    drop(progress);
    let mut last = None;
    loop {
        let page = log.read_raw_receipts(last.as_ref(), head, PAGE).await?;
        for receipt in &page {
            file.receipt(receipt)?;
        }
        let full = page.len() == PAGE;
        last = page.into_iter().next_back();
        if !full {
            break;
        }
    }
    let (end, bytes) = file.finish()?;
    Ok(Exported {
        log: identity,
        head,
        counts: end.counts,
        sha256: end.sha256,
        bytes,
    })
}
