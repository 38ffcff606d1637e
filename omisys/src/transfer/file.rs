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

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use database::{KeptRow, KeptTable, Value};
use event_schemas::{AggregateId, CommandId, LogIdentity, Position, Timestamp, Version};
use event_store::{Fingerprint, RawEvent, RawReceipt};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

const FORMAT: &str = "omisys-log";
/// Counts changes that older programs cannot read.
const VERSION: u32 = 1;
/// The longest line: well above the largest event, so that a file of something else is no danger to memory.
const MAX_LINE_BYTES: u64 = 16 << 20;
const JSON: &str = "application/json";
/// Of a payload that is no JSON: it travels all the same.
const TEXT: &str = "text/plain";

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

/// A line that is no event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Other<'a> {
    Header(Header),
    Sagas {
        partition: String,
        position: Position,
    },
    Row {
        table: String,
        values: serde_json::Map<String, serde_json::Value>,
    },
    #[serde(borrow)]
    Receipt(ReceiptLine<'a>),
    End(End),
}

#[derive(Serialize, Deserialize)]
struct ReceiptLine<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    command_id: CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint_key: Option<String>,
    /// Hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    first: Version,
    last: Version,
    position: Position,
    recorded_at: Timestamp,
}

/// `data` is the payload as the log has it. The names below it are extension attributes, whose values are text.
#[derive(Serialize, Deserialize)]
struct EventLine<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    time: Timestamp,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, RawValue>,
    #[serde(borrow)]
    eventversion: Cow<'a, str>,
    #[serde(borrow)]
    position: Cow<'a, str>,
    /// JSON as the log has it.
    #[serde(borrow)]
    metadata: Cow<'a, str>,
    #[serde(flatten)]
    of_metadata: OfMetadata<'a>,
}

/// What others may want without taking `metadata` apart.
#[derive(Default, Serialize, Deserialize)]
struct OfMetadata<'a> {
    #[serde(
        borrow,
        default,
        alias = "correlation_id",
        skip_serializing_if = "Option::is_none"
    )]
    correlationid: Option<Cow<'a, str>>,
    #[serde(
        borrow,
        default,
        alias = "causation_id",
        skip_serializing_if = "Option::is_none"
    )]
    causationid: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
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

/// Writes a file. What is not finished is removed again: half a file must not look like one.
pub struct FileWriter {
    out: Option<Out>,
    hash: Sha256,
    counts: Counts,
    bytes: u64,
    line: Vec<u8>,
    source: String,
    target: Option<Target>,
}

enum Out {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write + Send>>>),
}

struct Target {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl FileWriter {
    /// Begins a file, readable by its owner alone, or standard output for `-`. A name that ends in `.gz` is compressed.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let mut target = None;
        let sink: Box<dyn Write + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdout())
        } else {
            if path.exists() {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
            }
            let mut part = path.as_os_str().to_owned();
            part.push(".part");
            let part = PathBuf::from(part);
            let file = create_private(&part)?;
            let sink = Box::new(file.try_clone()?);
            target = Some(Target {
                path: path.to_owned(),
                part,
                file,
            });
            sink
        };
        let buffered = BufWriter::with_capacity(1 << 18, sink);
        let zipped = path.extension().is_some_and(|extension| extension == "gz");
        let out = if zipped {
            Out::Gzip(GzEncoder::new(buffered, Compression::fast()))
        } else {
            Out::Plain(buffered)
        };
        Ok(Self {
            out: Some(out),
            hash: Sha256::new(),
            counts: Counts::default(),
            bytes: 0,
            line: Vec::new(),
            source: String::new(),
            target,
        })
    }

    pub fn header(&mut self, header: Header) -> Result<(), FileError> {
        self.source = format!("/omisys/logs/{}", header.log.log_id);
        self.other(&Other::Header(header))
    }

    pub fn sagas(&mut self, partition: String, position: Position) -> Result<(), FileError> {
        self.other(&Other::Sagas { partition, position })
    }

    pub fn row(&mut self, table: &KeptTable, row: KeptRow) -> Result<(), FileError> {
        *self.counts.rows.entry(table.name.to_owned()).or_default() += 1;
        let values = table.columns.iter().zip(row).map(|(column, value)| {
            let value = match value {
                Value::Null => serde_json::Value::Null,
                Value::Integer(integer) => integer.into(),
                Value::Text(text) => text.into_owned().into(),
                Value::Blob(_) => {
                    return Err(FileError::Damaged(format!("{}.{column} is a blob", table.name)));
                }
            };
            Ok(((*column).to_owned(), value))
        });
        let values = values.collect::<Result<_, _>>()?;
        self.other(&Other::Row {
            table: table.name.to_owned(),
            values,
        })
    }

    pub fn event(&mut self, event: &RawEvent) -> Result<(), FileError> {
        self.counts.events += 1;
        let payload = event.payload.as_str();
        let json = serde_json::from_str::<&RawValue>(payload).ok();
        // As it is, or not as JSON at all: every byte of it has to come back.
        let json = json.filter(|json| json.get() == payload && !payload.contains('\n'));
        let (datacontenttype, data) = match json {
            Some(json) => (JSON, Cow::Borrowed(json)),
            None => (
                TEXT,
                Cow::Owned(serde_json::value::to_raw_value(payload).map_err(io::Error::from)?),
            ),
        };
        let line = EventLine {
            specversion: "1.0".into(),
            id: format!(
                "{}/{}/{}",
                event.aggregate_type, event.aggregate_id, event.version
            )
            .into(),
            source: self.source.as_str().into(),
            event_type: event.event_type.as_str().into(),
            time: event.recorded_at,
            datacontenttype: datacontenttype.into(),
            data,
            eventversion: event.event_version.as_str().into(),
            position: event.position.to_string().into(),
            metadata: event.metadata.as_str().into(),
            of_metadata: serde_json::from_str(&event.metadata).unwrap_or_default(),
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &line).map_err(io::Error::from)?;
        self.put()
    }

    pub fn receipt(&mut self, receipt: &RawReceipt) -> Result<(), FileError> {
        self.counts.receipts += 1;
        let fingerprint = receipt.fingerprint.as_ref();
        self.other(&Other::Receipt(ReceiptLine {
            stream: format!("{}/{}", receipt.aggregate_type, receipt.aggregate_id).into(),
            command_id: receipt.command_id,
            fingerprint_key: fingerprint.map(|fingerprint| fingerprint.key_id.to_string()),
            fingerprint: fingerprint.map(|fingerprint| hex(&fingerprint.mac)),
            first: receipt.first,
            last: receipt.last,
            position: receipt.position,
            recorded_at: receipt.recorded_at,
        }))
    }

    /// Writes the last line and makes the file durable under its name. Says how long it is before compression.
    pub fn finish(mut self) -> Result<(End, u64), FileError> {
        let end = End {
            counts: self.counts.clone(),
            sha256: hex(&self.hash.clone().finalize()),
        };
        self.other(&Other::End(end.clone()))?;
        let mut buffered = match self.out.take() {
            Some(Out::Plain(buffered)) => buffered,
            Some(Out::Gzip(zipped)) => zipped.finish()?,
            None => return Err(io::Error::other("finished before").into()),
        };
        buffered.flush()?;
        if let Some(Target { path, part, file }) = self.target.take() {
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            sync_directory_of(&path)?;
        }
        Ok((end, self.bytes))
    }

    fn other(&mut self, line: &Other<'_>) -> Result<(), FileError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).map_err(io::Error::from)?;
        self.put()
    }

    fn put(&mut self) -> Result<(), FileError> {
        self.line.push(b'\n');
        self.hash.update(&self.line);
        self.bytes += self.line.len() as u64;
        match &mut self.out {
            Some(Out::Plain(out)) => out.write_all(&self.line)?,
            Some(Out::Gzip(out)) => out.write_all(&self.line)?,
            None => return Err(io::Error::other("finished before").into()),
        }
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            // It is overwritten the next time, should it stay.
            let _ = std::fs::remove_file(target.part);
        }
    }
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

/// Reads a file line by line, and checks at its end that it is all there.
pub struct FileReader {
    input: Box<dyn BufRead + Send>,
    hash: Sha256,
    counts: Counts,
    line: Vec<u8>,
    number: u64,
}

impl FileReader {
    /// Opens a file, compressed or not, or standard input for `-`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut raw: Box<dyn BufRead + Send> = if path.as_os_str() == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::with_capacity(1 << 18, File::open(path)?))
        };
        let zipped = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn BufRead + Send> = if zipped {
            Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(raw)))
        } else {
            raw
        };
        Ok(Self {
            input,
            hash: Sha256::new(),
            counts: Counts::default(),
            line: Vec::new(),
            number: 0,
        })
    }

    /// The first line.
    pub fn header(&mut self) -> Result<Header, FileError> {
        match self.next()? {
            Line::Header(header) if header.format != FORMAT => Err(self.wrong("this is no log of OMISYS")),
            Line::Header(header) if header.version > VERSION => {
                Err(self.wrong("a newer version of this program wrote the file: upgrade"))
            }
            Line::Header(header) => Ok(header),
            _ => Err(self.wrong("the header is missing")),
        }
    }

    /// The next line. The last one is given only if the file is what was written.
    pub fn next(&mut self) -> Result<Line, FileError> {
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
        limited.read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') {
            return Err(FileError::Damaged(format!(
                "it is cut off in line {}",
                self.number
            )));
        }
        let line = parse(&self.line).map_err(|reason| self.wrong(reason))?;
        match &line {
            Line::End(end) => {
                self.check(end)?;
                return Ok(line);
            }
            Line::Event(_) => self.counts.events += 1,
            Line::Receipt(_) => self.counts.receipts += 1,
            Line::Row { table, .. } => *self.counts.rows.entry(table.clone()).or_default() += 1,
            Line::Header(_) | Line::Sagas { .. } => {}
        }
        self.hash.update(&self.line);
        Ok(line)
    }

    fn check(&mut self, end: &End) -> Result<(), FileError> {
        if end.counts != self.counts {
            return Err(FileError::Damaged(format!(
                "it says to hold {:?}, and holds {:?}",
                end.counts, self.counts
            )));
        }
        if end.sha256 != hex(&self.hash.clone().finalize()) {
            return Err(FileError::Damaged(
                "its lines do not have the hash that it names".to_owned(),
            ));
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(FileError::Damaged("something follows its end".to_owned()));
        }
        Ok(())
    }

    /// What is wrong with the line that was read last.
    pub fn wrong(&self, reason: impl Into<String>) -> FileError {
        FileError::Line {
            line: self.number,
            reason: reason.into(),
        }
    }
}

fn parse(line: &[u8]) -> Result<Line, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if text.starts_with("{\"specversion\"") {
        return event(serde_json::from_str(text).map_err(|error| error.to_string())?);
    }
    Ok(
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            Other::Header(header) => Line::Header(header),
            Other::Sagas { partition, position } => Line::Sagas { partition, position },
            Other::Row { table, values } => Line::Row { table, values },
            Other::Receipt(receipt) => Line::Receipt(receipt_of(receipt)?),
            Other::End(end) => Line::End(end),
        },
    )
}

fn event(line: EventLine<'_>) -> Result<Line, String> {
    let names = || {
        let (aggregate_type, rest) = line.id.split_once('/')?;
        let (aggregate_id, version) = rest.rsplit_once('/')?;
        Some((aggregate_type, aggregate_id, Version(version.parse().ok()?)))
    };
    let (aggregate_type, aggregate_id, version) = names().ok_or("id is not <type>/<id>/<sequence>")?;
    let payload = if line.datacontenttype == JSON {
        line.data.get().to_owned()
    } else {
        serde_json::from_str(line.data.get()).map_err(|error| error.to_string())?
    };
    Ok(Line::Event(RawEvent {
        position: Position(line.position.parse().map_err(|_| "position is no number")?),
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: AggregateId::from(aggregate_id),
        version,
        event_type: line.event_type.into_owned(),
        event_version: line.eventversion.into_owned(),
        payload,
        metadata: line.metadata.into_owned(),
        recorded_at: line.time,
    }))
}

fn receipt_of(line: ReceiptLine<'_>) -> Result<RawReceipt, String> {
    let (aggregate_type, aggregate_id) = line.stream.split_once('/').ok_or("stream is not <type>/<id>")?;
    let mac = line
        .fingerprint
        .as_deref()
        .map(|text| unhex(text).ok_or("fingerprint is no MAC"));
    Ok(RawReceipt {
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: AggregateId::from(aggregate_id),
        command_id: line.command_id,
        fingerprint: line
            .fingerprint_key
            .zip(mac.transpose()?)
            .map(|(key_id, mac)| Fingerprint {
                key_id: key_id.into(),
                mac,
            }),
        first: line.first,
        last: line.last,
        position: line.position,
        recorded_at: line.recorded_at,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
