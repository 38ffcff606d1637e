//! Reading an aggregate while its commands wait and the others go on.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::Decide;
use event_schemas::{AggregateId, CommandId, StreamId, Version};
use tokio::sync::mpsc;

use super::shard::Message;
use crate::Unavailable;
use crate::journal::StoredReceipt;
use crate::streams::Streams;

/// What a load is asked for.
pub(super) struct Load<A> {
    pub(super) id: AggregateId,
    /// Comes back with the answer.
    pub(super) number: u64,
    pub(super) base: Option<(A, Version)>,
    /// Commands to look up, so that repeats among those that wait are answered and not decided.
    pub(super) command_ids: Vec<CommandId>,
}

/// What a load found.
pub(super) struct Loaded<A> {
    pub(super) state: A,
    pub(super) version: Version,
    pub(super) receipts: HashMap<CommandId, StoredReceipt>,
}

/// Reads on a task of its own and reports to `mailbox`.
pub(super) fn spawn<A: Decide>(
    streams: Arc<Streams>,
    load: Load<A>,
    mailbox: mpsc::UnboundedSender<Message<A>>,
) {
    let Load {
        id,
        number,
        base,
        command_ids,
    } = load;
    let mut report = Report {
        mailbox,
        id,
        number,
        sent: false,
    };
    tokio::spawn(async move {
        let loaded = read(&streams, &report.id, base, command_ids).await;
        report.send(loaded);
    });
}

async fn read<A: Decide>(
    streams: &Streams,
    id: &AggregateId,
    base: Option<(A, Version)>,
    command_ids: Vec<CommandId>,
) -> Result<Loaded<A>, Unavailable> {
    let stream = StreamId {
        aggregate_type: A::AGGREGATE_TYPE,
        aggregate_id: id.clone(),
    };
    let receipts = streams.receipts(stream, command_ids).await?;
    let (state, version) = streams.load::<A>(id, base).await?;
    Ok(Loaded {
        state,
        version,
        receipts,
    })
}

/// Reports a load, also when it ends otherwise than it should: the aggregate's commands wait for it.
struct Report<A: Decide> {
    mailbox: mpsc::UnboundedSender<Message<A>>,
    id: AggregateId,
    number: u64,
    sent: bool,
}

impl<A: Decide> Report<A> {
    fn send(&mut self, loaded: Result<Loaded<A>, Unavailable>) {
        self.sent = true;
        let id = self.id.clone();
        // A shard that is gone has nobody left to tell.
        let _ = self.mailbox.send(Message::Loaded {
            id,
            load: self.number,
            loaded: loaded.map(Box::new),
        });
    }
}

impl<A: Decide> Drop for Report<A> {
    fn drop(&mut self) {
        if !self.sent {
            self.send(Err(Unavailable::Defect("a load was given up")));
        }
    }
}
