//! The file that a log travels in: newline-delimited JSON, plain or in gzip.
//!
//! | line | holds |
//! |---|---|
//! | `{"header":{…}}` | the first line: which log, how far, and what is in the file |
//! | `{"sagas":{…}}` | how far the sagas had come in one part of the stream |
//! | `{"row":{…}}` | a row of a table beside the log: timers, effects, secrets, dead letters; in a backup accounts |
//! | `{"specversion":"1.0",…}` | an event, in the structured mode of `CloudEvents`, in order |
//! | `{"receipt":{…}}` | a command's id and fingerprint, and what it came to |
//! | `{"end":{…}}` | the last line: counts, and the SHA-256 of all bytes before it |
//!
//! The hash finds what was dropped, changed, moved or cut off by accident. It is no signature: who can write the file can
//! write the hash.

mod lines;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use database::KeptTable;
use event_schemas::{LogIdentity, Position, Timestamp};
use event_store::{RawEvent, RawReceipt};
use serde::{Deserialize, Serialize};

pub use reader::FileReader;
pub use writer::FileWriter;

const FORMAT: &str = "omisys-log";
/// Counts changes that older programs cannot read.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    format: String,
    version: u32,
    #[serde(flatten)]
    pub log: LogIdentity,
    /// The last position.
    pub head: Position,
    pub taken_at: Timestamp,
    /// None in a log that has not been served yet.
    pub currency: Option<String>,
    /// The tables beside the log whose rows are in the file.
    pub tables: Vec<String>,
}

impl Header {
    pub fn new(
        log: LogIdentity,
        head: Position,
        taken_at: Timestamp,
        currency: Option<String>,
        tables: &[KeptTable],
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            log,
            head,
            taken_at,
            currency,
            tables: tables.iter().map(|table| table.name.to_owned()).collect(),
        }
    }
}

/// How many lines there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub events: u64,
    pub receipts: u64,
    pub rows: BTreeMap<String, u64>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    #[serde(flatten)]
    pub counts: Counts,
    pub sha256: String,
}

/// A line.
#[derive(Debug, PartialEq)]
pub enum Line {
    Header(Header),
    Sagas {
        partition: String,
        position: Position,
    },
    Row {
        table: String,
        values: serde_json::Map<String, serde_json::Value>,
    },
    Event(RawEvent),
    Receipt(RawReceipt),
    End(End),
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("line {line}: {reason}")]
    Line { line: u64, reason: String },
    /// It is not what was written.
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

/// Creates a file that its owner alone may read: it holds secrets.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the file's name durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
