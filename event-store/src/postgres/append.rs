//! One transaction's share of entries: what becomes of each, and the rows of those that are stored.

use std::collections::{HashMap, HashSet};

use event_schemas::{CommandId, Position, StreamId, Version};

use crate::journal::{Settle, StoredReceipt};
use crate::queue::{JournalEntry, Outcome, PreparedAppend, Work};
use crate::row::sql_int;

/// Stores everything in one statement, which is its own transaction. So the head's lock, which all processes queue for,
/// is never held while the server waits for a client: one that stalls or dies between two statements would stop them all.
///
/// Stores nothing, and gives no row, if the log does not hold the event that `$18` to `$21` name; 0 names none.
pub(super) const STORE: &str = "WITH head AS (
        UPDATE log_head SET position = position + $1 WHERE one = 1 AND ($18 = 0 OR EXISTS (
            SELECT FROM events
            WHERE position = $18 AND aggregate_id = $19 AND sequence = $20 AND recorded_at = $21
        ))
        RETURNING position - $1 AS before
    ), stored AS (
        INSERT INTO events (position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
            metadata, recorded_at)
        SELECT head.before + e.number, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
            e.payload, e.metadata, $2
        FROM head, UNNEST($3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[])
            WITH ORDINALITY AS e (aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                metadata, number)
    ), remembered AS (
        INSERT INTO commands (aggregate_type, aggregate_id, command_id, fingerprint_key, fingerprint,
            first_sequence, last_sequence, position, recorded_at)
        SELECT c.aggregate_type, c.aggregate_id, c.command_id, c.fingerprint_key, c.fingerprint,
            c.first_sequence, c.last_sequence, head.before + c.reach, $2
        FROM head, UNNEST($10::text[], $11::text[], $12::bytea[], $13::text[], $14::bytea[], $15::bigint[],
            $16::bigint[], $17::bigint[])
            AS c (aggregate_type, aggregate_id, command_id, fingerprint_key, fingerprint, first_sequence,
                last_sequence, reach)
    )
    SELECT before FROM head";

/// The versions of streams, with the stream's number, from 0. (`LATERAL`, so that it is one look into the key each.)
pub(super) const VERSIONS: &str = "SELECT s.number - 1, last.sequence
    FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS s (aggregate_type, aggregate_id, number)
    CROSS JOIN LATERAL (
        SELECT e.sequence FROM events AS e
        WHERE e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id
        ORDER BY e.sequence DESC LIMIT 1
    ) AS last";

/// What the database says. An entry whose receipt was not asked for has none here.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// A stream that is not there has no events.
    pub(super) versions: HashMap<&'a StreamId, Version>,
    /// By the entry's number.
    pub(super) receipts: HashMap<usize, Option<StoredReceipt>>,
}

/// What becomes of an entry, if those that are to be stored are.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Answered(Outcome),
    /// To be stored. `reach` counts the events to be stored up to and with its own.
    Store {
        version: Version,
        reach: u64,
    },
    /// Its command is that of an entry to be stored, whose number this is.
    RepeatOf(usize),
}

impl Verdict {
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Answered(Outcome::Behind { .. }))
    }
}

/// Judges `entries` in order, or says whose receipts have to be known first.
///
/// Marks no chain as broken: nothing is final before the statement has succeeded.
pub(super) fn judge(entries: &[JournalEntry], known: &Known<'_>) -> Result<Vec<Verdict>, Vec<usize>> {
    let mut judge = Judge {
        known,
        versions: known.versions.clone(),
        commands: HashMap::new(),
        reach: 0,
        missing: Vec::new(),
    };
    let mut broken = HashSet::new();
    // Chains with an entry whose receipt has to be known, and with it what follows.
    let mut in_doubt = HashSet::new();
    let mut verdicts = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let chain = entry.chain.key();
        if in_doubt.contains(&chain) {
            let asks = command(entry).is_some() && !known.receipts.contains_key(&number);
            judge.missing.extend(asks.then_some(number));
            continue;
        }
        let verdict = if entry.chain.is_broken() || broken.contains(&chain) {
            Verdict::Answered(Outcome::ChainBroken)
        } else {
            let missing = judge.missing.len();
            let verdict = match &entry.work {
                Work::Append(append) => judge.append(number, append),
                Work::Settle(settle) => judge.settle(number, settle),
            };
            if judge.missing.len() > missing {
                in_doubt.insert(chain);
            }
            verdict
        };
        let breaks = match &verdict {
            Verdict::Answered(outcome) => entry.breaks_chain(outcome),
            Verdict::Store { .. } => false,
            Verdict::RepeatOf(_) => entry.breaks_chain_as_repeat(),
        };
        if breaks {
            broken.insert(chain);
        }
        verdicts.push(verdict);
    }
    if judge.missing.is_empty() {
        Ok(verdicts)
    } else {
        Err(judge.missing)
    }
}

struct Judge<'a, 'k> {
    known: &'k Known<'a>,
    /// As the entries so far leave them.
    versions: HashMap<&'a StreamId, Version>,
    /// The commands of entries to be stored.
    commands: HashMap<(&'a StreamId, CommandId), usize>,
    reach: u64,
    missing: Vec<usize>,
}

impl<'a> Judge<'a, '_> {
    fn append(&mut self, number: usize, append: &'a PreparedAppend) -> Verdict {
        let command = (&append.stream, append.metadata.command_id);
        if let Some(first) = self.commands.get(&command) {
            return Verdict::RepeatOf(*first);
        }
        let actual = self.version(&append.stream);
        let fits = actual == append.expected;
        match self.known.receipts.get(&number) {
            Some(Some(stored)) => return Verdict::Answered(Outcome::Duplicate(stored.clone())),
            Some(None) => {}
            // If there is one after all, the key says so.
            None if fits && !append.events.is_empty() => {}
            // What changes nothing most often has been done before: to let the key say so would cost the whole batch a
            // try.
            None => self.missing.push(number),
        }
        if !fits {
            return Verdict::Answered(Outcome::Behind { actual });
        }
        self.reach += append.events.len() as u64;
        self.versions.insert(&append.stream, append.version());
        self.commands.insert(command, number);
        Verdict::Store {
            version: append.version(),
            reach: self.reach,
        }
    }

    fn settle(&mut self, number: usize, settle: &'a Settle) -> Verdict {
        if let Some(command_id) = settle.command_id {
            if let Some(first) = self.commands.get(&(&settle.stream, command_id)) {
                return Verdict::RepeatOf(*first);
            }
            match self.known.receipts.get(&number) {
                Some(Some(stored)) => return Verdict::Answered(Outcome::Duplicate(stored.clone())),
                Some(None) => {}
                None => self.missing.push(number),
            }
        }
        let actual = self.version(&settle.stream);
        if settle.version.is_some_and(|version| version != actual) {
            return Verdict::Answered(Outcome::Behind { actual });
        }
        Verdict::Answered(Outcome::Settled)
    }

    fn version(&self, stream: &StreamId) -> Version {
        self.versions.get(stream).copied().unwrap_or(Version(0))
    }
}

/// The command whose receipt the entry may need.
pub(super) fn command(entry: &JournalEntry) -> Option<(&StreamId, &CommandId)> {
    match &entry.work {
        Work::Append(append) => Some((&append.stream, &append.metadata.command_id)),
        Work::Settle(settle) => settle.command_id.as_ref().map(|id| (&settle.stream, id)),
    }
}

/// The entry's stream.
pub(super) fn stream(entry: &JournalEntry) -> &StreamId {
    match &entry.work {
        Work::Append(append) => &append.stream,
        Work::Settle(settle) => &settle.stream,
    }
}

/// The outcomes of `verdicts`, once the events are stored behind position `before`.
pub(super) fn outcomes(entries: &[JournalEntry], verdicts: Vec<Verdict>, before: Position) -> Vec<Outcome> {
    let stored: HashMap<usize, (Version, Position)> = verdicts
        .iter()
        .enumerate()
        .filter_map(|(number, verdict)| match verdict {
            Verdict::Store { version, reach } => Some((number, (*version, Position(before.0 + reach)))),
            Verdict::Answered(_) | Verdict::RepeatOf(_) => None,
        })
        .collect();
    let outcome = |(number, verdict)| match verdict {
        Verdict::Answered(outcome) => outcome,
        Verdict::Store { .. } => {
            let (version, position) = stored[&number];
            Outcome::Appended { version, position }
        }
        Verdict::RepeatOf(first) => {
            let (version, position) = stored[&first];
            let fingerprint = match &entries[first].work {
                Work::Append(append) => append.fingerprint.clone(),
                Work::Settle(_) => None,
            };
            Outcome::Duplicate(StoredReceipt {
                version,
                position,
                fingerprint,
            })
        }
    };
    verdicts.into_iter().enumerate().map(outcome).collect()
}

/// The rows to be stored, column by column, as [`STORE`] takes them.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) events: Events<'a>,
    pub(super) receipts: Receipts<'a>,
}

#[derive(Default)]
pub(super) struct Events<'a> {
    pub(super) aggregate_types: Vec<&'a str>,
    pub(super) aggregate_ids: Vec<&'a str>,
    pub(super) sequences: Vec<i64>,
    pub(super) event_types: Vec<&'a str>,
    pub(super) event_versions: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
    pub(super) metadata: Vec<&'a str>,
}

#[derive(Default)]
pub(super) struct Receipts<'a> {
    pub(super) aggregate_types: Vec<&'a str>,
    pub(super) aggregate_ids: Vec<&'a str>,
    pub(super) command_ids: Vec<&'a [u8]>,
    pub(super) fingerprint_keys: Vec<Option<&'a str>>,
    pub(super) fingerprints: Vec<Option<&'a [u8]>>,
    pub(super) first_sequences: Vec<i64>,
    pub(super) last_sequences: Vec<i64>,
    pub(super) reaches: Vec<i64>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(entries: &'a [JournalEntry], verdicts: &[Verdict]) -> Self {
        let mut rows = Self::default();
        for (entry, verdict) in entries.iter().zip(verdicts) {
            if let (Work::Append(append), Verdict::Store { reach, .. }) = (&entry.work, verdict) {
                rows.events.push(append);
                rows.receipts.push(append, *reach);
            }
        }
        rows
    }
}

impl<'a> Events<'a> {
    fn push(&mut self, append: &'a PreparedAppend) {
        for (prepared, sequence) in append.events.iter().zip(sql_int(append.expected.0) + 1..) {
            self.aggregate_types.push(append.stream.aggregate_type.as_str());
            self.aggregate_ids.push(append.stream.aggregate_id.as_str());
            self.sequences.push(sequence);
            self.event_types.push(prepared.event.name());
            self.event_versions.push(prepared.event.schema_version());
            self.payloads.push(&prepared.payload);
            self.metadata.push(&append.metadata_json);
        }
    }
}

impl<'a> Receipts<'a> {
    fn push(&mut self, append: &'a PreparedAppend, reach: u64) {
        let fingerprint = append.fingerprint.as_ref();
        self.aggregate_types.push(append.stream.aggregate_type.as_str());
        self.aggregate_ids.push(append.stream.aggregate_id.as_str());
        self.command_ids
            .push(append.metadata.command_id.as_uuid().as_bytes());
        self.fingerprint_keys
            .push(fingerprint.map(|fingerprint| &*fingerprint.key_id));
        self.fingerprints
            .push(fingerprint.map(|fingerprint| fingerprint.mac.as_slice()));
        self.first_sequences.push(sql_int(append.expected.0) + 1);
        self.last_sequences.push(sql_int(append.version().0));
        self.reaches.push(sql_int(reach));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{append, append_as, command_id, stream};
    use crate::{Append, Chain, LogOptions};

    fn appends(chain: &Chain, append: Append) -> JournalEntry {
        let prepared = PreparedAppend::new(append, LogOptions::MAX_EVENT_BYTES).unwrap();
        JournalEntry::new(chain.clone(), Work::Append(prepared), Box::new(drop))
    }

    fn asks(chain: &Chain, command_id: Option<CommandId>, version: u64) -> JournalEntry {
        let settle = Settle {
            stream: stream("mug"),
            command_id,
            version: Some(Version(version)),
        };
        JournalEntry::new(chain.clone(), Work::Settle(settle), Box::new(drop))
    }

    fn at(mug: &StreamId, version: u64) -> Known<'_> {
        Known {
            versions: HashMap::from([(mug, Version(version))]),
            receipts: HashMap::new(),
        }
    }

    #[test]
    fn what_fits_and_stores_events_is_stored_without_a_look_for_receipts() {
        let (mug, chain) = (stream("mug"), Chain::new());
        let entries = [
            appends(&chain, append("mug", 2, 2)),
            appends(&Chain::new(), append("cup", 0, 1)),
            appends(&chain, append("mug", 4, 0)),
            asks(&chain, None, 4),
        ];
        let mut known = at(&mug, 2);
        // But for what stores no event: it most often is a repeat.
        assert_eq!(judge(&entries, &known), Err(vec![2]));
        known.receipts.insert(2, None);
        let verdicts = judge(&entries, &known).unwrap();
        let outcomes = outcomes(&entries, verdicts, Position(10));
        let appended = |version, position| Outcome::Appended {
            version: Version(version),
            position: Position(position),
        };
        let expected = [
            appended(4, 12),
            appended(1, 13),
            appended(4, 13),
            Outcome::Settled,
        ];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn receipts_are_asked_for_where_the_answer_hangs_on_them() {
        let (mug, stale, other) = (stream("mug"), Chain::new(), Chain::new());
        let entries = [
            appends(&stale, append("mug", 1, 0)),
            // Whether its chain is whole is not known yet, so neither is whether its receipt matters.
            appends(&stale, append("mug", 2, 1)),
            asks(&stale, None, 3),
            appends(&other, append("cup", 0, 1)),
            asks(&other, Some(command_id()), 2),
        ];
        let mut known = at(&mug, 2);
        assert_eq!(judge(&entries, &known), Err(vec![0, 1, 4]));
        known.receipts.extend([(0, None), (1, None), (4, None)]);
        let verdicts = judge(&entries, &known).unwrap();
        assert_eq!(
            verdicts[0],
            Verdict::Answered(Outcome::Behind { actual: Version(2) })
        );
        assert_eq!(
            verdicts[1..3],
            [0, 1].map(|_| Verdict::Answered(Outcome::ChainBroken))
        );
        assert!(matches!(verdicts[3], Verdict::Store { reach: 1, .. }));
        assert_eq!(verdicts[4], Verdict::Answered(Outcome::Settled));
        // A repeat that had nothing to say leaves its chain whole.
        let stored = StoredReceipt {
            version: Version(1),
            position: Position(1),
            fingerprint: None,
        };
        known.receipts.insert(0, Some(stored.clone()));
        let verdicts = judge(&entries, &known).unwrap();
        assert_eq!(verdicts[0], Verdict::Answered(Outcome::Duplicate(stored)));
        assert!(matches!(
            verdicts[1],
            Verdict::Store {
                version: Version(3),
                ..
            }
        ));
        assert_eq!(verdicts[2], Verdict::Answered(Outcome::Settled));
        // Nothing is final before it is stored.
        assert!(!stale.is_broken() && !other.is_broken());
    }

    #[test]
    fn a_repeat_within_a_batch_gets_the_first_ones_receipt() {
        let (mug, chain, id) = (stream("mug"), Chain::new(), command_id());
        let entries = [
            appends(&chain, append_as(id, "mug", 2, 2)),
            asks(&chain, Some(id), 9),
            appends(&chain, append_as(id, "mug", 4, 1)),
            appends(&chain, append("mug", 5, 1)),
        ];
        let verdicts = judge(&entries, &at(&mug, 2)).unwrap();
        let outcomes = outcomes(&entries, verdicts, Position(0));
        let stored = Outcome::Duplicate(StoredReceipt {
            version: Version(4),
            position: Position(2),
            fingerprint: None,
        });
        assert_eq!(outcomes[1..3], [stored.clone(), stored]);
        assert_eq!(outcomes[3], Outcome::ChainBroken);
    }
}
