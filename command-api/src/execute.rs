//! Running a command, and what its failures are to a client.

use std::sync::Arc;
use std::time::Duration;

use aggregates::Decide;
use event_schemas::{AggregateId, RecordedEvent, Version};
use event_store::{
    AccessError, CommandRequest, ExecuteError, Executor, FindReceiptError, ReadError, Receipt, Unavailable,
    UnreadableReason,
};
use http_conventions::Problem;

use crate::call::{Call, Route};
use crate::state::CommandApi;

const SHED_FOR: Duration = Duration::from_secs(1);
const DOWN_FOR: Duration = Duration::from_secs(5);

/// An aggregate's error as a client sees it. One exhaustive match per error enum.
pub(crate) trait Refusal {
    fn problem(self) -> Problem;
}

/// Runs what `prepared` says on the aggregate `id`.
///
/// A refusal, wherever it comes from, is answered only if the command has not been accepted before: what has happened
/// since (a new price, a spent limit, another version) must not turn a repeat into a refusal.
pub(crate) async fn execute<A: Decide, R: Route>(
    executor: &Executor<A>,
    id: impl Into<AggregateId>,
    call: &Call<R>,
    prepared: Result<A::Command, Problem>,
) -> Result<Receipt, Problem>
where
    A::Error: Refusal,
{
    let id = id.into();
    match prepared {
        Ok(command) => submit(executor, id, call.request(command)).await,
        Err(refusal) => earlier_or(executor, id, call, refusal).await,
    }
}

/// Submits a complete request. (The executor itself looks for an earlier receipt before it refuses.)
pub(crate) async fn submit<A: Decide>(
    executor: &Executor<A>,
    id: impl Into<AggregateId>,
    request: CommandRequest<A::Command>,
) -> Result<Receipt, Problem>
where
    A::Error: Refusal,
{
    executor.submit(id, request).await.map_err(problem)
}

/// The receipt of this call if it was accepted before, else `refusal`.
pub(crate) async fn earlier_or<A: Decide, R: Route>(
    executor: &Executor<A>,
    id: impl Into<AggregateId>,
    call: &Call<R>,
    refusal: Problem,
) -> Result<Receipt, Problem> {
    // If that cannot be said, the call is not known to be refused, and not said to be.
    earlier(executor, id, call).await?.ok_or(refusal)
}

/// The receipt of this call if it was accepted before.
pub(crate) async fn earlier<A: Decide, R: Route>(
    executor: &Executor<A>,
    id: impl Into<AggregateId>,
    call: &Call<R>,
) -> Result<Option<Receipt>, Problem> {
    if !call.keyed {
        return Ok(None);
    }
    match executor
        .find_receipt(id, call.command_id, &call.fingerprints)
        .await
    {
        Ok(found) => Ok(found.map(|receipt| Receipt {
            replayed: true,
            ..receipt
        })),
        Err(FindReceiptError::KeyReused) => Err(Problem::key_reused()),
        Err(FindReceiptError::Access(error)) => Err(access_problem(error)),
    }
}

/// What a failed command is to a client.
pub(crate) fn problem<E: Refusal>(error: ExecuteError<E>) -> Problem {
    match error {
        ExecuteError::Refused(refusal) => refusal.problem(),
        ExecuteError::KeyReused => Problem::key_reused(),
        ExecuteError::VersionMismatch { actual } => Problem::precondition_failed(actual),
        ExecuteError::Conflict => access_problem(AccessError::Conflict),
        ExecuteError::Overloaded => access_problem(AccessError::Overloaded),
        ExecuteError::Unavailable(error) => unavailable(&error),
    }
}

/// What an aggregate that cannot be read is to a client.
pub(crate) fn access_problem(error: AccessError) -> Problem {
    match error {
        AccessError::Conflict => Problem::conflict("concurrent-change", "Changed at the same time")
            .detail("others kept changing the same thing; try again with the same Idempotency-Key")
            .retry_after(SHED_FOR),
        AccessError::Overloaded => Problem::unavailable("too many commands are waiting", SHED_FOR),
        AccessError::Unavailable(error) => unavailable(&error),
    }
}

/// What a log that cannot be read is to a client.
pub(crate) fn read_problem(error: &ReadError) -> Problem {
    match error {
        ReadError::Store(_) => Problem::unavailable(error, DOWN_FOR),
        ReadError::Unreadable(event) if event.reason == UnreadableReason::Newer => {
            Problem::unavailable(error, DOWN_FOR)
        }
        ReadError::Unfinished | ReadError::Unreadable(_) => Problem::internal(error),
    }
}

impl CommandApi {
    /// The last event of the accepted command that `receipt` is for.
    pub(crate) async fn recorded(&self, receipt: &Receipt) -> Result<Arc<RecordedEvent>, Problem> {
        let before = Version(receipt.version.0.saturating_sub(1));
        let read = self
            .services
            .log
            .read_stream(&receipt.stream, before, Some(receipt.version))
            .await;
        let last = read.map_err(|error| read_problem(&error))?.pop();
        last.ok_or_else(|| Problem::internal("an accepted command has no event"))
    }
}

fn unavailable(error: &Unavailable) -> Problem {
    if let Unavailable::TooLarge { max, .. } = error {
        return Problem::refused("event-too-large", "Too much for one event").detail(format!(
            "what would be recorded of this exceeds {max} bytes; split it"
        ));
    }
    if error.retryable() {
        Problem::unavailable(error, DOWN_FOR)
    } else {
        Problem::internal(error)
    }
}
