//! One transaction's share of entries, as SQL.

use event_schemas::{CommandId, Position, StreamId, Timestamp, Version};
use sqlite_file::SqliteError;
use sqlite_file::rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use crate::Unavailable;
use crate::command::Fingerprint;
use crate::journal::{Settle, StoredReceipt};
use crate::queue::{JournalEntry, Outcome, PreparedAppend, Work};

const FIND_STREAM: &str =
    "SELECT stream, (SELECT max(sequence) FROM stream_rows AS s WHERE s.stream = n.stream)
    FROM stream_names AS n WHERE aggregate_type = ?1 AND aggregate_id = ?2";

const NAME_STREAM: &str = "INSERT INTO stream_names (aggregate_type, aggregate_id) VALUES (?1, ?2)";

pub(super) const RECEIPT: &str = "SELECT last_sequence, position, fingerprint_key, fingerprint
    FROM stream_names AS n CROSS JOIN stream_rows AS s USING (stream)
    WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence = 0 AND command_id = ?3";

const INSERT_RECEIPT: &str =
    "INSERT INTO stream_rows (stream, sequence, command_id, fingerprint_key, fingerprint,
        first_sequence, last_sequence, position, recorded_at)
    VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

const INSERT_SEQUENCE: &str =
    "INSERT INTO stream_rows (stream, sequence, command_id, position) VALUES (?1, ?2, x'', ?3)";

const INSERT_EVENT: &str = "INSERT INTO events (position, aggregate_type, aggregate_id, sequence, event_type,
        event_version, payload, metadata, recorded_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const DELETE_EVENTS: &str = "DELETE FROM events WHERE position > ?1";

const DELETE_FROM_STREAM: &str = "DELETE FROM stream_rows WHERE stream = ?1
    AND (sequence > ?2 OR sequence = 0 AND command_id = ?3)";

/// Runs `entries` in order and pushes one outcome each. The outcomes hold if the transaction commits.
///
/// An entry that fails leaves nothing behind. An `Err` is the transaction's: it is rolled back already, or was when
/// SQLite gave up on it.
pub(super) fn run(
    conn: &Connection,
    entries: &[JournalEntry],
    now: Timestamp,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), SqliteError> {
    run_all(conn, entries, now, outcomes).inspect_err(|_| {
        // Other jobs share the transaction; rolling it back tells the file's writer that all of it has failed.
        if !conn.is_autocommit() {
            let _ = conn.execute_batch("ROLLBACK");
        }
    })
}

fn run_all(
    conn: &Connection,
    entries: &[JournalEntry],
    now: Timestamp,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), SqliteError> {
    // Read inside the transaction: another process may have moved it.
    let before: u64 = conn
        .prepare_cached("SELECT position FROM log_head")?
        .query_row([], |row| row.get(0))?;
    let mut log = Writer {
        conn,
        head: before,
        recorded_at: now.as_microsecond(),
        find_stream: conn.prepare_cached(FIND_STREAM)?,
        name_stream: conn.prepare_cached(NAME_STREAM)?,
        receipt: conn.prepare_cached(RECEIPT)?,
        insert_receipt: conn.prepare_cached(INSERT_RECEIPT)?,
        insert_sequence: conn.prepare_cached(INSERT_SEQUENCE)?,
        insert_event: conn.prepare_cached(INSERT_EVENT)?,
    };
    for entry in entries {
        let outcome = if entry.chain.is_broken() {
            Outcome::ChainBroken
        } else {
            match &entry.work {
                Work::Append(append) => log.append(append)?,
                Work::Settle(settle) => log.settle(settle)?,
            }
        };
        // Now, not after the commit: what is chained on it may be next.
        if entry.breaks_chain(&outcome) {
            entry.chain.break_off();
        }
        outcomes.push(outcome);
    }
    let after = log.head;
    drop(log);
    if after != before {
        conn.prepare_cached("UPDATE log_head SET position = ?1")?
            .execute([after])?;
    }
    Ok(())
}

/// What a stream is called in `stream_rows`.
type StreamNumber = i64;

struct Writer<'conn> {
    conn: &'conn Connection,
    /// The last position taken, by this transaction or before it.
    head: u64,
    recorded_at: i64,
    find_stream: CachedStatement<'conn>,
    name_stream: CachedStatement<'conn>,
    receipt: CachedStatement<'conn>,
    insert_receipt: CachedStatement<'conn>,
    insert_sequence: CachedStatement<'conn>,
    insert_event: CachedStatement<'conn>,
}

impl Writer<'_> {
    fn append(&mut self, append: &PreparedAppend) -> Result<Outcome, SqliteError> {
        let (stream, actual) = self.find(&append.stream)?;
        if actual != append.expected {
            let known = self.receipt(&append.stream, append.metadata.command_id)?;
            return Ok(known.map_or(Outcome::Behind { actual }, Outcome::Duplicate));
        }
        let stream = match stream {
            Some(stream) => stream,
            // If the append is refused, the name stays: it says of nothing that it is there.
            None => self.name(&append.stream)?,
        };
        let before = self.head;
        match self.insert(stream, append) {
            Ok(true) => Ok(Outcome::Appended {
                version: append.version(),
                position: Position(self.head),
            }),
            Ok(false) => self
                .receipt(&append.stream, append.metadata.command_id)?
                .map(Outcome::Duplicate)
                .ok_or_else(|| SqliteError::Sql {
                    code: 0,
                    message: "a receipt vanished".to_owned(),
                }),
            // A full disk or an I/O error: there is no transaction any more to take anything out of.
            Err(error) if self.conn.is_autocommit() => Err(error),
            // This append's own fault, such as a payload beyond SQLite's limits: the others must not suffer for it.
            Err(error) => {
                self.head = before;
                self.undo(stream, append)?;
                tracing::error!(%error, stream = %append.stream, "an append was refused by SQLite");
                Ok(Outcome::Unavailable(error.into()))
            }
        }
    }

    /// Inserts the receipt and the events; `false`, and nothing inserted, if there is a receipt.
    fn insert(&mut self, stream: StreamNumber, append: &PreparedAppend) -> Result<bool, SqliteError> {
        let fingerprint = append.fingerprint.as_ref();
        let inserted = self.insert_receipt.execute(params![
            stream,
            append.metadata.command_id.as_uuid().as_bytes(),
            fingerprint.map(|fingerprint| &*fingerprint.key_id),
            fingerprint.map(|fingerprint| &fingerprint.mac),
            append.expected.0 + 1,
            append.version().0,
            self.head + append.events.len() as u64,
            self.recorded_at,
        ])?;
        if inserted == 0 {
            return Ok(false);
        }
        let mut sequence = append.expected.0;
        for prepared in &append.events {
            sequence += 1;
            self.head += 1;
            self.insert_sequence
                .execute(params![stream, sequence, self.head])?;
            self.insert_event.execute(params![
                self.head,
                append.stream.aggregate_type.as_str(),
                append.stream.aggregate_id.as_str(),
                sequence,
                prepared.event.name(),
                prepared.event.schema_version(),
                prepared.payload,
                append.metadata_json,
                self.recorded_at,
            ])?;
        }
        Ok(true)
    }

    /// Takes out what a failed [`Writer::insert`] left beyond `head`.
    fn undo(&mut self, stream: StreamNumber, append: &PreparedAppend) -> Result<(), SqliteError> {
        self.conn.execute(DELETE_EVENTS, [self.head])?;
        self.conn.execute(
            DELETE_FROM_STREAM,
            params![
                stream,
                append.expected.0,
                append.metadata.command_id.as_uuid().as_bytes(),
            ],
        )?;
        Ok(())
    }

    fn settle(&mut self, settle: &Settle) -> Result<Outcome, SqliteError> {
        if let Some(command_id) = settle.command_id
            && let Some(stored) = self.receipt(&settle.stream, command_id)?
        {
            return Ok(Outcome::Duplicate(stored));
        }
        if let Some(version) = settle.version {
            let (_, actual) = self.find(&settle.stream)?;
            if actual != version {
                return Ok(Outcome::Behind { actual });
            }
        }
        Ok(Outcome::Settled)
    }

    /// The stream's number, if it has one, and its version.
    fn find(&mut self, stream: &StreamId) -> Result<(Option<StreamNumber>, Version), SqliteError> {
        let key = (stream.aggregate_type.as_str(), stream.aggregate_id.as_str());
        let found = self.find_stream.query_row(key, |row| {
            Ok((row.get(0)?, Version(row.get::<_, Option<u64>>(1)?.unwrap_or(0))))
        });
        Ok(found
            .optional()?
            .map_or((None, Version(0)), |(stream, version)| (Some(stream), version)))
    }

    fn name(&mut self, stream: &StreamId) -> Result<StreamNumber, SqliteError> {
        let name = (stream.aggregate_type.as_str(), stream.aggregate_id.as_str());
        Ok(self.name_stream.insert(name)?)
    }

    fn receipt(
        &mut self,
        stream: &StreamId,
        command_id: CommandId,
    ) -> Result<Option<StoredReceipt>, SqliteError> {
        find_receipt(&mut self.receipt, stream, command_id)
    }
}

/// Runs [`RECEIPT`].
pub(super) fn find_receipt(
    statement: &mut CachedStatement<'_>,
    stream: &StreamId,
    command_id: CommandId,
) -> Result<Option<StoredReceipt>, SqliteError> {
    let key = (
        stream.aggregate_type.as_str(),
        stream.aggregate_id.as_str(),
        command_id.as_uuid().as_bytes(),
    );
    let stored = statement
        .query_row(key, |row| {
            let key_id: Option<String> = row.get(2)?;
            let mac: Option<[u8; 32]> = row.get(3)?;
            Ok(StoredReceipt {
                version: Version(row.get(0)?),
                position: Position(row.get(1)?),
                fingerprint: key_id.zip(mac).map(|(key_id, mac)| Fingerprint {
                    key_id: key_id.into(),
                    mac,
                }),
            })
        })
        .optional()?;
    Ok(stored)
}

/// The answer to everything in a transaction that failed.
pub(super) fn failed(error: &SqliteError) -> Outcome {
    Outcome::Unavailable(Unavailable::from(error.clone()))
}
