use std::collections::HashMap;

use event_schemas::{
    AggregateType, OrderEvent, OrderId, PaymentEvent, PaymentId, RecordedEvent, StreamId, Timestamp,
};

use super::attempts::Attempt;
use super::{
    BALANCE, CAPTURED_ONCE, DEADLINE, Findings, NOTHING_KEPT, OpenIntent, PAID, REFUNDED, REFUNDED_ONCE,
};

/// Every order that is not settled, with its payment. Of a settled one only the money is remembered that was kept for
/// it, and of a cancelled one nothing: what comes later is judged by what it adds to that.
#[derive(Debug, Default)]
pub(super) struct Orders {
    open: HashMap<OrderId, Order>,
    settled: HashMap<OrderId, Kept>,
}

/// What was paid for a finished order and not given back, and the attempt that took it.
#[derive(Debug, Clone, Copy)]
struct Kept {
    attempt: u32,
    amount: i64,
}

/// Amounts are minor units.
#[derive(Debug)]
struct Order {
    placed: Option<Placed>,
    stage: Stage,
    /// Stock items that hold something for it.
    holds: u32,
    paid: i128,
    refund_recorded: i128,
    captured: i128,
    refunded: i128,
    attempts: Vec<Attempt>,
    /// Since when payment and order disagree.
    unbalanced_since: Option<Timestamp>,
    last_money_at: Timestamp,
}

#[derive(Debug)]
struct Placed {
    total: i128,
    deadline: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not placed, or forgotten.
    Unknown,
    Unpaid,
    Paid {
        at: Timestamp,
    },
    Cancelled {
        at: Timestamp,
    },
    Finished {
        at: Timestamp,
    },
}

/// The order whose stream this is.
pub(super) fn order_of(stream: &StreamId) -> Option<OrderId> {
    stream.aggregate_id.as_str().parse().ok()
}

fn stream_of(order_id: OrderId) -> StreamId {
    StreamId::new(AggregateType::Order, order_id)
}

impl Orders {
    pub(super) fn is_placed(&self, order_id: OrderId) -> bool {
        self.open
            .get(&order_id)
            .is_some_and(|order| order.placed.is_some())
    }

    /// Since when the order has no claim to stock; none while it has one.
    pub(super) fn idle_since(&self, order_id: OrderId) -> Option<Timestamp> {
        match self
            .open
            .get(&order_id)
            .map_or(Stage::Unknown, |order| order.stage)
        {
            Stage::Unknown => Some(Timestamp::MIN),
            Stage::Unpaid | Stage::Paid { .. } => None,
            Stage::Cancelled { at } | Stage::Finished { at } => Some(at),
        }
    }

    pub(super) fn hold(&mut self, order_id: OrderId) {
        self.change(order_id, |order| order.holds += 1);
    }

    pub(super) fn let_go(&mut self, order_id: OrderId) {
        self.change(order_id, |order| order.holds = order.holds.saturating_sub(1));
    }

    pub(super) fn order_event(
        &mut self,
        order_id: OrderId,
        recorded: &RecordedEvent,
        event: &OrderEvent,
        found: &mut Findings,
    ) {
        let (stream, at) = (&recorded.stream, recorded.recorded_at);
        self.change(order_id, |order| match event {
            OrderEvent::OrderPlaced(placed) => {
                let total = i128::from(placed.totals.total.amount());
                order.placed = Some(Placed {
                    total,
                    deadline: placed.payment_deadline,
                });
                order.stage = Stage::Unpaid;
            }
            OrderEvent::OrderPaid { amount, .. } => {
                order.stage = Stage::Paid { at };
                order.paid += i128::from(amount.amount());
                if order.paid > order.captured {
                    found.add(PAID, stream, || {
                        format!("{} paid, {} captured", order.paid, order.captured)
                    });
                }
                order.money_moved(at);
            }
            OrderEvent::RefundRecorded { amount, .. } => {
                order.refund_recorded += i128::from(amount.amount());
                if order.refund_recorded > order.refunded.min(order.paid) {
                    found.add(REFUNDED, stream, || {
                        let Order {
                            refund_recorded,
                            refunded,
                            paid,
                            ..
                        } = order;
                        format!("{refund_recorded} recorded as refunded, {refunded} refunded, {paid} paid")
                    });
                }
                order.money_moved(at);
            }
            OrderEvent::OrderCancelled { .. } => order.stage = Stage::Cancelled { at },
            OrderEvent::OrderCompleted {} | OrderEvent::ReturnReceived { .. } => {
                order.stage = Stage::Finished { at };
            }
            OrderEvent::LineReserved { .. }
            | OrderEvent::OrderReserved {}
            | OrderEvent::PaymentRequired { .. }
            | OrderEvent::ShipmentDispatched { .. }
            | OrderEvent::ShipmentDelivered { .. }
            | OrderEvent::ReturnRequested { .. }
            | OrderEvent::ReturnApproved { .. }
            | OrderEvent::ReturnRejected { .. } => {}
        });
    }

    pub(super) fn payment_event(
        &mut self,
        recorded: &RecordedEvent,
        event: &PaymentEvent,
        found: &mut Findings,
    ) {
        self.change(event.order_id(), |order| {
            order.payment_event(recorded, event, found);
        });
    }

    /// Works on the order's record, and forgets it once it is settled.
    fn change(&mut self, order_id: OrderId, work: impl FnOnce(&mut Order)) {
        let settled = &mut self.settled;
        let order = self
            .open
            .entry(order_id)
            .or_insert_with(|| match settled.remove(&order_id) {
                Some(kept) => Order::finished(kept),
                None => Order::new(),
            });
        work(order);
        if order.is_settled() {
            if let Some(kept) = order.to_remember() {
                self.settled.insert(order_id, kept);
            }
            self.open.remove(&order_id);
        }
    }

    pub(super) fn open_intents(&self) -> Vec<OpenIntent> {
        let attempts = self.open.values().flat_map(|order| &order.attempts);
        attempts
            .flat_map(|attempt| {
                attempt
                    .intent
                    .iter()
                    .chain(attempt.refunds.iter().map(|(_, _, intent)| intent))
            })
            .cloned()
            .collect()
    }

    pub(super) fn finish(&self, due: Timestamp, found: &mut Findings) {
        for (order_id, order) in &self.open {
            order.finish(*order_id, due, found);
        }
    }
}

impl Order {
    fn new() -> Self {
        Self {
            placed: None,
            stage: Stage::Unknown,
            holds: 0,
            paid: 0,
            refund_recorded: 0,
            captured: 0,
            refunded: 0,
            attempts: Vec::new(),
            unbalanced_since: None,
            last_money_at: Timestamp::MIN,
        }
    }

    fn finished(kept: Kept) -> Self {
        let amount = i128::from(kept.amount);
        let attempt = Attempt {
            captured: amount,
            captures: 1,
            ..Attempt::new(kept.attempt)
        };
        let stage = Stage::Finished { at: Timestamp::MIN };
        Self {
            stage,
            paid: amount,
            captured: amount,
            attempts: vec![attempt],
            ..Self::new()
        }
    }

    fn to_remember(&self) -> Option<Kept> {
        let attempt = self
            .attempts
            .iter()
            .max_by_key(|attempt| attempt.captured - attempt.spoken_for)?;
        let amount = i64::try_from(self.kept()).ok().filter(|kept| *kept > 0)?;
        Some(Kept {
            attempt: attempt.number,
            amount,
        })
    }

    /// What the payment keeps.
    const fn kept(&self) -> i128 {
        self.captured - self.refunded
    }

    fn money_moved(&mut self, at: Timestamp) {
        self.last_money_at = at;
        let fits = self
            .placed
            .as_ref()
            .is_none_or(|placed| self.kept() <= placed.total);
        self.unbalanced_since = if fits && self.kept() == self.paid - self.refund_recorded {
            None
        } else {
            self.unbalanced_since.or(Some(at))
        };
    }

    fn payment_event(&mut self, recorded: &RecordedEvent, event: &PaymentEvent, found: &mut Findings) {
        let (stream, at) = (&recorded.stream, recorded.recorded_at);
        let open = || OpenIntent {
            event: recorded.id(),
            event_type: event.name(),
            since: at,
        };
        match event {
            PaymentEvent::SessionRequested { attempt, .. }
            | PaymentEvent::CaptureRequested { attempt, .. }
            | PaymentEvent::VoidRequested { attempt, .. } => self.attempt(*attempt).intent = Some(open()),
            PaymentEvent::PaymentSessionCreated { attempt, .. } => self.attempt(*attempt).session_answered(),
            PaymentEvent::PaymentAuthorized { attempt, .. } => {
                let attempt = self.attempt(*attempt);
                attempt.session_answered();
                // An old report of what was taken or given back since.
                if attempt.captures == 0 && !attempt.voided {
                    attempt.authorized_since = Some(at);
                }
            }
            PaymentEvent::PaymentDeclined { attempt, .. } => self.attempt(*attempt).declined(),
            PaymentEvent::PaymentVoided { attempt, .. } => {
                let attempt = self.attempt(*attempt);
                attempt.answered();
                attempt.voided = true;
            }
            PaymentEvent::PaymentCaptured { attempt, amount, .. } => {
                let number = *attempt;
                let attempt = self.attempt(number);
                attempt.answered();
                attempt.captures += 1;
                attempt.captured += i128::from(amount.amount());
                if attempt.captures > 1 {
                    found.add(CAPTURED_ONCE, stream, || {
                        format!("attempt {number}: {} captures", attempt.captures)
                    });
                }
                self.captured += i128::from(amount.amount());
                self.money_moved(at);
            }
            PaymentEvent::RefundRequested {
                attempt,
                refund_id,
                amount,
                ..
            } => {
                let (number, amount) = (*attempt, i128::from(amount.amount()));
                let attempt = self.attempt(number);
                attempt.spoken_for += amount;
                attempt.refunds.push((*refund_id, amount, open()));
                attempt.check_refunds(stream, found);
            }
            PaymentEvent::RefundSucceeded {
                attempt, refund_id, ..
            } => {
                let number = *attempt;
                let attempt = self.attempt(number);
                let Some(amount) = attempt.succeed(*refund_id) else {
                    found.add(REFUNDED_ONCE, stream, || {
                        format!("refund {refund_id} was not open")
                    });
                    return;
                };
                attempt.check_refunds(stream, found);
                self.refunded += amount;
                self.money_moved(at);
            }
            PaymentEvent::RefundFailed {
                attempt, refund_id, ..
            } => {
                if !self.attempt(*attempt).fail(*refund_id) {
                    found.add(REFUNDED_ONCE, stream, || {
                        format!("refund {refund_id} was not open")
                    });
                }
            }
            PaymentEvent::PaymentRequested { .. }
            | PaymentEvent::PaymentRetried { .. }
            | PaymentEvent::PaymentCloseRequested { .. }
            | PaymentEvent::PaymentExpired { .. }
            | PaymentEvent::ProviderAnomalyRecorded { .. } => {}
        }
    }

    fn attempt(&mut self, number: u32) -> &mut Attempt {
        let index = self.attempts.iter().position(|attempt| attempt.number == number);
        let index = index.unwrap_or_else(|| {
            self.attempts.push(Attempt::new(number));
            self.attempts.len() - 1
        });
        &mut self.attempts[index]
    }

    fn is_settled(&self) -> bool {
        let over = match self.stage {
            Stage::Unknown | Stage::Cancelled { .. } => self.kept() == 0,
            Stage::Finished { .. } => true,
            Stage::Unpaid | Stage::Paid { .. } => false,
        };
        over && self.holds == 0
            && self.unbalanced_since.is_none()
            && self.attempts.iter().all(Attempt::is_settled)
    }

    fn finish(&self, order_id: OrderId, due: Timestamp, found: &mut Findings) {
        let payment = || StreamId::new(AggregateType::Payment, PaymentId::for_order(order_id));
        if self.unbalanced_since.is_some_and(|since| since <= due) {
            found.add(BALANCE, &payment(), || {
                let Self {
                    captured,
                    refunded,
                    paid,
                    refund_recorded,
                    ..
                } = self;
                format!(
                    "captured {captured}, refunded {refunded}; order paid {paid}, refunded {refund_recorded}"
                )
            });
        }
        match (self.stage, &self.placed) {
            (Stage::Unpaid, Some(placed)) if placed.deadline <= due => {
                found.add(DEADLINE, &stream_of(order_id), || {
                    format!("its deadline was {}", placed.deadline)
                });
            }
            (Stage::Cancelled { at }, _) if self.kept() != 0 && at.max(self.last_money_at) <= due => {
                found.add(NOTHING_KEPT, &payment(), || {
                    format!("{} is kept of a cancelled order", self.kept())
                });
            }
            _ => {}
        }
        if let Stage::Paid { at: decided }
        | Stage::Cancelled { at: decided }
        | Stage::Finished { at: decided } = self.stage
        {
            for attempt in &self.attempts {
                if attempt
                    .authorized_since
                    .is_some_and(|since| since.max(decided) <= due)
                {
                    found.add(NOTHING_KEPT, &payment(), || {
                        format!("attempt {} is still authorized", attempt.number)
                    });
                }
            }
        }
    }
}
