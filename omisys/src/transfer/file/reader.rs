use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::lines::{hex, parse};
use super::{Counts, End, FORMAT, FileError, Header, Line, VERSION};

/// The longest line: well above the largest event, so that a file of something else is no danger to memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

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
