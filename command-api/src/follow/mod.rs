//! Following the log: which orders are unpaid, and whom to wake when an order is paid, cancelled or needs its customer.
//!
//! One task reads every event once, however many requests wait. It holds nothing that the log does not say again.

mod changes;
mod unpaid;

use std::time::Duration;

use event_schemas::{Clock, Event, OrderEvent, PaymentEvent, Position, RecordedEvent, Timestamp};
use event_store::{Log, LogEntry, ReadError};
use tokio::task::JoinHandle;

pub(crate) use changes::OrderChanges;
pub use unpaid::{MAX_UNPAID_PER_ADDRESS, MAX_UNPAID_PER_CUSTOMER};
pub(crate) use unpaid::{Permit, UnpaidLimit, UnpaidOrders};

/// Events read at once.
const PAGE: usize = 512;
/// How far beyond the payment window the log is read again at start.
const HORIZON_MARGIN: Duration = Duration::from_secs(15 * 60);
/// How long to wait before reading again when the log cannot be read.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The task that follows the log; it ends when this is dropped.
pub(crate) struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Following {
    log: Log,
    clock: Clock,
    unpaid: UnpaidOrders,
    changes: OrderChanges,
    position: Position,
}

impl Follower {
    /// Reads what the log says of orders that may still be unpaid (those placed within `payment_window`), then goes on
    /// as the log grows.
    pub(crate) async fn start(
        log: Log,
        clock: Clock,
        payment_window: Duration,
        unpaid: UnpaidOrders,
        changes: OrderChanges,
    ) -> Result<Self, ReadError> {
        let horizon = clock.now().saturating_sub(payment_window + HORIZON_MARGIN);
        let position = last_before(&log, horizon.unwrap_or(Timestamp::MIN)).await?;
        let mut following = Following {
            log,
            clock,
            unpaid,
            changes,
            position,
        };
        while following.page().await? > 0 {}
        Ok(Self(tokio::spawn(following.run())))
    }
}

impl Following {
    async fn run(mut self) {
        let mut head = self.log.watch();
        loop {
            // Marked as seen before reading: a commit meanwhile wakes the wait below.
            head.mark_unchanged();
            match self.page().await {
                Ok(0) => {
                    if head.changed().await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be followed right now");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Takes the next page in and says how many entries it had.
    async fn page(&mut self) -> Result<usize, ReadError> {
        let entries = self.log.read(self.position, PAGE).await?;
        let now = self.clock.now();
        for entry in &entries {
            // An unreadable event is for the subscribers to stop at; here it only costs a count or a wake-up.
            if let LogEntry::Event(event) = entry {
                self.take(event, now);
            }
            self.position = entry.position();
        }
        Ok(entries.len())
    }

    fn take(&self, recorded: &RecordedEvent, now: Timestamp) {
        match &recorded.event {
            Event::Order(OrderEvent::OrderPlaced(placed)) => {
                self.unpaid.on_placed(placed, &recorded.metadata, now);
            }
            Event::Order(OrderEvent::OrderPaid { .. } | OrderEvent::OrderCancelled { .. }) => {
                if let Ok(order) = recorded.stream.aggregate_id.as_str().parse() {
                    self.unpaid.on_closed(order);
                    self.changes.changed(order);
                }
            }
            Event::Payment(
                event @ (PaymentEvent::PaymentDeclined { .. }
                | PaymentEvent::PaymentSessionCreated {
                    checkout_ref: Some(_),
                    ..
                }),
            ) => self.changes.changed(event.order_id()),
            Event::Product(_)
            | Event::Inventory(_)
            | Event::Cart(_)
            | Event::Order(_)
            | Event::Payment(_) => {}
        }
    }
}

/// A position before which everything was recorded before `time`, by bisection: events are recorded in the order of
/// their positions, give or take the clocks of several processes, which the margin covers.
async fn last_before(log: &Log, time: Timestamp) -> Result<Position, ReadError> {
    let (mut low, mut high) = (0, log.head().await?.0);
    while low < high {
        let middle = low + (high - low) / 2;
        let page = log.read(Position(middle), 1).await?;
        let recorded_at = page
            .first()
            .and_then(LogEntry::event)
            .map(|event| event.recorded_at);
        if recorded_at.is_some_and(|at| at >= time) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Position(low))
}
