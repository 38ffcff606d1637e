//! The log into Kafka.
//!
//! The `events` table is the outbox: the relay reads it by position, produces what it finds, and remembers how far it
//! came once the brokers have confirmed it. What is produced twice (after a kill, or by two relays at once) is a repeat
//! that subscribers drop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use database::Database;
use event_schemas::{Clock, LogIdentity, Metadata, Position, StreamId};
use event_store::{Log, RawEvent, traced};
use futures_util::future::try_join_all;
use rdkafka::producer::FutureProducer;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Level, Span};

use super::leadership::{Leadership, Term};
use super::record;
use super::{Kafka, Logged};
use crate::{BusError, Checkpoint, Checkpoints, Lag, PartitionKey, lag};

/// The relay's name as a subscriber. Its positions say what each partition was last given; that of the log, up to where
/// everything was.
pub(super) const SUBSCRIBER: &str = "relay";

/// Between two tries; doubles up to the latter.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Between two looks at the lag.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How the relay works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Events read together; the checkpoint is saved after each page.
    pub page_events: usize,
    /// Pages that may wait for the brokers' confirmation.
    pub pages_in_flight: usize,
    /// How long a record may take to be confirmed before the relay begins again from its checkpoint.
    pub delivery_timeout: Duration,
    /// For the lag in seconds.
    pub clock: Clock,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            page_events: 500,
            pages_in_flight: 4,
            delivery_timeout: Duration::from_secs(10),
            clock: Clock::System,
        }
    }
}

/// How the relay is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayState {
    /// It follows the log.
    Running,
    /// Another process relays; this one waits to take over.
    Standby,
    /// Kafka or the database is away; it tries for ever, and the log keeps what waits. The text is for logs.
    Retrying(String),
    /// It cannot go on by itself.
    Failed(String),
    /// It was stopped.
    Stopped,
}

impl RelayState {
    /// Whether the stream is filled as it should be.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Running | Self::Standby)
    }
}

/// How far the relay has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    pub state: RelayState,
    /// Everything up to here is in Kafka, as far as this relay knows.
    pub position: Position,
    /// Events of the log beyond it; of one in standby 0.
    pub lag: u64,
}

/// A running relay. It goes on until it is cancelled or stopped, also when this handle is dropped.
#[derive(Debug)]
pub struct Relay {
    state: watch::Receiver<RelayState>,
    position: watch::Receiver<Position>,
    head: watch::Receiver<Position>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Relay {
    /// Starts bringing `log`, which lives in `database`, to `kafka`, until `cancel`. Needs neither at once: what is away
    /// is waited for. On PostgreSQL one of several relays is active at a time.
    pub async fn start(
        log: &Log,
        database: impl Into<Database>,
        kafka: &Kafka,
        options: RelayOptions,
        cancel: CancellationToken,
    ) -> Result<Self, BusError> {
        let database = database.into();
        let checkpoints = Checkpoints::open(&database).await?;
        let (state_sender, state) = watch::channel(RelayState::Standby);
        let (position_sender, position) = watch::channel(Position(0));
        let worker = Worker {
            leadership: Leadership::new(&database, kafka),
            log: log.clone(),
            head: log.watch(),
            kafka: kafka.clone(),
            checkpoints,
            subscriber: SUBSCRIBER.into(),
            state: state_sender,
            position: position_sender,
            options,
            cancel: cancel.clone(),
        };
        let tracker = TaskTracker::new();
        let measuring = measure(
            log.clone(),
            worker.checkpoints.clone(),
            state.clone(),
            worker.options.clock.clone(),
        );
        tracker.spawn(cancel.clone().run_until_cancelled_owned(measuring));
        tracker.spawn(worker.run());
        tracker.close();
        Ok(Self {
            state,
            position,
            head: log.watch(),
            cancel,
            tracker,
        })
    }

    /// How it is doing.
    pub fn state(&self) -> RelayState {
        let state = self.state.borrow().clone();
        let ended = matches!(state, RelayState::Failed(_) | RelayState::Stopped);
        if !ended && self.state.has_changed().is_err() {
            return RelayState::Failed("the relay panicked".to_owned());
        }
        state
    }

    /// How far it is.
    pub fn status(&self) -> RelayStatus {
        let (position, head) = (*self.position.borrow(), *self.head.borrow());
        RelayStatus {
            state: self.state(),
            position,
            lag: match self.state() {
                RelayState::Standby => 0,
                _ => head.0.saturating_sub(position.0),
            },
        }
    }

    /// Up to where everything is in Kafka, as it moves.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Stops without waiting for what is on its way, which comes again, and waits for the task's end.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.wait().await;
    }
}

struct Worker {
    leadership: Leadership,
    log: Log,
    head: watch::Receiver<Position>,
    kafka: Kafka,
    checkpoints: Checkpoints,
    subscriber: Arc<str>,
    state: watch::Sender<RelayState>,
    position: watch::Sender<Position>,
    options: RelayOptions,
    cancel: CancellationToken,
}

/// A page on its way.
struct Page {
    deliveries: Vec<DeliveryFuture>,
    /// What is true once all of them have arrived.
    checkpoint: Checkpoint,
    /// From the log to the brokers' confirmation.
    _spans: Vec<Span>,
}

/// What one run produces with.
struct Run {
    producer: FutureProducer<Logged>,
    identity: LogIdentity,
    /// What each partition was last given.
    last: BTreeMap<PartitionKey, Position>,
    read: Position,
    in_flight: VecDeque<Page>,
}

impl Worker {
    async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        while !self.cancel.is_cancelled() {
            let tell = |outcome: Result<(), database::DatabaseError>| {
                self.tell(outcome.map_or_else(
                    |error| RelayState::Retrying(error.to_string()),
                    |()| RelayState::Standby,
                ));
            };
            let Some(mut term) = self.leadership.acquire(&self.cancel.clone(), tell).await else {
                break;
            };
            let before = *self.position.borrow();
            let Err(error) = self.lead(&mut term).await else {
                break;
            };
            if !error.retryable() {
                tracing::error!(%error, "the relay cannot go on");
                self.tell(RelayState::Failed(error.to_string()));
                return;
            }
            tracing::warn!(%error, "the relay begins again from its checkpoint");
            self.tell(RelayState::Retrying(error.to_string()));
            if *self.position.borrow() > before {
                pause = RETRY_FIRST;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MOST),
            }
        }
        self.tell(RelayState::Stopped);
    }

    fn tell(&self, state: RelayState) {
        self.state.send_if_modified(|told| {
            let changed = *told != state;
            *told = state;
            changed
        });
    }

    /// Relays until cancelled, or until something is in the way.
    async fn lead(&mut self, term: &mut Term) -> Result<(), BusError> {
        let cancel = self.cancel.clone();
        let mut run = tokio::select! {
            begun = self.begin() => begun?,
            () = cancel.cancelled() => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = self.relay(&mut run) => outcome,
            () = term.lost() => Err(BusError::Kafka("the lock of the active relay was lost".to_owned())),
            () = cancel.cancelled() => Ok(()),
        };
        // Takes back what is queued, which may block for a moment.
        let _ = tokio::task::spawn_blocking(move || drop(run)).await;
        outcome
    }

    async fn begin(&mut self) -> Result<Run, BusError> {
        self.kafka.ensure_topics().await?;
        let identity = self.log.identity();
        let checkpoint = self.start_checkpoint(identity).await?;
        let start = checkpoint.position();
        let named = checkpoint.positions().iter().copied().collect::<BTreeMap<_, _>>();
        let partitions = self.kafka.partitioning().all();
        // What a partition had before we knew it is unknown: subscribers read the log up to here.
        let last: BTreeMap<PartitionKey, Position> = partitions
            .into_iter()
            .map(|key| (key, named.get(&key).copied().unwrap_or(start)))
            .collect();
        let mut first = Checkpoint::at(identity, start);
        for (key, position) in &last {
            first.advance(*key, *position);
        }
        self.checkpoints.save(&self.subscriber, first).await?;
        self.position.send_replace(start);
        Ok(Run {
            producer: self.producer()?,
            identity,
            last,
            read: start,
            in_flight: VecDeque::new(),
        })
    }

    /// Where to go on. A restored log is relayed from its beginning: what the topics have of an older epoch is nothing
    /// that subscribers take.
    async fn start_checkpoint(&self, identity: LogIdentity) -> Result<Checkpoint, BusError> {
        let stored = self.checkpoints.load(&self.subscriber).await?;
        match stored {
            Some(stored) if stored.log == identity => {
                let (position, head) = (stored.position(), self.log.head().await?);
                if position > head {
                    let subscriber = Arc::clone(&self.subscriber);
                    return Err(BusError::BeyondHead {
                        subscriber,
                        position,
                        head,
                    });
                }
                Ok(stored)
            }
            Some(stored) if stored.log.log_id != identity.log_id || stored.log.epoch > identity.epoch => {
                Err(BusError::ForeignCheckpoint {
                    subscriber: Arc::clone(&self.subscriber),
                    found: stored.log,
                    log: identity,
                })
            }
            Some(_) | None => Ok(Checkpoint::start(identity)),
        }
    }

    fn producer(&self) -> Result<FutureProducer<Logged>, BusError> {
        let timeout = self.options.delivery_timeout.as_millis().to_string();
        let largest = self.kafka.options().max_message_bytes.to_string();
        let mut config = self.kafka.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("message.timeout.ms", timeout)
            .set("message.max.bytes", largest)
            // More than all pages in flight; they are what bounds memory.
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576");
        Ok(config.create_with_context(Logged)?)
    }

    async fn relay(&mut self, run: &mut Run) -> Result<(), BusError> {
        loop {
            // Taken note of before reading, so that a commit in between wakes us.
            let head = *self.head.borrow_and_update();
            while run.read < head && run.in_flight.len() < self.options.pages_in_flight.max(1) {
                self.send_page(run).await?;
            }
            let Some(oldest) = run.in_flight.front_mut() else {
                self.tell(RelayState::Running);
                if self.head.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            delivered(&mut oldest.deliveries).await?;
            if let Some(page) = run.in_flight.pop_front() {
                let position = page.checkpoint.position();
                self.checkpoints
                    .save_forward(&self.subscriber, page.checkpoint)
                    .await?;
                self.position.send_replace(position);
                self.tell(RelayState::Running);
            }
        }
    }

    /// Reads a page and hands it to the producer.
    async fn send_page(&self, run: &mut Run) -> Result<(), BusError> {
        let events = self
            .log
            .read_raw(run.read, self.options.page_events.max(1))
            .await?;
        let Some(last) = events.last() else {
            return Ok(());
        };
        let position = last.position;
        let mut checkpoint = Checkpoint::at(run.identity, position);
        let mut deliveries = Vec::with_capacity(events.len());
        let spans = events.iter().filter_map(span).collect();
        for event in &events {
            let key = self.partition(event)?;
            let after = run.last.insert(key, event.position).unwrap_or_default();
            checkpoint.advance(key, event.position);
            deliveries.push(self.send(&run.producer, run.identity, key, event, after)?);
        }
        metrics::counter!("omisys_relay_published_total").increment(events.len() as u64);
        run.read = position;
        run.in_flight.push_back(Page {
            deliveries,
            checkpoint,
            _spans: spans,
        });
        Ok(())
    }

    fn partition(&self, event: &RawEvent) -> Result<PartitionKey, BusError> {
        let Ok(aggregate_type) = event.aggregate_type.parse() else {
            // There is no topic that it could go to.
            return Err(BusError::Upgrade {
                subscriber: Arc::clone(&self.subscriber),
                position: event.position,
                event_type: event.event_type.clone(),
                event_version: event.event_version.clone(),
            });
        };
        let stream = StreamId {
            aggregate_type,
            aggregate_id: event.aggregate_id.clone(),
        };
        Ok(self.kafka.partitioning().of(&stream))
    }

    fn send(
        &self,
        producer: &FutureProducer<Logged>,
        identity: LogIdentity,
        key: PartitionKey,
        event: &RawEvent,
        after: Position,
    ) -> Result<DeliveryFuture, BusError> {
        let PartitionKey::Topic {
            aggregate_type,
            index,
            ..
        } = key
        else {
            return Err(BusError::Kafka("the log is no topic".to_owned()));
        };
        let topic = self.kafka.topic(aggregate_type);
        let record = FutureRecord::to(&topic)
            .partition(i32::from(index))
            .key(event.aggregate_id.as_str())
            .payload(event.payload.as_str())
            .timestamp(event.recorded_at.as_millisecond())
            .headers(record::headers(event, identity, after));
        producer.send_result(record).map_err(|(error, _)| error.into())
    }
}

/// Tells how far what is stored as relayed is behind the log, whatever the relay is doing: also when it is stuck. In
/// standby that is another's to tell.
async fn measure(log: Log, checkpoints: Checkpoints, state: watch::Receiver<RelayState>, clock: Clock) {
    loop {
        let standby = matches!(*state.borrow(), RelayState::Standby);
        let lag = if standby {
            Ok(Lag::default())
        } else {
            lag_of(&log, &checkpoints, &clock).await
        };
        match lag {
            Ok(lag) => {
                metrics::gauge!("omisys_relay_lag_positions").set(lag.positions as f64);
                metrics::gauge!("omisys_relay_lag_seconds").set(lag.seconds);
            }
            Err(error) => tracing::debug!(%error, "the relay's lag cannot be measured"),
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

async fn lag_of(log: &Log, checkpoints: &Checkpoints, clock: &Clock) -> Result<Lag, BusError> {
    let stored = checkpoints.load(&SUBSCRIBER.into()).await?;
    let stored = stored.filter(|stored| stored.log == log.identity());
    let position = stored.map(|stored| stored.position()).unwrap_or_default();
    lag::of_log(log, position, clock.now()).await
}

/// The way of an event to the brokers, if its trace is recorded.
fn span(event: &RawEvent) -> Option<Span> {
    // Metadata is not parsed for a trace that nobody records.
    if !tracing::level_enabled!(Level::INFO) {
        return None;
    }
    let metadata: Metadata = serde_json::from_str(&event.metadata).ok()?;
    let traceparent = traced(metadata.traceparent.as_deref())?;
    let position = event.position.0;
    Some(tracing::info_span!(
        "relay",
        traceparent,
        position,
        event = event.event_type
    ))
}

/// Resolves once the brokers have confirmed all of them. A failure is final: the producer has given up.
async fn delivered(deliveries: &mut [DeliveryFuture]) -> Result<(), BusError> {
    let confirmed = deliveries.iter_mut().map(|delivery| async move {
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(BusError::from(error)),
            Err(_) => Err(BusError::Kafka("the producer has gone".to_owned())),
        }
    });
    try_join_all(confirmed).await.map(|_| ())
}
