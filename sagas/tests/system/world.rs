//! The whole system in memory: clients, the saga runner, the worker with its provider, and a machine that may die between
//! any two steps. Nothing but the wiring is a model: aggregates, policies and the audit are the real ones.

use std::time::Duration;

use aggregates::inventory::InventoryCommand;
use aggregates::order::Order;
use aggregates::payment::{Payment, PaymentCommand};
use event_schemas::{AggregateId, CommandId, Event, RecordedEvent, StreamId, Timestamp};
use sagas::policies::{
    self, Action, Command, Folded, IfRefused, PolicyCommand, PolicyConfig, Refusal, Refused, TimerKind,
};

use super::calls::Call;
use super::database::{Change, Database, TimerKey, Write, stream_of};
use super::provider::{Outcome, Provider};

/// What the provider, or the way to it, does to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The call never arrives.
    Down,
    /// The call is carried out and its answer lost.
    LostAnswer,
    /// The machine dies after the call and before its record.
    DiesBeforeRecord,
    /// The machine dies after the record and before the row is done.
    DiesBeforeDone,
}

/// A policy's command on its way.
#[derive(Debug, Clone)]
struct Flight {
    event: u64,
    scope: String,
    command: PolicyCommand,
    /// It takes its time in another process: nothing waits for it but the checkpoint.
    held_up: bool,
}

/// What the saga runner holds in memory: lost with the machine.
#[derive(Debug, Default)]
struct Runner {
    /// How many events were begun.
    cursor: usize,
    flights: Vec<Flight>,
    /// For the next checkpoint's write.
    changes: Vec<Change>,
}

/// What became of a command that was seen through.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// The aggregate is busy: the policy runs again.
    Later,
}

pub struct World {
    pub now: Timestamp,
    pub db: Database,
    pub provider: Provider,
    runner: Runner,
    commands: u64,
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
const CONFIG: PolicyConfig = PolicyConfig {
    auto_complete_after: Duration::from_secs(24 * 3_600),
};

impl World {
    pub fn new() -> Self {
        Self {
            now: "2011-12-01T08:00:00Z".parse().unwrap(),
            db: Database::default(),
            provider: Provider::default(),
            runner: Runner::default(),
            commands: 0,
        }
    }

    /// A command id that no one used before, as a client's fresh `Idempotency-Key` makes it.
    pub fn fresh_id(&mut self) -> CommandId {
        self.commands += 1;
        CommandId::for_request("client", "POST", "/v1", &self.commands.to_string())
    }

    pub fn execute(&mut self, id: CommandId, command: &Command) -> Result<(), Refused> {
        self.db.execute(id, command, self.now)
    }

    /// Everything in memory is gone, and of the writes under way `luck` decides how many had reached the disk.
    pub fn crash(&mut self, luck: usize) {
        self.db.crash(luck);
        self.runner = Runner {
            cursor: self.db.tables.checkpoint,
            ..Runner::default()
        };
    }

    /// The runner takes the next durable event, unless commands of its scope are under way; false if there is nothing it
    /// can take.
    pub fn begin(&mut self) -> bool {
        if self.runner.cursor >= self.db.visible {
            return false;
        }
        let recorded = self.db.tables.log[self.runner.cursor].clone();
        let scope = policies::scope(&recorded);
        if self
            .runner
            .flights
            .iter()
            .any(|flight| !flight.held_up && *flight.scope == *scope)
        {
            return false;
        }
        self.runner.cursor += 1;
        let event = recorded.position.0;
        for action in self.react(&recorded) {
            match action {
                Action::Command(command) => {
                    self.runner.flights.push(Flight {
                        event,
                        scope: scope.to_string(),
                        command,
                        held_up: false,
                    });
                }
                Action::Timer { kind, due_at } => {
                    self.runner.changes.push(Change::AddTimer { event, kind, due_at });
                }
                Action::ClearTimers { kind } => {
                    let stream = recorded.stream.clone();
                    self.runner.changes.push(Change::ClearTimers { stream, kind });
                }
                Action::Effect { kind } => {
                    self.runner.changes.push(Change::AddEffect {
                        event,
                        kind,
                        due_at: self.now,
                    });
                }
            }
        }
        true
    }

    fn react(&self, recorded: &RecordedEvent) -> Vec<Action> {
        if !policies::has_policy(&recorded.event) {
            return Vec::new();
        }
        let tables = &self.db.tables;
        let actions = match &recorded.event {
            Event::Order(_) if policies::needs_state(&recorded.event) => policies::react(
                recorded,
                Folded::Order(&tables.folded::<Order>(recorded)),
                &CONFIG,
            ),
            Event::Payment(_) if policies::needs_state(&recorded.event) => policies::react(
                recorded,
                Folded::Payment(&tables.folded::<Payment>(recorded)),
                &CONFIG,
            ),
            _ => policies::react(recorded, Folded::Nothing, &CONFIG),
        };
        actions.expect("the state that the policy needs")
    }

    /// One of the commands under way is executed: any whose target has none before it. False if there is none.
    pub fn fly(&mut self, choice: usize) -> bool {
        let flights = &self.runner.flights;
        let ready = |index: &usize| {
            let target = stream_of(&flights[*index].command.command);
            let before = &flights[..*index];
            !flights[*index].held_up
                && before
                    .iter()
                    .all(|earlier| earlier.held_up || stream_of(&earlier.command.command) != target)
        };
        let ready: Vec<usize> = (0..flights.len()).filter(ready).collect();
        pick(&ready, choice).is_some_and(|index| self.land(index))
    }

    /// One command that was held up is executed after all. False if none was.
    pub fn let_go(&mut self, choice: usize) -> bool {
        let flights = self.runner.flights.iter().enumerate();
        let held_up: Vec<usize> = flights
            .filter_map(|(index, flight)| flight.held_up.then_some(index))
            .collect();
        pick(&held_up, choice).is_some_and(|index| self.land(index))
    }

    fn land(&mut self, index: usize) -> bool {
        let mut flight = self.runner.flights.remove(index);
        match self.attempt(&flight.command) {
            Ok(End::Done) => {}
            Ok(End::Later) => {
                let kind = TimerKind::PolicyAgain;
                let due_at = self.now + RETRY_AFTER;
                self.runner.changes.push(Change::AddTimer {
                    event: flight.event,
                    kind,
                    due_at,
                });
            }
            Err(then) => {
                flight.command = then;
                flight.held_up = false;
                self.runner.flights.push(flight);
            }
        }
        true
    }

    /// One `Reserve` under way is held up: it may come after what follows from its order's cancellation (race 7).
    pub fn hold_up(&mut self, choice: usize) {
        let reserves = |flight: &Flight| {
            matches!(
                flight.command.command,
                Command::Inventory(_, InventoryCommand::Reserve { .. })
            )
        };
        let flights = self.runner.flights.iter().enumerate();
        let candidates: Vec<usize> = flights
            .filter_map(|(index, flight)| reserves(flight).then_some(index))
            .collect();
        if let Some(index) = pick(&candidates, choice) {
            self.runner.flights[index].held_up = true;
        }
    }

    /// All commands and changes so far are made durable with the position that they bring the sagas to.
    pub fn checkpoint(&mut self) -> bool {
        if !self.runner.flights.is_empty() || self.runner.cursor == self.db.tables.checkpoint {
            return false;
        }
        let changes = std::mem::take(&mut self.runner.changes);
        self.db.write(Write::Checkpoint {
            handled: self.runner.cursor,
            changes,
        });
        true
    }

    /// The policy of an event that was handled long ago runs once more: by a second runner, or after a restore.
    pub fn rerun(&mut self, choice: usize) {
        let handled = self.db.tables.checkpoint;
        if handled == 0 {
            return;
        }
        let recorded = self.db.tables.log[choice % handled].clone();
        for action in self.react(&recorded) {
            // Timers and effects of it are upserts, and their rows may be done: commands are what could repeat something.
            if let Action::Command(command) = action {
                self.see_through(command);
            }
        }
    }

    /// One attempt at a policy's command; the branch of a foreseen refusal is given back.
    fn attempt(&mut self, policy: &PolicyCommand) -> Result<End, PolicyCommand> {
        let Err(refused) = self.execute(policy.command_id, &policy.command) else {
            return Ok(End::Done);
        };
        let foreseen = |with: &[Refusal]| refused.foreseen().is_some_and(|refusal| with.contains(&refusal));
        match &policy.if_refused {
            IfRefused::Nothing { with } if foreseen(with) => Ok(End::Done),
            IfRefused::Then { with, then } if foreseen(with) => Err((**then).clone()),
            _ if refused.later() => Ok(End::Later),
            _ => panic!("a dead letter: {refused} to {policy:#?}"),
        }
    }

    fn see_through(&mut self, mut command: PolicyCommand) -> End {
        loop {
            match self.attempt(&command) {
                Ok(end) => return end,
                Err(then) => command = then,
            }
        }
    }

    /// Timers that are due.
    fn due_timers(&self) -> Vec<TimerKey> {
        let due =
            |(key, (_, due_at)): (&TimerKey, &(TimerKind, Timestamp))| (*due_at <= self.now).then_some(*key);
        self.db.tables.timers.iter().filter_map(due).collect()
    }

    pub fn fire_timer(&mut self, choice: usize) -> bool {
        let Some(key) = pick(&self.due_timers(), choice) else {
            return false;
        };
        let recorded = self.db.tables.event(key.0).clone();
        let actions = match self.db.tables.timers[&key].0 {
            TimerKind::PolicyAgain => self.react(&recorded),
            kind => policies::react_to_timer(&recorded, kind),
        };
        for action in actions {
            if let Action::Command(command) = action
                && self.see_through(command) == End::Later
            {
                self.db.write(Write::TimerAgain(key, self.now + RETRY_AFTER));
                return true;
            }
        }
        self.db.write(Write::TimerDone(key));
        true
    }

    /// The worker takes a due effect; `luck` is for the crash that the fault may bring.
    pub fn do_effect(&mut self, choice: usize, fault: Fault, luck: usize) -> bool {
        // A row is leased by a write of its own, so it is durable before anything is called.
        self.db.commit();
        let due = self
            .db
            .tables
            .effects
            .iter()
            .filter(|(_, row)| row.due_at <= self.now);
        let due: Vec<u64> = due.map(|(event, _)| *event).collect();
        let Some(event) = pick(&due, choice) else {
            return false;
        };
        let recorded = self.db.tables.event(event).clone();
        let call = Call::of(&recorded);
        assert_eq!(call.kind(), self.db.tables.effects[&event].kind, "{recorded:?}");
        let payment = &self.db.tables.payments[&recorded.stream.aggregate_id];
        let Some(attempt) = payment
            .attempt(call.attempt)
            .filter(|_| payment.is_open(call.intent))
        else {
            self.db.write(Write::EffectDone(event));
            return true;
        };
        let again = Write::EffectAgain(event, self.now + RETRY_AFTER);
        if fault == Fault::Down {
            self.db.write(again);
            return true;
        }
        let asked = self.db.tables.effects[&event].attempts > 0;
        let known = self
            .provider
            .lookup((call.payment, call.attempt), call.operation)
            .filter(|_| asked);
        let outcome = known.unwrap_or_else(|| {
            let (id, order) = ((call.payment, call.attempt), payment.order_id().unwrap());
            self.provider.call(
                id,
                order,
                call.amount(attempt),
                &attempt.method().method,
                call.operation,
            )
        });
        match fault {
            Fault::LostAnswer => {
                self.db.write(again);
                return true;
            }
            Fault::DiesBeforeRecord => {
                self.crash(luck);
                return true;
            }
            Fault::None | Fault::Down | Fault::DiesBeforeDone => {}
        }
        let command = Command::Payment(call.payment, call.fact(&recorded, outcome));
        let id = CommandId::for_policy(&recorded.id(), "effect", command.name(), &command.target(), 0);
        if let Err(refused) = self.execute(id, &command) {
            panic!("the provider's answer is refused: {refused} to {command:?}");
        }
        if fault == Fault::DiesBeforeDone {
            self.crash(luck);
        } else {
            self.db.write(Write::EffectDone(event));
        }
        true
    }

    /// The provider says something on its own. `again`: it may be what it said before, under another id.
    pub fn report(&mut self, choice: usize, again: bool) -> bool {
        let Some(id) = pick(&self.provider.talkative(again), choice) else {
            return false;
        };
        let Some(outcome) = self.provider.report(id) else {
            return false;
        };
        let order = self.provider.deals[&id].order;
        let stream = StreamId::new(event_schemas::AggregateType::Payment, id.0);
        if !self.db.tables.payments.contains_key(&stream.aggregate_id) {
            return false;
        }
        let (order_id, attempt) = (order, id.1);
        let command = match outcome {
            Outcome::Authorized(provider_ref, amount) => PaymentCommand::RecordAuthorized {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            Outcome::Captured(provider_ref, amount) => PaymentCommand::RecordCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            Outcome::Declined(code) => PaymentCommand::RecordDeclined { attempt, code },
            other => panic!("the provider does not report {other:?}"),
        };
        let command_id = self.fresh_id();
        if let Err(refused) = self.execute(command_id, &Command::Payment(id.0, command.clone())) {
            panic!("the provider's report is refused: {refused} to {command:?}");
        }
        // Acknowledged once the record is durable, and not before.
        self.db.commit();
        if !again {
            self.provider.acknowledge(id);
        }
        true
    }

    /// A while in which everything works, one move after the other.
    pub fn progress(&mut self, moves: usize) {
        for _ in 0..moves {
            self.db.commit();
            if !self.one_move() {
                return;
            }
        }
    }

    fn one_move(&mut self) -> bool {
        self.begin() || self.fly(0) || self.checkpoint() || self.do_effect(0, Fault::None, 0)
    }

    /// Lets everything come to rest: the provider answers, customers who would act have acted, every timer fires.
    pub fn settle(&mut self) {
        for _ in 0..20_000 {
            self.db.commit();
            let moved = self.one_move() || self.let_go(0) || self.report(0, false) || self.fire_timer(0);
            if !moved && !self.wait_for_next() {
                return;
            }
        }
        panic!("the system does not come to rest");
    }

    /// Moves the clock to the next timer or effect; false if there is none.
    fn wait_for_next(&mut self) -> bool {
        let tables = &self.db.tables;
        let timers = tables.timers.values().map(|(_, due_at)| *due_at);
        match timers.chain(tables.effects.values().map(|row| row.due_at)).min() {
            Some(next) => {
                self.now = self.now.max(next);
                true
            }
            None => false,
        }
    }

    pub fn order(&self, id: &AggregateId) -> &Order {
        &self.db.tables.orders[id]
    }
}

/// The element that `choice` falls on; none of nothing.
pub fn pick<T: Clone>(of: &[T], choice: usize) -> Option<T> {
    of.get(choice.checked_rem(of.len())?).cloned()
}
