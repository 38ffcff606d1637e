//! Commands on aggregates in memory.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use aggregates::Decide;
use event_schemas::{AggregateId, CommandId, Version};

use crate::{AccessError, CommandRequest, ExecuteError, FindReceiptError, Fingerprints, Log, Receipt};

/// Sizes of an executor.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Tasks that decide; an aggregate always belongs to the same one.
    pub shards: usize,
    /// Aggregates kept in memory, all shards together.
    pub cached_aggregates: usize,
    /// Commands that may be waiting or under way, all shards together.
    pub commands_in_house: usize,
    /// Commands that may wait for one aggregate while it is loaded, before `submit` sheds.
    pub commands_per_loading_aggregate: usize,
    /// How often a command is decided again because others wrote to its aggregate.
    pub max_retries: u32,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self {
            shards: 4,
            cached_aggregates: 8_192,
            commands_in_house: 8_192,
            commands_per_loading_aggregate: 1_024,
            max_retries: 8,
        }
    }
}

/// Runs commands on the aggregates of one type: one at a time per aggregate, in the order of the calls. Cheap to clone.
pub struct Executor<A: Decide>(PhantomData<fn() -> A>);

impl<A: Decide> Clone for Executor<A> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// The receipt to come. Dropping it does not withdraw the command.
pub struct PendingReceipt<E>(PhantomData<fn() -> E>);

impl<E> Future for PendingReceipt<E> {
    type Output = Result<Receipt, ExecuteError<E>>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

impl<A: Decide> Executor<A> {
    /// Starts the shards on the current Tokio runtime; they end with the last clone.
    pub fn start(_log: &Log, _options: &ExecutorOptions) -> Self {
        todo!()
    }

    /// Hands in a command now, in call order; [`ExecuteError::Overloaded`] if the house is full. For HTTP.
    pub fn submit(
        &self,
        _id: impl Into<AggregateId>,
        _request: CommandRequest<A::Command>,
    ) -> PendingReceipt<A::Error> {
        todo!()
    }

    /// Waits until there is room, then hands in the command. For sagas and imports, which want to be slowed down.
    #[allow(clippy::unused_async)]
    pub async fn enqueue(
        &self,
        _id: impl Into<AggregateId>,
        _request: CommandRequest<A::Command>,
    ) -> PendingReceipt<A::Error> {
        todo!()
    }

    /// What `read` says about the aggregate, once all that it saw is durable and known to be current. `read` may run
    /// several times.
    pub async fn with_state<R, F>(&self, _id: impl Into<AggregateId>, _read: F) -> Result<R, AccessError>
    where
        R: Send + 'static,
        F: FnMut(&A, Version) -> R + Send + 'static,
    {
        todo!()
    }

    /// The aggregate as it is now; the default at version 0 if it has no events.
    pub async fn load(&self, _id: impl Into<AggregateId>) -> Result<(A, Version), AccessError> {
        todo!()
    }

    /// The receipt of `command_id`, behind all commands handed in before. A handler asks before it refuses.
    pub async fn find_receipt(
        &self,
        _id: impl Into<AggregateId>,
        _command_id: CommandId,
        _fingerprints: &Fingerprints,
    ) -> Result<Option<Receipt>, FindReceiptError> {
        todo!()
    }
}
