//! An order as it was: its streams, up to a moment, through the same fold as the view.

use std::sync::Arc;

use event_schemas::{
    AggregateType, CustomerId, Event, OrderEvent, OrderId, PaymentId, RecordedEvent, StreamId, Timestamp,
    Version,
};
use event_store::{AsOf, Log, LogEntry, RawEvent, ReadError, UnreadableEvent};

use super::{OrderView, Orders};
use crate::document::Document;
use crate::view::{DocId, FoldError, View};

/// Events read at a time.
const PAGE: usize = 100;

/// The most events of one aggregate that are folded for one answer. Orders have some dozens.
const MAX_EVENTS: usize = 10_000;

/// The history of one order that there is, and whose it is.
#[derive(Debug)]
pub struct OrderHistory {
    id: OrderId,
    customer: CustomerId,
    placed_at: Timestamp,
}

/// What there was at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum PastOrder {
    Was(Box<OrderAsOf>),
    /// It was placed later.
    NotYetPlaced {
        placed_at: Timestamp,
    },
    /// It has not come to that version: this is the one it is at.
    NotReached {
        version: Version,
    },
}

/// An order as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderAsOf {
    pub order: OrderView,
    /// When the order came to the version that it had then.
    pub recorded_at: Timestamp,
}

/// Why the past cannot be told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Unreadable(Arc<UnreadableEvent>),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error("{0} has more than {MAX_EVENTS} events")]
    TooLong(StreamId),
}

impl OrderHistory {
    /// The history of the order `id`; none if there is no such order.
    pub async fn open(log: &Log, id: OrderId) -> Result<Option<Self>, HistoryError> {
        let stream = order_stream(id);
        let first = page(log, &stream, Version(0), 1).await?;
        let Some(first) = first.first() else {
            return Ok(None);
        };
        let first = readable(log, first)?;
        match &first.event {
            Event::Order(OrderEvent::OrderPlaced(placed)) => Ok(Some(Self {
                id,
                customer: placed.customer,
                placed_at: first.recorded_at,
            })),
            other => Err(FoldError::NotBegun {
                event_type: other.name(),
            }
            .into()),
        }
    }

    /// Whose order it is.
    pub const fn customer(&self) -> CustomerId {
        self.customer
    }

    /// The order at `moment`. At a version, its payment is as it was when that version was recorded.
    pub async fn as_of(&self, log: &Log, moment: AsOf) -> Result<PastOrder, HistoryError> {
        let id: DocId = self.id.into();
        let mut document = Document::default();
        let order = order_stream(self.id);
        let then = fold_while(log, &id, &mut document, &order, |event| moment.includes(event)).await?;
        let Some(then) = then else {
            return Ok(PastOrder::NotYetPlaced {
                placed_at: self.placed_at,
            });
        };
        if let AsOf::Version(version) = moment
            && then.version < version
        {
            return Ok(PastOrder::NotReached {
                version: then.version,
            });
        }
        // Positions say what had been committed by then, whatever the clocks of two machines say.
        let paid_by = StreamId::new(AggregateType::Payment, PaymentId::for_order(self.id));
        fold_while(log, &id, &mut document, &paid_by, |event| match moment {
            AsOf::Version(_) => event.position <= then.position,
            AsOf::Time(_) => moment.includes(event),
        })
        .await?;
        // A document that begins with the order's first event can be shown.
        let order = Orders::combine(&id, &document).ok_or(FoldError::Misrouted {
            event_type: then.event.name(),
            view: Orders::NAME,
        })?;
        Ok(PastOrder::Was(Box::new(OrderAsOf {
            order,
            recorded_at: then.recorded_at,
        })))
    }
}

/// Folds the events of `stream` in, from its first to the last that is `wanted` in a row; answers that one.
async fn fold_while(
    log: &Log,
    id: &DocId,
    document: &mut Document<super::OrderPart>,
    stream: &StreamId,
    wanted: impl Fn(&RawEvent) -> bool,
) -> Result<Option<Arc<RecordedEvent>>, HistoryError> {
    let (mut last, mut after, mut left) = (None, Version(0), MAX_EVENTS);
    loop {
        let events = page(log, stream, after, PAGE).await?;
        for raw in &events {
            if !wanted(raw) {
                return Ok(last);
            }
            left = left
                .checked_sub(1)
                .ok_or_else(|| HistoryError::TooLong(stream.clone()))?;
            let event = readable(log, raw)?;
            if Orders::route(&event).as_ref() != Some(id) {
                return Err(HistoryError::Fold(FoldError::Misrouted {
                    event_type: event.event.name(),
                    view: Orders::NAME,
                }));
            }
            document.fold::<Orders>(&event)?;
            after = event.version;
            last = Some(event);
        }
        if events.len() < PAGE {
            return Ok(last);
        }
    }
}

fn order_stream(id: OrderId) -> StreamId {
    StreamId::new(AggregateType::Order, id)
}

async fn page(log: &Log, stream: &StreamId, after: Version, max: usize) -> Result<Vec<RawEvent>, ReadError> {
    let (kind, id) = (stream.aggregate_type.as_str(), stream.aggregate_id.as_str());
    log.read_raw_stream(kind, id, after, max).await
}

fn readable(log: &Log, raw: &RawEvent) -> Result<Arc<RecordedEvent>, HistoryError> {
    match log.decode(raw) {
        LogEntry::Event(event) => Ok(event),
        LogEntry::Unreadable(event) => Err(HistoryError::Unreadable(event)),
    }
}
