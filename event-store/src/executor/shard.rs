//! One of the tasks that decide.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aggregates::Decide;
use event_schemas::{AggregateId, CommandId, Metadata, StreamId, Version};
use lru::LruCache;
use tokio::sync::mpsc;

use super::ExecutorOptions;
use super::load::{self, Load, Loaded};
use super::op::{Kind, Op};
use super::resident::{Phase, Resident, Slot};
use crate::queue::{JournalEntry, Outcome, PreparedAppend, PreparedEvent, Work, metadata_json};
use crate::streams::Streams;
use crate::{AccessError, Chain, CommandRequest, ExecuteError, Journal, Log, Receipt, Settle, Unavailable};

/// Messages handled before their entries are handed to the journal.
const MESSAGES_PER_TURN: usize = 128;

/// Aggregates looked at to find an idle one to evict; if all are busy the cache grows, at most by what is in the house.
const EVICTION_SCAN: usize = 32;

pub(super) enum Message<A: Decide> {
    Op {
        id: AggregateId,
        op: Op<A>,
    },
    /// The journal did not do what was asked.
    Returned {
        id: AggregateId,
        op: Op<A>,
        outcome: Outcome,
    },
    Loaded {
        id: AggregateId,
        load: u64,
        loaded: Result<Box<Loaded<A>>, Unavailable>,
    },
}

pub(super) struct Shard<A: Decide> {
    journal: Journal,
    streams: Arc<Streams>,
    /// Weak, so that the shard ends with the last handle; messages that are under way hold it open.
    mailbox: mpsc::WeakUnboundedSender<Message<A>>,
    aggregates: LruCache<AggregateId, Slot<A>>,
    capacity: usize,
    max_waiting: usize,
    max_retries: u32,
    tickets: u64,
    loads: u64,
    /// Entries of this turn, in order.
    outbox: Vec<JournalEntry>,
    /// Command names as metadata holds them.
    names: Vec<(&'static str, Arc<str>)>,
}

impl<A: Decide> Shard<A> {
    pub(super) fn new(
        log: &Log,
        options: &ExecutorOptions,
        shards: usize,
        mailbox: &mpsc::UnboundedSender<Message<A>>,
    ) -> Self {
        Self {
            journal: log.journal(),
            streams: log.streams(),
            mailbox: mailbox.downgrade(),
            aggregates: LruCache::unbounded(),
            capacity: options.cached_aggregates.div_ceil(shards).max(1),
            max_waiting: options.commands_per_loading_aggregate,
            max_retries: options.max_retries,
            tickets: 0,
            loads: 0,
            outbox: Vec::new(),
            names: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Message<A>>) {
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        while receiver.recv_many(&mut messages, MESSAGES_PER_TURN).await > 0 {
            for message in messages.drain(..) {
                match message {
                    Message::Op { id, mut op } => {
                        self.tickets += 1;
                        op.ticket = self.tickets;
                        self.admit(&id, op);
                    }
                    Message::Returned { id, op, outcome } => self.returned(&id, op, outcome),
                    Message::Loaded { id, load, loaded } => self.loaded(&id, load, loaded),
                }
            }
            self.journal.submit(&mut self.outbox);
        }
    }

    /// Runs `op` if its aggregate is ready, or lets it wait.
    fn admit(&mut self, id: &AggregateId, op: Op<A>) {
        let Some(slot) = self.aggregates.get_mut(id) else {
            return self.admit_unknown(id, op);
        };
        if slot.resident.phase == Phase::Ready && slot.resident.chain.is_broken() {
            slot.resident.phase = Phase::Broken;
        }
        if slot.resident.phase == Phase::Ready {
            return self.run_op(id, op);
        }
        if !op.patient && op.attempts == 0 && slot.queue.len() >= self.max_waiting {
            return op.fail(AccessError::Overloaded);
        }
        slot.wait(op);
    }

    fn admit_unknown(&mut self, id: &AggregateId, op: Op<A>) {
        let new = match &op.kind {
            Kind::Execute(execute) => execute.request.expected_version == Some(Version(0)),
            Kind::Read(_) => false,
            // Needs no state, so it is no reason to load any.
            Kind::Find(find) => {
                let command_id = Some(find.command_id);
                return self.settle(id, Chain::new(), command_id, None, op, |op| Self::not_found(op));
            }
        };
        self.make_room();
        if new {
            // The caller says so; if it isn't so, the journal will tell, and then it is loaded.
            self.aggregates.put(id.clone(), Slot::new(Phase::Ready));
            return self.run_op(id, op);
        }
        let mut slot = Slot::new(Phase::Loading);
        slot.wait(op);
        self.aggregates.put(id.clone(), slot);
        self.load(id);
    }

    fn make_room(&mut self) {
        if self.aggregates.len() < self.capacity {
            return;
        }
        let oldest = self.aggregates.iter().rev().take(EVICTION_SCAN);
        let idle = oldest
            .filter(|(_, slot)| slot.is_idle())
            .map(|(id, _)| id.clone())
            .next();
        if let Some(id) = idle {
            self.aggregates.pop(&id);
        }
    }

    /// Reads what is newer than what is certain.
    fn load(&mut self, id: &AggregateId) {
        let Some(slot) = self.aggregates.get_mut(id) else {
            return;
        };
        self.loads += 1;
        slot.resident.phase = Phase::Loading;
        slot.resident.load = self.loads;
        let load = Load {
            id: id.clone(),
            number: self.loads,
            base: slot.resident.take_base(),
            command_ids: slot.suspected_repeats(),
        };
        if let Some(mailbox) = self.mailbox.upgrade() {
            load::spawn(Arc::clone(&self.streams), load, mailbox);
        }
    }

    fn loaded(&mut self, id: &AggregateId, load: u64, loaded: Result<Box<Loaded<A>>, Unavailable>) {
        let Some(slot) = self.aggregates.get_mut(id) else {
            return;
        };
        if slot.resident.phase != Phase::Loading || slot.resident.load != load {
            return;
        }
        let waiting = std::mem::take(&mut slot.queue);
        match loaded {
            Ok(loaded) => {
                let Loaded {
                    state,
                    version,
                    receipts,
                } = *loaded;
                slot.resident.begin(state, version);
                for op in waiting {
                    match op.command_id().and_then(|id| receipts.get(&id)) {
                        Some(stored) => op.replay(StreamId::new(A::AGGREGATE_TYPE, id.clone()), stored),
                        None => self.admit(id, op),
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, aggregate = %A::AGGREGATE_TYPE, %id, "an aggregate cannot be loaded");
                self.aggregates.pop(id);
                for op in waiting {
                    op.fail(AccessError::Unavailable(error.clone()));
                }
            }
        }
    }

    /// The journal refused: answer, or decide again once the truth has been read.
    fn returned(&mut self, id: &AggregateId, mut op: Op<A>, outcome: Outcome) {
        let repeat = matches!(outcome, Outcome::Duplicate(_));
        let again = match outcome {
            Outcome::Duplicate(stored) => {
                op.replay(StreamId::new(A::AGGREGATE_TYPE, id.clone()), &stored);
                None
            }
            Outcome::Behind { .. } => {
                op.attempts += 1;
                if op.attempts > self.max_retries {
                    op.fail(AccessError::Conflict);
                    None
                } else {
                    Some(op)
                }
            }
            // Not its own fault, so it does not count: the first of each chain always gets an answer of its own.
            Outcome::ChainBroken => Some(op),
            Outcome::Unavailable(error) => {
                op.fail(AccessError::Unavailable(error));
                None
            }
            Outcome::Appended { .. } | Outcome::Settled => {
                op.fail(AccessError::Unavailable(Unavailable::Defect(
                    "a success was returned",
                )));
                None
            }
        };
        let Some(slot) = self.aggregates.get_mut(id) else {
            if let Some(op) = again {
                self.admit(id, op);
            }
            return;
        };
        if slot.resident.phase == Phase::Ready && slot.resident.chain.is_broken() {
            slot.resident.phase = Phase::Broken;
        }
        slot.saw_repeat |= repeat && slot.resident.phase == Phase::Broken;
        if let Some(op) = again {
            if slot.resident.phase == Phase::Ready {
                return self.run_op(id, op);
            }
            slot.wait(op);
        }
        // Not before all of the old chain is back, or the reload might miss what is being committed.
        if slot.resident.phase == Phase::Broken && slot.resident.chain.in_flight() == 0 {
            self.load(id);
        }
    }

    /// Decides on a resident that is ready.
    fn run_op(&mut self, id: &AggregateId, mut op: Op<A>) {
        let Some(slot) = self.aggregates.get_mut(id) else {
            return;
        };
        let resident = &mut slot.resident;
        let (chain, version) = (resident.chain.clone(), resident.version);
        match &mut op.kind {
            Kind::Execute(execute) => {
                let command_id = execute.request.command_id;
                if resident.has_recent(command_id) {
                    // On an intact chain it is found; on a broken one it comes back and is decided again.
                    return self.settle(id, chain, Some(command_id), Some(version), op, |op| {
                        op.fail(AccessError::Conflict);
                    });
                }
                let expected = execute.request.expected_version;
                if expected.is_some_and(|expected| expected != version) {
                    return self.refuse(id, chain, op, ExecuteError::VersionMismatch { actual: version });
                }
                match decide(&resident.state, &execute.request.command) {
                    Ok(Ok(events)) => self.append(id, op, events),
                    Ok(Err(error)) => self.refuse(id, chain, op, ExecuteError::Refused(error)),
                    Err(defect) => op.fail(AccessError::Unavailable(defect)),
                }
            }
            Kind::Read(read) => {
                read.see(&resident.state, version);
                self.settle(id, chain, None, Some(version), op, |op| {
                    if let Kind::Read(read) = op.kind {
                        read.answer();
                    }
                });
            }
            Kind::Find(find) => {
                let command_id = Some(find.command_id);
                self.settle(id, chain, command_id, None, op, |op| Self::not_found(op));
            }
        }
    }

    fn not_found(op: Op<A>) {
        if let Kind::Find(find) = op.kind {
            let _ = find.reply.send(Ok(None));
        }
    }

    /// Applies `events` and hands them in; the state runs ahead of the log from here on.
    fn append(&mut self, id: &AggregateId, op: Op<A>, events: Vec<A::Event>) {
        let Kind::Execute(execute) = &op.kind else { return };
        let metadata = self.metadata(&execute.request);
        let Some(slot) = self.aggregates.get_mut(id) else {
            return;
        };
        let resident = &mut slot.resident;
        let stream = StreamId {
            aggregate_type: A::AGGREGATE_TYPE,
            aggregate_id: id.clone(),
        };
        let max_bytes = self.journal.max_event_bytes();
        let applied = apply(resident, stream, events, metadata, &execute.request, max_bytes);
        let (work, command_id) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                // The state may be half changed. What is under way stays right: it was decided on what was before.
                let waiting = std::mem::take(&mut slot.queue);
                self.aggregates.pop(id);
                op.fail(AccessError::Unavailable(error));
                for op in waiting {
                    self.admit(id, op);
                }
                return;
            }
        };
        resident.remember(command_id);
        resident.keep_base();
        let chain = resident.chain.clone();
        self.hand_in(id, chain, work, op, |op, outcome| match (op.kind, outcome) {
            (Kind::Execute(execute), Done::Appended(receipt)) => execute.answer(Ok(receipt)),
            (kind, _) => drop(kind),
        });
    }

    /// Refuses with `error`, unless the command has a receipt or was decided on a stale version.
    fn refuse(&mut self, id: &AggregateId, chain: Chain, op: Op<A>, error: ExecuteError<A::Error>) {
        let Kind::Execute(execute) = &op.kind else { return };
        let command_id = Some(execute.request.command_id);
        let version = self.aggregates.peek(id).map(|slot| slot.resident.version);
        self.settle(id, chain, command_id, version, op, move |op| {
            if let Kind::Execute(execute) = op.kind {
                execute.answer(Err(error));
            }
        });
    }

    fn settle(
        &mut self,
        id: &AggregateId,
        chain: Chain,
        command_id: Option<CommandId>,
        version: Option<Version>,
        op: Op<A>,
        settled: impl FnOnce(Op<A>) + Send + 'static,
    ) {
        let stream = StreamId {
            aggregate_type: A::AGGREGATE_TYPE,
            aggregate_id: id.clone(),
        };
        let work = Work::Settle(Settle {
            stream,
            command_id,
            version,
        });
        self.hand_in(id, chain, work, op, |op, done| match done {
            Done::Settled => settled(op),
            Done::Appended(_) => drop(op),
        });
    }

    /// Hands `work` to the journal at the end of this turn. A success is answered by `done` at once, without coming
    /// back here; anything else comes back.
    fn hand_in(
        &mut self,
        id: &AggregateId,
        chain: Chain,
        work: Work,
        op: Op<A>,
        done: impl FnOnce(Op<A>, Done) + Send + 'static,
    ) {
        let mailbox = self.mailbox.clone();
        let id = id.clone();
        let answer = Box::new(move |outcome| match outcome {
            Outcome::Appended { version, position } => {
                let stream = StreamId {
                    aggregate_type: A::AGGREGATE_TYPE,
                    aggregate_id: id,
                };
                done(
                    op,
                    Done::Appended(Receipt {
                        stream,
                        version,
                        position,
                        replayed: false,
                    }),
                );
            }
            Outcome::Settled => done(op, Done::Settled),
            outcome => {
                // Without a mailbox the executor is gone, and the caller hears that it is closed.
                if let Some(mailbox) = mailbox.upgrade() {
                    let _ = mailbox.send(Message::Returned { id, op, outcome });
                }
            }
        });
        self.outbox.push(JournalEntry::new(chain, work, answer));
    }

    fn metadata(&mut self, request: &CommandRequest<A::Command>) -> Metadata {
        let name = A::command_name(&request.command);
        let known = self
            .names
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| Arc::clone(text));
        let command = known.unwrap_or_else(|| {
            let text: Arc<str> = name.into();
            self.names.push((name, Arc::clone(&text)));
            text
        });
        Metadata {
            actor_kind: request.actor.kind,
            actor_id: Arc::clone(&request.actor.id),
            command,
            command_id: request.command_id,
            correlation_id: request.correlation_id,
            causation_id: request.causation.as_ref().map(|event| event.to_string().into()),
            traceparent: request.traceparent.clone(),
        }
    }
}

/// What the journal did.
enum Done {
    Appended(Receipt),
    Settled,
}

/// A panic in a pure function is a defect of this one command; the shard's other aggregates go on.
fn decide<A: Decide>(
    state: &A,
    command: &A::Command,
) -> Result<Result<Vec<A::Event>, A::Error>, Unavailable> {
    catch_unwind(AssertUnwindSafe(|| state.decide(command)))
        .map_err(|_| Unavailable::Defect("decide panicked"))
}

/// Evolves the resident in place and writes the append.
fn apply<A: Decide>(
    resident: &mut Resident<A>,
    stream: StreamId,
    events: Vec<A::Event>,
    metadata: Metadata,
    request: &CommandRequest<A::Command>,
    max_event_bytes: usize,
) -> Result<(Work, CommandId), Unavailable> {
    let expected = resident.version;
    let metadata_json = metadata_json(&metadata)?;
    let mut prepared = Vec::with_capacity(events.len());
    for event in events {
        catch_unwind(AssertUnwindSafe(|| resident.state.evolve(&event)))
            .map_err(|_| Unavailable::Defect("evolve panicked"))?;
        prepared.push(PreparedEvent::new(event.into(), &metadata_json, max_event_bytes)?);
    }
    resident.version = Version(expected.0 + prepared.len() as u64);
    let command_id = metadata.command_id;
    let fingerprint = request.fingerprints.current().cloned();
    let append = PreparedAppend {
        stream,
        expected,
        events: prepared,
        metadata,
        metadata_json,
        fingerprint,
    };
    Ok((Work::Append(append), command_id))
}
