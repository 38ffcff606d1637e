//! The log's database as one queue of writes. A commit makes all of them durable; a crash keeps a prefix of the rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use aggregates::Decide;
use aggregates::audit::Audit;
use aggregates::cart::Cart;
use aggregates::inventory::StockItem;
use aggregates::order::Order;
use aggregates::payment::Payment;
use event_schemas::{
    AggregateId, AggregateType, CommandId, CorrelationId, Event, Metadata, Position, RecordedEvent, StreamId,
    Timestamp, Upcasters, Version, decode,
};
use sagas::policies::{Command, EffectKind, Refused, TimerKind};

/// A row of a timer or an effect is keyed by the position of the event that asked for it.
pub type TimerKey = (u64, &'static str);

#[derive(Debug, Clone)]
pub enum Change {
    AddTimer {
        event: u64,
        kind: TimerKind,
        due_at: Timestamp,
    },
    ClearTimers {
        stream: StreamId,
        kind: TimerKind,
    },
    AddEffect {
        event: u64,
        kind: EffectKind,
        due_at: Timestamp,
    },
}

#[derive(Debug, Clone)]
pub enum Write {
    Append {
        stream: StreamId,
        command_id: CommandId,
        command: &'static str,
        events: Vec<Event>,
        at: Timestamp,
    },
    Checkpoint {
        handled: usize,
        changes: Vec<Change>,
    },
    TimerDone(TimerKey),
    TimerAgain(TimerKey, Timestamp),
    EffectDone(u64),
    EffectAgain(u64, Timestamp),
}

#[derive(Debug, Clone)]
pub struct EffectRow {
    pub kind: EffectKind,
    pub due_at: Timestamp,
    pub attempts: u32,
}

/// What the writes so far add up to.
#[derive(Debug, Default)]
pub struct Tables {
    pub log: Vec<RecordedEvent>,
    streams: HashMap<StreamId, Vec<usize>>,
    receipts: HashSet<(StreamId, CommandId)>,
    /// How many events the sagas have handled.
    pub checkpoint: usize,
    pub timers: BTreeMap<TimerKey, (TimerKind, Timestamp)>,
    pub effects: BTreeMap<u64, EffectRow>,
    pub carts: BTreeMap<AggregateId, Cart>,
    pub orders: BTreeMap<AggregateId, Order>,
    pub payments: BTreeMap<AggregateId, Payment>,
    pub items: BTreeMap<AggregateId, StockItem>,
    pub audit: Audit,
}

#[derive(Default)]
pub struct Database {
    pub tables: Tables,
    writes: Vec<Write>,
    durable: usize,
    /// How many events are durable: only those are seen by the sagas.
    pub visible: usize,
}

impl Database {
    pub fn write(&mut self, write: Write) {
        self.tables.apply(&write);
        self.writes.push(write);
    }

    pub fn commit(&mut self) {
        self.durable = self.writes.len();
        self.visible = self.tables.log.len();
    }

    /// The machine dies: what was committed stays, and `luck` says how much of the rest.
    pub fn crash(&mut self, luck: usize) {
        let undecided = self.writes.len() - self.durable;
        self.writes.truncate(self.durable + luck % (undecided + 1));
        let mut tables = Tables::default();
        for write in &self.writes {
            tables.apply(write);
        }
        self.tables = tables;
        self.commit();
    }

    /// Executes a command as an executor does: a known id is answered with its first receipt, a refusal only by what is
    /// durable.
    pub fn execute(
        &mut self,
        command_id: CommandId,
        command: &Command,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let stream = stream_of(command);
        if self.tables.receipts.contains(&(stream.clone(), command_id)) {
            return Ok(());
        }
        match self.tables.decide(command) {
            Ok(events) => {
                let command = command.name();
                self.write(Write::Append {
                    stream,
                    command_id,
                    command,
                    events,
                    at: now,
                });
                Ok(())
            }
            Err(refused) => {
                self.commit();
                Err(refused)
            }
        }
    }
}

pub fn stream_of(command: &Command) -> StreamId {
    let kind = match command {
        Command::Inventory(..) => AggregateType::Inventory,
        Command::Cart(..) => AggregateType::Cart,
        Command::Order(..) => AggregateType::Order,
        Command::Payment(..) => AggregateType::Payment,
    };
    StreamId::new(kind, command.target())
}

fn decided<A: Decide>(of: Option<&A>, command: &A::Command) -> Result<Vec<Event>, A::Error> {
    let none = A::default();
    let events = of.unwrap_or(&none).decide(command)?;
    Ok(events.into_iter().map(Into::into).collect())
}

type Invariants<A> = &'static [(&'static str, fn(&A) -> bool)];

fn evolve<A: Decide<Event: Debug>>(
    all: &mut BTreeMap<AggregateId, A>,
    id: &AggregateId,
    event: &A::Event,
    invariants: Invariants<A>,
) {
    let aggregate = all.entry(id.clone()).or_default();
    aggregate.evolve(event);
    for (name, holds) in invariants {
        assert!(holds(aggregate), "{name}: broken by {event:?} in {aggregate:#?}");
    }
}

impl Tables {
    fn decide(&self, command: &Command) -> Result<Vec<Event>, Refused> {
        let id = command.target();
        match command {
            Command::Inventory(_, command) => {
                decided(self.items.get(&id), command).map_err(Refused::Inventory)
            }
            Command::Cart(_, command) => decided(self.carts.get(&id), command).map_err(Refused::Cart),
            Command::Order(_, command) => decided(self.orders.get(&id), command).map_err(Refused::Order),
            Command::Payment(_, command) => {
                decided(self.payments.get(&id), command).map_err(Refused::Payment)
            }
        }
    }

    pub fn event(&self, position: u64) -> &RecordedEvent {
        &self.log[position as usize - 1]
    }

    /// The aggregate of `recorded`, folded up to and with it.
    pub fn folded<A: Decide>(&self, recorded: &RecordedEvent) -> A {
        let mut aggregate = A::default();
        for index in self.streams[&recorded.stream]
            .iter()
            .take(recorded.version.0 as usize)
        {
            aggregate.evolve(&A::Event::try_from(self.log[*index].event.clone()).unwrap());
        }
        aggregate
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Append {
                stream,
                command_id,
                command,
                events,
                at,
            } => {
                self.receipts.insert((stream.clone(), *command_id));
                for event in events {
                    self.append(stream, *command_id, command, event, *at);
                }
            }
            Write::Checkpoint { handled, changes } => {
                self.checkpoint = *handled;
                for change in changes {
                    self.change(change);
                }
            }
            Write::TimerDone(key) => {
                self.timers.remove(key);
            }
            Write::TimerAgain(key, at) => {
                if let Some((_, due_at)) = self.timers.get_mut(key) {
                    *due_at = *at;
                }
            }
            Write::EffectDone(event) => {
                self.effects.remove(event);
            }
            Write::EffectAgain(event, at) => {
                if let Some(row) = self.effects.get_mut(event) {
                    row.due_at = *at;
                    row.attempts += 1;
                }
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::AddTimer { event, kind, due_at } => {
                self.timers
                    .entry((*event, kind.as_str()))
                    .or_insert((*kind, *due_at));
            }
            Change::ClearTimers { stream, kind } => {
                let log = &self.log;
                self.timers
                    .retain(|(event, _), (of, _)| of != kind || log[*event as usize - 1].stream != *stream);
            }
            Change::AddEffect { event, kind, due_at } => {
                let row = EffectRow {
                    kind: *kind,
                    due_at: *due_at,
                    attempts: 0,
                };
                self.effects.entry(*event).or_insert(row);
            }
        }
    }

    fn append(
        &mut self,
        stream: &StreamId,
        command_id: CommandId,
        command: &str,
        event: &Event,
        at: Timestamp,
    ) {
        // As it would come back from the log.
        let text = event.to_json().unwrap();
        let (kind, name, version) = (event.aggregate_type(), event.name(), event.schema_version());
        let event = decode(kind, name, version, &text, &Upcasters::shipped()).unwrap();
        let versions = self.streams.entry(stream.clone()).or_default();
        versions.push(self.log.len());
        let recorded = RecordedEvent {
            position: Position(self.log.len() as u64 + 1),
            stream: stream.clone(),
            version: Version(versions.len() as u64),
            event,
            metadata: Metadata {
                actor_kind: event_schemas::ActorKind::System,
                actor_id: "test".into(),
                command: command.into(),
                command_id,
                correlation_id: CorrelationId::for_command(command_id),
                causation_id: None,
                traceparent: None,
            },
            recorded_at: at,
        };
        let id = &stream.aggregate_id;
        match &recorded.event {
            Event::Product(_) => {}
            Event::Inventory(event) => {
                evolve(
                    &mut self.items,
                    id,
                    event,
                    aggregates::inventory::invariants::INVARIANTS,
                );
            }
            Event::Cart(event) => evolve(
                &mut self.carts,
                id,
                event,
                aggregates::cart::invariants::INVARIANTS,
            ),
            Event::Order(event) => evolve(
                &mut self.orders,
                id,
                event,
                aggregates::order::invariants::INVARIANTS,
            ),
            Event::Payment(event) => {
                evolve(
                    &mut self.payments,
                    id,
                    event,
                    aggregates::payment::invariants::INVARIANTS,
                );
            }
        }
        self.audit.observe(&recorded);
        self.log.push(recorded);
    }
}
