//! Calls to the payment provider: only while the intent is open, and after an unknown outcome the provider is asked
//! what happened before it is asked to do anything.

use aggregates::payment::{Attempt, Intent, Payment, PaymentCommand};
#[cfg(feature = "cluster")]
use event_schemas::{AggregateType, StreamId};
use event_schemas::{
    Code, CommandId, Event, Money, OrderId, PaymentEvent, PaymentId, PaymentMethod, RecordedEvent,
    derive_uuid,
};

use crate::commands::CommandSender;
use crate::dispatch::{Cause, Failure, Stopped};
use crate::fault;
#[cfg(feature = "cluster")]
use crate::folds::fold;
use crate::policies::{Command, IfRefused, PolicyCommand};
use crate::provider::{IdempotencyKey, Operation, Outcome, ProviderError, Report, Request};
use crate::secrets::Secret;
use crate::work::WorkItem;
use crate::worker::{Next, REPORTS, Worker};

const EFFECT: &str = "payment-effect";
const REPORT: &str = "payment-report";

/// A call that an intent event asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) payment: PaymentId,
    order: OrderId,
    attempt: u32,
    intent: Intent,
}

/// What the payment says about an open intent.
pub(crate) struct Open {
    /// Of the whole attempt.
    amount: Money,
    pub(crate) method: PaymentMethod,
}

impl Call {
    /// None if the event is no intent.
    pub(crate) fn of(recorded: &RecordedEvent) -> Option<Self> {
        let Event::Payment(event) = &recorded.event else {
            return None;
        };
        let (attempt, intent) = match event {
            PaymentEvent::SessionRequested { attempt, .. } => {
                (*attempt, Intent::Session { attempt: *attempt })
            }
            PaymentEvent::CaptureRequested { attempt, .. } => {
                (*attempt, Intent::Capture { attempt: *attempt })
            }
            PaymentEvent::VoidRequested { attempt, .. } => (*attempt, Intent::Void { attempt: *attempt }),
            PaymentEvent::RefundRequested {
                attempt, refund_id, ..
            } => (
                *attempt,
                Intent::Refund {
                    attempt: *attempt,
                    refund_id: *refund_id,
                },
            ),
            _ => return None,
        };
        let payment = recorded.stream.aggregate_id.as_str().parse().ok()?;
        Some(Self {
            payment,
            order: event.order_id(),
            attempt,
            intent,
        })
    }

    pub(crate) fn key(&self) -> IdempotencyKey {
        let operation = match self.intent {
            Intent::Session { .. } => Operation::Session,
            Intent::Capture { .. } => Operation::Capture,
            Intent::Void { .. } => Operation::Void,
            Intent::Refund { refund_id, .. } => Operation::Refund(refund_id),
        };
        IdempotencyKey {
            payment: self.payment,
            attempt: self.attempt,
            operation,
        }
    }

    pub(crate) const fn is_refund(&self) -> bool {
        matches!(self.intent, Intent::Refund { .. })
    }

    /// What to record; none if the outcome is no answer to this call.
    pub(crate) fn fact(&self, outcome: Outcome) -> Option<PaymentCommand> {
        let Self {
            order: order_id,
            attempt,
            intent,
            ..
        } = *self;
        let refund = match intent {
            Intent::Refund { refund_id, .. } => Some(refund_id),
            Intent::Session { .. } | Intent::Capture { .. } | Intent::Void { .. } => None,
        };
        Some(match (outcome, refund) {
            (
                Outcome::SessionOpen {
                    provider_ref,
                    checkout_ref,
                },
                None,
            ) => PaymentCommand::RecordSession {
                order_id,
                attempt,
                provider_ref,
                checkout_ref,
            },
            (Outcome::Authorized { provider_ref, amount }, None) => PaymentCommand::RecordAuthorized {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            (Outcome::Captured { provider_ref, amount }, None) => PaymentCommand::RecordCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
            (Outcome::Voided { provider_ref }, None) => PaymentCommand::RecordVoided {
                order_id,
                attempt,
                provider_ref,
            },
            (Outcome::Declined { code }, None) => PaymentCommand::RecordDeclined { attempt, code },
            (Outcome::Refunded { provider_ref, amount }, Some(refund_id)) => {
                PaymentCommand::RecordRefundSucceeded {
                    order_id,
                    attempt,
                    refund_id,
                    provider_ref,
                    amount,
                }
            }
            (Outcome::Declined { code }, Some(refund_id)) => PaymentCommand::RecordRefundFailed {
                attempt,
                refund_id,
                code,
            },
            _ => return None,
        })
    }
}

impl Worker {
    /// Does what the intent event `recorded` asks for, if that is still open.
    pub(crate) async fn effect(&self, item: &WorkItem, recorded: &RecordedEvent) -> Result<Next, Stopped> {
        let Some(call) = Call::of(recorded) else {
            return Ok(Next::Park(format!("{} is no intent", recorded.event.name())));
        };
        let open = match self.open(call).await {
            Ok(Some(open)) => open,
            Ok(None) => return Ok(Next::Done),
            Err(error) => {
                tracing::warn!(error, event = %item.event, "the payment cannot be read; trying again");
                return Ok(Next::Again(self.backoff(item)));
            }
        };
        self.faults.visit(fault::BEFORE_PROVIDER)?;
        let outcome = match self.ask(item, call, open).await {
            Ok(Outcome::InProgress { ask_again_after }) => {
                let again = self.clock.now().checked_add(ask_again_after);
                return Ok(Next::Again(again.unwrap_or_else(|_| self.backoff(item))));
            }
            Ok(outcome) => outcome,
            Err(ProviderError::Misused(why)) => {
                return Ok(Next::Park(format!("the provider refuses: {why}")));
            }
            Err(error @ (ProviderError::Down | ProviderError::Unknown)) => {
                if call.is_refund() && item.attempts >= self.config.refund_attempts {
                    return Ok(Next::Park(format!("{} calls, and {error}", item.attempts)));
                }
                tracing::debug!(%error, event = %item.event, "the provider will be asked again");
                return Ok(Next::Again(self.backoff(item)));
            }
        };
        self.faults.visit(fault::AFTER_PROVIDER)?;
        let alert = match (&outcome, call.intent) {
            (Outcome::Declined { code }, Intent::Refund { .. }) => {
                Some(format!("the refund was declined: {code}"))
            }
            _ => None,
        };
        let unfit = format!("{outcome:?} answers no {:?}", call.intent);
        let Some(fact) = call.fact(outcome) else {
            return Ok(Next::Park(unfit));
        };
        match self
            .dispatcher
            .run(&Cause::from(recorded), record(recorded, call.payment, fact))
            .await
        {
            Ok(()) => Ok(alert.map_or(Next::Done, Next::Alert)),
            Err(Failure::Later(_) | Failure::Upgrade(_)) => Ok(Next::Again(self.backoff(item))),
            Err(Failure::Unforeseen(reason)) => Ok(Next::Park(reason)),
            Err(Failure::Stopped(stopped)) => Err(stopped),
        }
    }

    /// What the payment says about the call; none if it is no open intent (any more).
    pub(crate) async fn open(&self, call: Call) -> Result<Option<Open>, String> {
        let open = move |payment: &Payment| {
            let attempt = payment
                .attempt(call.attempt)
                .filter(|_| payment.is_open(call.intent))?;
            Some(Open {
                amount: amount_of(attempt, call.intent),
                method: attempt.method().clone(),
            })
        };
        match self.dispatcher.sender() {
            CommandSender::Local(executors) => {
                let seen = executors
                    .payments
                    .with_state(call.payment, move |payment, _| open(payment));
                seen.await.map_err(|error| error.to_string())
            }
            #[cfg(feature = "cluster")]
            CommandSender::Remote(_) => {
                let stream = StreamId::new(AggregateType::Payment, call.payment);
                let payment = fold(&self.log, &stream, None).await;
                payment
                    .map(|payment| open(&payment))
                    .map_err(|error| error.to_string())
            }
        }
    }

    /// The provider's word on the call: what it did already, or what it does now.
    async fn ask(&self, item: &WorkItem, call: Call, open: Open) -> Result<Outcome, ProviderError> {
        let Some(provider) = &self.provider else {
            return Err(ProviderError::Down);
        };
        if open.method.provider.as_str() != provider.name() {
            return Err(ProviderError::Misused("the payment names another provider"));
        }
        let session = matches!(call.intent, Intent::Session { .. });
        let token = if session {
            self.token(&open.method).await?
        } else {
            None
        };
        let timeout = self.config.provider_timeout;
        let expired = session && token.is_none();
        // Not the first try, or no way to make another: what happened under this key?
        if item.attempts > 1 || expired {
            let found = tokio::time::timeout(timeout, provider.lookup(call.key())).await;
            if let Some(outcome) = found.map_err(|_elapsed| ProviderError::Unknown)?? {
                return Ok(outcome);
            }
        }
        if expired {
            let code = Code::new("secret-expired").map_err(|_| ProviderError::Misused("secret-expired"))?;
            return Ok(Outcome::Declined { code });
        }
        let request = Request {
            key: call.key(),
            order: call.order,
            amount: open.amount,
            token,
        };
        // Dropping the call on time-out leaves its outcome unknown, as a lost answer would.
        tokio::time::timeout(timeout, provider.call(request))
            .await
            .map_err(|_elapsed| ProviderError::Unknown)?
    }

    async fn token(&self, method: &PaymentMethod) -> Result<Option<Secret>, ProviderError> {
        let Some(name) = &method.secret_ref else {
            return Ok(None);
        };
        self.secrets.get(name, self.clock.now()).await.map_err(|error| {
            tracing::warn!(%error, "a secret cannot be read; trying again");
            ProviderError::Down
        })
    }

    /// Records what the provider reports on its own; false if some of it has to come again.
    pub(crate) async fn reports(&self) -> Result<bool, Stopped> {
        let Some(provider) = &self.provider else {
            return Ok(true);
        };
        let reports = match provider.reports(REPORTS).await {
            Ok(reports) => reports,
            Err(error) => {
                tracing::warn!(%error, "the provider's reports cannot be read; trying again");
                return Ok(false);
            }
        };
        let mut all = true;
        for report in reports {
            self.faults.visit(fault::AFTER_PROVIDER)?;
            if !self.report(&report).await? {
                all = false;
                continue;
            }
            self.faults.visit(fault::BEFORE_DONE)?;
            if let Err(error) = provider.acknowledge(&report).await {
                tracing::warn!(%error, "a report was not acknowledged and will come again");
                all = false;
            }
        }
        Ok(all)
    }

    /// Records one report; false if it could not be recorded now and has to come again.
    async fn report(&self, report: &Report) -> Result<bool, Stopped> {
        let call = Call {
            payment: report.payment,
            order: report.order,
            attempt: report.attempt,
            intent: Intent::Capture {
                attempt: report.attempt,
            },
        };
        let Some(fact) = call.fact(report.outcome.clone()) else {
            tracing::error!(?report, "a report that says nothing about a charge is left out");
            return Ok(true);
        };
        // A report that comes twice gets its first receipt.
        let seed = format!("{}/{}/{}", report.payment, report.attempt, report.id);
        let id = CommandId::from_uuid(derive_uuid("omisys/command/report", &[seed.as_bytes()]));
        let command = PolicyCommand {
            command_id: id,
            policy: REPORT,
            command: Command::Payment(report.payment, fact),
            if_refused: IfRefused::DeadLetter,
            creates: false,
        };
        match self.dispatcher.run(&Cause::of_report(id), command).await {
            Ok(()) => Ok(true),
            Err(Failure::Stopped(stopped)) => Err(stopped),
            Err(Failure::Later(reason) | Failure::Upgrade(reason) | Failure::Unforeseen(reason)) => {
                tracing::error!(?report, reason, "a report was not recorded and will come again");
                Ok(false)
            }
        }
    }
}

/// What the call is about: the whole attempt, or so much of it as the refund asks for.
fn amount_of(attempt: &Attempt, intent: Intent) -> Money {
    match intent {
        Intent::Refund { refund_id, .. } => attempt
            .refunds()
            .get(&refund_id)
            .map_or(attempt.amount(), |refund| refund.amount),
        Intent::Session { .. } | Intent::Capture { .. } | Intent::Void { .. } => attempt.amount(),
    }
}

/// The command that records `fact` as the answer to the intent `recorded`.
pub(crate) fn record(recorded: &RecordedEvent, payment: PaymentId, fact: PaymentCommand) -> PolicyCommand {
    PolicyCommand::new(recorded, EFFECT, 0, Command::Payment(payment, fact))
}
