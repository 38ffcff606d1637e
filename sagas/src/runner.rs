//! Takes events in order, asks the policies, hands in their commands, and remembers how far it came.
//!
//! The commands of a batch are under way together: the executors keep the order per target, ids absorb repeats, and an
//! event waits for the one of the same scope before it. Timers and effects of the batch and the checkpoint become
//! durable in one write, after all its commands.

mod healing;
mod storing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use event_bus::{Batch, BusError, DeadLetters, NewDeadLetter, Subscription};
use event_schemas::{Clock, EventId, Position, RecordedEvent};
use event_store::{Log, LogEntry, ReadError, UnreadableEvent, UnreadableReason, traced};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::commands::Pending;
use crate::config::SagasConfig;
use crate::dispatch::{Cause, Dispatcher, Failure, Stopped};
use crate::fault::{self, Faults};
use crate::folds::Folds;
use crate::policies::{self, Action, PolicyCommand, TimerKind};
use crate::trouble::{Trouble, ends_the_stream, lasting};
use crate::work::{Change, Handoff, Table, Work};

pub(crate) use storing::{Storing, furthest};

/// How long a batch waits for events before the runner looks up.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// Between two looks at the lag.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at dead letters that another process may have parked or healed.
const LETTERS_EVERY: Duration = Duration::from_secs(5);

/// Why the runner ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] DatabaseError),
    /// What follows from an event concerns an aggregate with an event of a newer binary.
    #[error("{0}")]
    Upgrade(String),
}

pub(crate) struct Runner {
    pub(crate) subscription: Subscription,
    pub(crate) log: Log,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) folds: Folds,
    pub(crate) letters: DeadLetters,
    /// Those of timers and effects.
    pub(crate) work_letters: DeadLetters,
    pub(crate) work: Work,
    /// Effects that are leased to our own worker from the start go to it directly.
    pub(crate) handoff: Handoff,
    pub(crate) handled: watch::Sender<Position>,
    pub(crate) config: SagasConfig,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) cancel: CancellationToken,
    pub(crate) in_flight: InFlight,
    /// Timers and effects of the batch.
    pub(crate) changes: Vec<Change>,
    /// The last batch's write, while the next batch is under way.
    pub(crate) storing: Option<Storing>,
    pub(crate) trouble: Trouble,
    pub(crate) looks: Looks,
}

/// When to look again.
pub(crate) struct Looks {
    lag_at: Instant,
    letters_at: Instant,
    /// When requests to heal were looked for.
    requests: Instant,
}

impl Looks {
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        Self {
            lag_at: now,
            letters_at: now,
            requests: now,
        }
    }
}

/// Commands under way, in order, and the scopes they belong to.
#[derive(Default)]
pub(crate) struct InFlight {
    commands: VecDeque<Flight>,
    busy: HashMap<Arc<str>, usize>,
}

struct Flight {
    /// From the event to the outcome, if its trace is recorded.
    span: Option<Span>,
    recorded: Arc<RecordedEvent>,
    scope: Arc<str>,
    command: PolicyCommand,
    pending: Pending,
}

enum Step {
    Stop,
    Stored(Result<(), DatabaseError>),
    Batch(Result<Batch, BusError>),
}

impl InFlight {
    fn push(&mut self, flight: Flight) {
        *self.busy.entry(Arc::clone(&flight.scope)).or_default() += 1;
        self.commands.push_back(flight);
    }

    fn pop(&mut self) -> Option<Flight> {
        let flight = self.commands.pop_front()?;
        if let Some(count) = self.busy.get_mut(&flight.scope) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&flight.scope);
            }
        }
        Some(flight)
    }
}

impl Runner {
    /// Runs until it is cancelled or cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), Stop> {
        let mut failed_reads = 0;
        loop {
            let step = self.next_step().await;
            if !matches!(step, Step::Stop) {
                self.look().await;
                self.heal_asked().await?;
            }
            match step {
                Step::Stop => return self.finish_store().await,
                Step::Stored(Ok(())) => self.is_stored().await?,
                Step::Stored(Err(error)) => self.store_again(error).await?,
                Step::Batch(Ok(batch)) => {
                    if std::mem::take(&mut failed_reads) > 0 {
                        self.trouble.over();
                    }
                    if !batch.is_empty() {
                        self.handle(batch).await?;
                    }
                }
                // Nothing was delivered, so the next read begins where this one did.
                Step::Batch(Err(error)) if !ends_the_stream(&error) => {
                    failed_reads += 1;
                    tracing::warn!(%error, "the log cannot be read; trying again");
                    self.pause(&error, failed_reads).await;
                }
                Step::Batch(Err(error)) => {
                    // What came before it has been handled and need not come again.
                    self.finish_store().await?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Tells from time to time, whatever comes or does not come, how far it is behind and what is parked.
    async fn look(&mut self) {
        let now = Instant::now();
        if self.looks.lag_at <= now {
            self.looks.lag_at = now + MEASURE_EVERY;
            match self.subscription.lag(self.clock.now()).await {
                Ok(lag) => {
                    metrics::gauge!("omisys_saga_lag_positions").set(lag.positions as f64);
                    metrics::gauge!("omisys_saga_lag_seconds").set(lag.seconds);
                }
                Err(error) => tracing::debug!(%error, "the lag cannot be measured"),
            }
        }
        if !self.config.exclusive && self.looks.letters_at <= now {
            self.looks.letters_at = now + LETTERS_EVERY;
            for letters in [&self.letters, &self.work_letters] {
                if let Err(error) = letters.reload().await {
                    tracing::debug!(%error, "the dead letters cannot be looked at");
                }
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Step::Stop,
            stored = Self::stored(&mut self.storing) => Step::Stored(stored),
            batch = self.subscription.next_batch(self.config.batch_events, BATCH_WAIT) => Step::Batch(batch),
        }
    }

    async fn pause(&mut self, error: &impl std::fmt::Display, tries: u32) {
        let wait = self.config.command_backoff.after(tries);
        self.trouble.pause(error.to_string(), wait, &self.cancel).await;
    }

    async fn handle(&mut self, mut batch: Batch) -> Result<(), Stop> {
        if batch.reassigned() {
            self.reload_letters().await?;
        }
        for entry in std::mem::take(&mut batch.entries) {
            match entry {
                LogEntry::Event(recorded) => self.begin(&recorded).await?,
                LogEntry::Unreadable(poison) => self.park_unreadable(&poison).await?,
            }
        }
        while self.settle_one().await? {}
        self.faults
            .visit(fault::BEFORE_CHECKPOINT)
            .map_err(Stopped::Died)?;
        // The next checkpoint must not become durable before what the last one stands for.
        self.finish_store().await?;
        let changes: Arc<[Change]> = std::mem::take(&mut self.changes).into();
        self.store(changes, batch, 0).await
    }

    /// Partitions were given to this process: another one may have parked what is in them.
    async fn reload_letters(&mut self) -> Result<(), Stop> {
        let mut tries = 0;
        while let Err(error) = self.letters.reload().await {
            tries += 1;
            self.refused(&error, tries).await?;
        }
        self.is_over(tries);
        Ok(())
    }

    /// Whether the scope waits for someone; one that looks so is looked up, since another process may have healed it.
    async fn is_parked(&mut self, scope: &str) -> Result<bool, Stop> {
        if !self.letters.is_parked(scope) {
            return Ok(false);
        }
        let mut tries = 0;
        loop {
            match self.letters.first(scope).await {
                Ok(first) => {
                    self.is_over(tries);
                    return Ok(first.is_some());
                }
                Err(error) => {
                    tries += 1;
                    self.refused(&error, tries).await?;
                }
            }
        }
    }

    /// The store refuses what has to be before the stream goes on: waits for the next try.
    async fn refused(&mut self, error: &DatabaseError, tries: u32) -> Result<(), Stop> {
        if lasting(error) {
            return Err(error.clone().into());
        }
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled.into());
        }
        tracing::warn!(%error, "the dead letters cannot be used; trying again");
        self.pause(error, tries).await;
        Ok(())
    }

    fn is_over(&self, tries: u32) {
        if tries > 0 {
            self.trouble.over();
        }
    }

    /// Hands in what follows from one event.
    async fn begin(&mut self, recorded: &Arc<RecordedEvent>) -> Result<(), Stop> {
        self.folds.observe(recorded);
        if !policies::has_policy(&recorded.event) {
            return Ok(());
        }
        let scope = policies::scope(recorded);
        // In order per scope: if the one before it fails, this one has to wait behind it.
        while self.in_flight.busy.contains_key(&scope) {
            self.settle_one().await?;
        }
        if !self.letters.none_parked() && self.is_parked(&scope).await? {
            return self.park(recorded, scope, None).await;
        }
        let span = traced(recorded.metadata.traceparent.as_deref()).map(|traceparent| {
            let position = recorded.position.0;
            tracing::info_span!("policy", traceparent, position, event = recorded.event.name())
        });
        let actions = match self.react(recorded).await {
            Ok(actions) => actions,
            Err(Failure::Stopped(stopped)) => return Err(stopped.into()),
            Err(Failure::Upgrade(reason)) => return Err(Stop::Upgrade(reason)),
            Err(Failure::Later(reason) | Failure::Unforeseen(reason)) => {
                return self.park(recorded, scope, Some(reason)).await;
            }
        };
        let cause = Cause::from(&**recorded);
        for action in actions {
            let Some(command) = self.note(recorded, action) else {
                continue;
            };
            while self.in_flight.commands.len() >= self.config.commands_in_flight.max(1) {
                self.settle_one().await?;
            }
            let pending = self.dispatcher.enqueue(&cause, &command).await;
            let (recorded, scope) = (Arc::clone(recorded), Arc::clone(&scope));
            self.in_flight.push(Flight {
                span: span.clone(),
                recorded,
                scope,
                command,
                pending,
            });
        }
        Ok(())
    }

    async fn react(&mut self, recorded: &RecordedEvent) -> Result<Vec<Action>, Failure> {
        let mut tries = 0;
        let state = loop {
            match self.folds.prepare(recorded).await {
                Ok(()) => break self.folds.state(recorded),
                Err(ReadError::Unreadable(event)) if event.reason == UnreadableReason::Newer => {
                    return Err(Failure::Upgrade(event.to_string()));
                }
                Err(error @ ReadError::Unreadable(_)) => return Err(Failure::Unforeseen(error.to_string())),
                Err(error) => {
                    tries += 1;
                    tracing::warn!(%error, event = %recorded.id(), "the aggregate cannot be read; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(self.config.command_backoff.after(tries)) => {}
                        () = self.cancel.cancelled() => return Err(Stopped::Cancelled.into()),
                    }
                }
            }
        };
        policies::react(recorded, state, &self.config.policies)
            .map_err(|missing| Failure::Unforeseen(missing.to_string()))
    }

    /// Keeps timers and effects for the batch's write; gives commands back.
    fn note(&mut self, recorded: &Arc<RecordedEvent>, action: Action) -> Option<PolicyCommand> {
        let change = match action {
            Action::Command(command) => return Some(command),
            Action::Timer { kind, due_at } => Change::add(Table::Timers, recorded, kind.as_str(), due_at),
            Action::ClearTimers { kind } => Change::ClearTimers {
                stream: recorded.stream.clone(),
                kind: kind.as_str(),
            },
            Action::Effect { kind } => Change::add(Table::Effects, recorded, kind.as_str(), self.clock.now()),
        };
        self.changes.push(change);
        None
    }

    /// Sees the oldest command through; false if there was none.
    async fn settle_one(&mut self) -> Result<bool, Stop> {
        let Some(Flight {
            span: _span,
            recorded,
            scope,
            command,
            pending,
        }) = self.in_flight.pop()
        else {
            return Ok(false);
        };
        match self
            .dispatcher
            .follow(&Cause::from(&*recorded), command, pending)
            .await
        {
            Ok(()) => {}
            Err(Failure::Stopped(stopped)) => return Err(stopped.into()),
            Err(Failure::Upgrade(reason)) => return Err(Stop::Upgrade(reason)),
            Err(Failure::Later(reason)) => {
                tracing::debug!(event = %recorded.id(), reason, "the policy runs again later");
                self.changes.push(self.again_later(&recorded));
            }
            Err(Failure::Unforeseen(reason)) => self.park(&recorded, scope, Some(reason)).await?,
        }
        Ok(true)
    }

    fn again_later(&self, recorded: &Arc<RecordedEvent>) -> Change {
        let due_at = self.config.effect_backoff.next(1, self.clock.now());
        Change::add(Table::Timers, recorded, TimerKind::PolicyAgain.as_str(), due_at)
    }

    async fn park(
        &mut self,
        recorded: &RecordedEvent,
        scope: Arc<str>,
        reason: Option<String>,
    ) -> Result<(), Stop> {
        if let Some(reason) = &reason {
            tracing::error!(event = %recorded.id(), kind = recorded.event.name(), reason, "a policy failed: parked");
        }
        let letter = NewDeadLetter {
            scope,
            position: recorded.position,
            event_id: recorded.id(),
            event_type: recorded.event.name().to_owned(),
            reason,
            parked_at: self.clock.now(),
        };
        self.keep(letter).await
    }

    /// Sees a letter stored: without it, the checkpoint must not pass its event.
    async fn keep(&mut self, letter: NewDeadLetter) -> Result<(), Stop> {
        let mut tries = 0;
        while let Err(error) = self.letters.park(letter.clone()).await {
            tries += 1;
            self.refused(&error, tries).await?;
        }
        self.is_over(tries);
        Ok(())
    }

    /// An event that fits no schema: nobody knows what follows from it, nor whose part of a stock item it is.
    async fn park_unreadable(&mut self, poison: &UnreadableEvent) -> Result<(), Stop> {
        while self.settle_one().await? {}
        let Some(stream) = poison.stream() else {
            return Ok(());
        };
        tracing::error!(%poison, "an event cannot be read: parked");
        let letter = NewDeadLetter {
            scope: stream.to_string().into(),
            position: poison.position,
            event_id: EventId {
                stream,
                version: poison.version,
            },
            event_type: poison.event_type.clone(),
            reason: Some(poison.to_string()),
            parked_at: self.clock.now(),
        };
        self.keep(letter).await
    }
}
