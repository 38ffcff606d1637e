//! Commands on aggregates in memory.

mod load;
mod op;
mod resident;
mod shard;

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aggregates::Decide;
use event_schemas::{AggregateId, CommandId, Version};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    AccessError, CommandRequest, ExecuteError, FindReceiptError, Fingerprints, Log, Receipt, Unavailable,
};
use op::{Execute, Find, Kind, Op, Read, ReadState};
use shard::{Message, Shard};

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
pub struct Executor<A: Decide>(Arc<Inner<A>>);

struct Inner<A: Decide> {
    shards: Vec<mpsc::UnboundedSender<Message<A>>>,
    /// One permit per operation, held until it is answered: what bounds mailboxes, queues and the journal alike.
    house: Arc<Semaphore>,
    hasher: RandomState,
}

impl<A: Decide> Clone for Executor<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The receipt to come. Dropping it does not withdraw the command.
#[must_use = "the receipt says whether the command was accepted"]
pub struct PendingReceipt<E>(Pending<E>);

enum Pending<E> {
    Shed,
    Answer(oneshot::Receiver<Result<Receipt, ExecuteError<E>>>),
}

impl<E> Unpin for PendingReceipt<E> {}

impl<E> Future for PendingReceipt<E> {
    type Output = Result<Receipt, ExecuteError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Pending::Shed => Poll::Ready(Err(ExecuteError::Overloaded)),
            Pending::Answer(answer) => Pin::new(answer).poll(cx).map(|answer| {
                // Nobody is left to answer after a shutdown.
                answer.unwrap_or(Err(ExecuteError::Unavailable(Unavailable::Closed)))
            }),
        }
    }
}

impl<A: Decide> Executor<A> {
    /// Starts the shards on the current Tokio runtime; they end with the last clone.
    pub fn start(log: &Log, options: &ExecutorOptions) -> Self {
        const {
            // Rust can't compare strings in constants yet; lengths catch what a copied impl would get wrong.
            assert!(
                A::TYPE.len() == A::AGGREGATE_TYPE.as_str().len(),
                "A::TYPE must be the name of A::AGGREGATE_TYPE"
            );
        }
        let count = options.shards.max(1);
        let shards = (0..count)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                tokio::spawn(Shard::new(log, options, count, &sender).run(receiver));
                sender
            })
            .collect();
        let permits = options.commands_in_house.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            shards,
            house: Arc::new(Semaphore::new(permits)),
            hasher: RandomState::new(),
        }))
    }

    /// Hands in a command now, in call order; [`ExecuteError::Overloaded`] if the house is full. For HTTP.
    pub fn submit(
        &self,
        id: impl Into<AggregateId>,
        request: CommandRequest<A::Command>,
    ) -> PendingReceipt<A::Error> {
        let Ok(permit) = Arc::clone(&self.0.house).try_acquire_owned() else {
            op::count::<A>(&Err(ExecuteError::Overloaded));
            return PendingReceipt(Pending::Shed);
        };
        let (reply, answer) = oneshot::channel();
        self.send(
            id.into(),
            Op::new(
                permit,
                false,
                Kind::Execute(Box::new(Execute::new(request, reply))),
            ),
        );
        PendingReceipt(Pending::Answer(answer))
    }

    /// Waits until there is room, then hands in the command. For sagas and imports, which want to be slowed down.
    pub async fn enqueue(
        &self,
        id: impl Into<AggregateId>,
        request: CommandRequest<A::Command>,
    ) -> PendingReceipt<A::Error> {
        let id = id.into();
        let Ok(permit) = Arc::clone(&self.0.house).acquire_owned().await else {
            return PendingReceipt(Pending::Shed);
        };
        let (reply, answer) = oneshot::channel();
        self.send(
            id,
            Op::new(
                permit,
                true,
                Kind::Execute(Box::new(Execute::new(request, reply))),
            ),
        );
        PendingReceipt(Pending::Answer(answer))
    }

    /// What `read` says about the aggregate, once all that it saw is durable and known to be current. `read` may run
    /// several times.
    pub async fn with_state<R, F>(&self, id: impl Into<AggregateId>, read: F) -> Result<R, AccessError>
    where
        R: Send + 'static,
        F: FnMut(&A, Version) -> R + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Box<dyn ReadState<A>> = Box::new(Read {
            look: read,
            seen: None,
            reply,
        });
        self.access(id.into(), Kind::Read(read))?;
        answer
            .await
            .unwrap_or(Err(AccessError::Unavailable(Unavailable::Closed)))
    }

    /// The aggregate as it is now; the default at version 0 if it has no events.
    pub async fn load(&self, id: impl Into<AggregateId>) -> Result<(A, Version), AccessError> {
        self.with_state(id, |state: &A, version| (state.clone(), version))
            .await
    }

    /// The receipt of `command_id`, behind all commands handed in before. A handler asks before it refuses.
    pub async fn find_receipt(
        &self,
        id: impl Into<AggregateId>,
        command_id: CommandId,
        fingerprints: &Fingerprints,
    ) -> Result<Option<Receipt>, FindReceiptError> {
        let (reply, answer) = oneshot::channel();
        let find = Find {
            command_id,
            fingerprints: fingerprints.clone(),
            reply,
        };
        self.access(id.into(), Kind::Find(Box::new(find)))?;
        answer
            .await
            .unwrap_or(Err(AccessError::Unavailable(Unavailable::Closed).into()))
    }

    fn access(&self, id: AggregateId, kind: Kind<A>) -> Result<(), AccessError> {
        let permit = Arc::clone(&self.0.house)
            .try_acquire_owned()
            .map_err(|_| AccessError::Overloaded)?;
        self.send(id, Op::new(permit, false, kind));
        Ok(())
    }

    fn send(&self, id: AggregateId, op: Op<A>) {
        let shard = self.0.hasher.hash_one(id.as_str()) as usize % self.0.shards.len();
        // A shard that is gone drops the operation, and with it the sender that its caller waits for.
        let _ = self.0.shards[shard].send(Message::Op { id, op });
    }
}
