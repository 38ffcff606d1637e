use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use database::{KeptRow, KeptTable, Value};
use event_schemas::Position;
use event_store::{RawEvent, RawReceipt};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::lines::{Other, event_line, hex, receipt_line};
use super::{Counts, End, FileError, Header, create_private, sync_directory_of};

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
        let line = event_line(event, &self.source).map_err(io::Error::from)?;
        self.line.clear();
        serde_json::to_writer(&mut self.line, &line).map_err(io::Error::from)?;
        self.put()
    }

    pub fn receipt(&mut self, receipt: &RawReceipt) -> Result<(), FileError> {
        self.counts.receipts += 1;
        self.other(&Other::Receipt(receipt_line(receipt)))
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
