//! What callers ask of a shard.

use aggregates::Decide;
use event_schemas::{CommandId, StreamId, Version};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use crate::journal::StoredReceipt;
use crate::{
    AccessError, CommandRequest, ExecuteError, FindReceiptError, Fingerprints, Receipt, Unavailable, traced,
};

/// An operation with its place in the house.
pub(super) struct Op<A: Decide> {
    /// Its place among the shard's operations: a retried one goes back to where it was.
    pub(super) ticket: u64,
    /// How often it was decided on what turned out not to be so.
    pub(super) attempts: u32,
    /// Its caller waits rather than be shed.
    pub(super) patient: bool,
    pub(super) kind: Kind<A>,
    _permit: OwnedSemaphorePermit,
}

/// Boxed, so that an operation moves cheaply from hand to hand.
pub(super) enum Kind<A: Decide> {
    Execute(Box<Execute<A>>),
    Read(Box<dyn ReadState<A>>),
    Find(Box<Find>),
}

pub(super) struct Execute<A: Decide> {
    pub(super) request: CommandRequest<A::Command>,
    /// Ends with the answer.
    _span: Span,
    pub(super) reply: oneshot::Sender<Result<Receipt, ExecuteError<A::Error>>>,
}

impl<A: Decide> Execute<A> {
    pub(super) fn new(
        request: CommandRequest<A::Command>,
        reply: oneshot::Sender<Result<Receipt, ExecuteError<A::Error>>>,
    ) -> Self {
        let span = traced(request.traceparent.as_deref()).map_or_else(Span::none, |traceparent| {
            let command = A::command_name(&request.command);
            tracing::info_span!(
                "command",
                traceparent,
                aggregate = A::AGGREGATE_TYPE.as_str(),
                command
            )
        });
        Self {
            request,
            _span: span,
            reply,
        }
    }
}

pub(super) struct Find {
    pub(super) command_id: CommandId,
    pub(super) fingerprints: Fingerprints,
    pub(super) reply: oneshot::Sender<Result<Option<Receipt>, FindReceiptError>>,
}

impl<A: Decide> Execute<A> {
    /// Answers, and counts the command.
    pub(super) fn answer(self, outcome: Result<Receipt, ExecuteError<A::Error>>) {
        count::<A>(&outcome);
        // Whoever asked may have gone.
        let _ = self.reply.send(outcome);
    }
}

/// Counts a command by what became of it.
pub(super) fn count<A: Decide>(outcome: &Result<Receipt, ExecuteError<A::Error>>) {
    let outcome = match outcome {
        Ok(receipt) if receipt.replayed => "replayed",
        Ok(_) => "accepted",
        Err(ExecuteError::Refused(_)) => "refused",
        Err(ExecuteError::KeyReused) => "key_reused",
        Err(ExecuteError::VersionMismatch { .. }) => "version_mismatch",
        Err(ExecuteError::Conflict) => "conflict",
        Err(ExecuteError::Overloaded) => "overloaded",
        Err(ExecuteError::Unavailable(_)) => "unavailable",
    };
    let aggregate = A::AGGREGATE_TYPE.as_str();
    metrics::counter!("omisys_commands_total", "aggregate" => aggregate, "outcome" => outcome).increment(1);
}

impl<A: Decide> Op<A> {
    pub(super) fn new(permit: OwnedSemaphorePermit, patient: bool, kind: Kind<A>) -> Self {
        Self {
            ticket: 0,
            attempts: 0,
            patient,
            kind,
            _permit: permit,
        }
    }

    /// Of a command to be executed.
    pub(super) fn command_id(&self) -> Option<CommandId> {
        match &self.kind {
            Kind::Execute(execute) => Some(execute.request.command_id),
            Kind::Read(_) | Kind::Find(_) => None,
        }
    }

    /// Answers that it could not be done.
    pub(super) fn fail(self, error: AccessError) {
        // Whoever asked may have gone.
        match self.kind {
            Kind::Execute(execute) => execute.answer(Err(error.into())),
            Kind::Read(read) => read.fail(error),
            Kind::Find(find) => {
                let _ = find.reply.send(Err(error.into()));
            }
        }
    }

    /// Answers with what the log holds under the command's id.
    pub(super) fn replay(self, stream: StreamId, stored: &StoredReceipt) {
        match self.kind {
            Kind::Execute(execute) => {
                let same = execute.request.fingerprints.matches(stored.fingerprint.as_ref());
                execute.answer(if same {
                    Ok(stored.replayed(stream))
                } else {
                    Err(ExecuteError::KeyReused)
                });
            }
            Kind::Find(find) => {
                let same = find.fingerprints.matches(stored.fingerprint.as_ref());
                let _ = find.reply.send(if same {
                    Ok(Some(stored.replayed(stream)))
                } else {
                    Err(FindReceiptError::KeyReused)
                });
            }
            Kind::Read(read) => {
                read.fail(AccessError::Unavailable(Unavailable::Defect(
                    "a read was given a receipt",
                )));
            }
        }
    }
}

/// A read of an aggregate's state that can be repeated.
pub(super) trait ReadState<A>: Send {
    fn see(&mut self, state: &A, version: Version);
    /// What was seen last holds.
    fn answer(self: Box<Self>);
    fn fail(self: Box<Self>, error: AccessError);
}

pub(super) struct Read<F, R> {
    pub(super) look: F,
    pub(super) seen: Option<R>,
    pub(super) reply: oneshot::Sender<Result<R, AccessError>>,
}

impl<A, F, R> ReadState<A> for Read<F, R>
where
    F: FnMut(&A, Version) -> R + Send,
    R: Send,
{
    fn see(&mut self, state: &A, version: Version) {
        self.seen = Some((self.look)(state, version));
    }

    fn answer(self: Box<Self>) {
        let Self { seen, reply, .. } = *self;
        let _ = reply.send(seen.ok_or(AccessError::Unavailable(Unavailable::Defect(
            "a read was answered before it saw",
        ))));
    }

    fn fail(self: Box<Self>, error: AccessError) {
        let _ = self.reply.send(Err(error));
    }
}
