//! Aggregates folded up to the event that a policy looks at.

use std::num::NonZeroUsize;

use aggregates::Decide;
use aggregates::order::Order;
use aggregates::payment::Payment;
use event_schemas::{AggregateId, AggregateType, Event, RecordedEvent, StreamId, Version};
use event_store::{Log, ReadError};
use lru::LruCache;

use crate::policies::{Folded, needs_state};

/// Orders and payments in the making. The runner sees every event in order, so folding along is cheap; what has been
/// evicted is read from the log when a policy asks for it.
pub(crate) struct Folds {
    log: Log,
    orders: Cache<Order>,
    payments: Cache<Payment>,
}

impl Folds {
    pub(crate) fn new(log: &Log, capacity: usize) -> Self {
        Self {
            log: log.clone(),
            orders: Cache::new(capacity),
            payments: Cache::new(capacity),
        }
    }

    /// Takes note of the next event of the stream; a repeat changes nothing.
    pub(crate) fn observe(&mut self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::Order(event) => {
                self.orders
                    .observe(&recorded.stream.aggregate_id, recorded.version, event);
            }
            Event::Payment(event) => {
                self.payments
                    .observe(&recorded.stream.aggregate_id, recorded.version, event);
            }
            Event::Product(_) | Event::Inventory(_) | Event::Cart(_) => {}
        }
    }

    /// Has the event's aggregate ready for [`Folds::state`], folded up to and with the event, if its policy needs that.
    pub(crate) async fn prepare(&mut self, recorded: &RecordedEvent) -> Result<(), ReadError> {
        if !needs_state(&recorded.event) {
            return Ok(());
        }
        let (stream, version) = (&recorded.stream, recorded.version);
        match stream.aggregate_type {
            AggregateType::Order => self.orders.prepare(&self.log, stream, version).await,
            AggregateType::Payment => self.payments.prepare(&self.log, stream, version).await,
            AggregateType::Product | AggregateType::Inventory | AggregateType::Cart => Ok(()),
        }
    }

    /// What the policy of the event is given.
    pub(crate) fn state(&self, recorded: &RecordedEvent) -> Folded<'_> {
        let id = &recorded.stream.aggregate_id;
        let state = match recorded.stream.aggregate_type {
            _ if !needs_state(&recorded.event) => None,
            AggregateType::Order => self.orders.at(id, recorded.version).map(Folded::Order),
            AggregateType::Payment => self.payments.at(id, recorded.version).map(Folded::Payment),
            AggregateType::Product | AggregateType::Inventory | AggregateType::Cart => None,
        };
        state.unwrap_or(Folded::Nothing)
    }
}

struct Cache<A> {
    entries: LruCache<AggregateId, (Version, A)>,
}

impl<A: Decide + Default> Cache<A> {
    fn new(capacity: usize) -> Self {
        Self {
            entries: LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN)),
        }
    }

    fn observe(&mut self, id: &AggregateId, version: Version, event: &A::Event) {
        if let Some((known, aggregate)) = self.entries.get_mut(id) {
            if known.next() == version {
                aggregate.evolve(event);
                *known = version;
            }
        } else if version == Version(1) {
            let mut aggregate = A::default();
            aggregate.evolve(event);
            self.entries.put(id.clone(), (version, aggregate));
        }
    }

    fn at(&self, id: &AggregateId, version: Version) -> Option<&A> {
        self.entries
            .peek(id)
            .filter(|(known, _)| *known == version)
            .map(|(_, aggregate)| aggregate)
    }

    async fn prepare(&mut self, log: &Log, stream: &StreamId, version: Version) -> Result<(), ReadError> {
        // Another version: evicted meanwhile, or a repeat of an older event.
        if self.at(&stream.aggregate_id, version).is_none() {
            let aggregate = fold(log, stream, Some(version)).await?;
            self.entries
                .put(stream.aggregate_id.clone(), (version, aggregate));
        }
        Ok(())
    }
}

/// The aggregate as it was at `version`, or as it is.
pub(crate) async fn fold<A: Decide + Default>(
    log: &Log,
    stream: &StreamId,
    version: Option<Version>,
) -> Result<A, ReadError> {
    let mut aggregate = A::default();
    for recorded in log.read_stream(stream, Version(0), version).await? {
        if let Ok(event) = A::Event::try_from(recorded.event.clone()) {
            aggregate.evolve(&event);
        }
    }
    Ok(aggregate)
}

#[cfg(test)]
mod tests {
    use event_schemas::{Code, CommandId, OrderId, PaymentEvent, derive_uuid};

    use super::*;

    #[test]
    fn a_policy_is_given_its_events_version_or_nothing() {
        let order_id = OrderId::for_command(CommandId::from_uuid(derive_uuid("test", &[])));
        let reason = Code::new("test").expect("a code");
        let close = PaymentEvent::PaymentCloseRequested {
            order_id,
            attempt: 0,
            reason,
        };
        let expire = PaymentEvent::PaymentExpired { order_id, attempt: 0 };
        let id = AggregateId::from("a");
        let mut cache: Cache<Payment> = Cache::new(1);
        cache.observe(&id, Version(2), &expire);
        assert!(cache.at(&id, Version(2)).is_none(), "its beginning is unknown");
        cache.observe(&id, Version(1), &close);
        let closed = cache.at(&id, Version(1)).expect("folded along").clone();
        assert!(closed.is_closed());
        cache.observe(&id, Version(3), &expire);
        assert!(cache.at(&id, Version(3)).is_none(), "one is missing");
        cache.observe(&id, Version(2), &expire);
        assert_ne!(cache.at(&id, Version(2)), Some(&closed));
        assert!(
            cache.at(&id, Version(1)).is_none(),
            "a repeat is not given the later state"
        );
        cache.observe(&AggregateId::from("b"), Version(1), &close);
        assert!(cache.at(&id, Version(2)).is_none(), "bounded");
    }
}
