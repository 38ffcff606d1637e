//! To the replicas of the command API, in batches. The replica that has an aggregate in memory gets its commands.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use upstreams::HttpPool;

use super::{COMMANDS_PATH, CommandOutcome, MAX_COMMANDS, Pending, SentCommand};

/// Commands that may wait to be posted.
const QUEUE: usize = 4_096;
/// Posts under way at once. Commands that come while all are gather into the next ones: a post costs several times what a
/// command in it does.
const POSTS: usize = 8;
/// Bytes of commands in one post; a single command may have more.
const POST_BYTES: usize = 1 << 20;
/// Bytes of an answer: a hundred outcomes.
const ANSWER_BYTES: usize = 4 << 20;

/// The way to the replicas of the command API. Clones share it; it ends with the last.
#[derive(Clone)]
pub struct RemoteCommands {
    queue: mpsc::Sender<Queued>,
}

struct Queued {
    /// The stream of its target.
    key: String,
    command: Box<RawValue>,
    reply: oneshot::Sender<CommandOutcome>,
}

/// What is posted.
#[derive(Serialize)]
struct Post<'a> {
    commands: Vec<&'a RawValue>,
}

/// What comes back, one for each, in order.
#[derive(Deserialize)]
struct Answer {
    outcomes: Vec<CommandOutcome>,
}

impl RemoteCommands {
    /// Sends to the replicas of `pool`, from a task of its own on the current runtime.
    pub fn start(pool: HttpPool) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool, queued));
        Self { queue }
    }

    pub(super) async fn send(&self, command: &SentCommand) -> Pending {
        let key = command.command.stream().to_string();
        let command = match serde_json::value::to_raw_value(command) {
            Ok(command) => command,
            Err(error) => {
                let reason = error.to_string();
                return Box::pin(std::future::ready(CommandOutcome::Failed { reason }));
            }
        };
        let (reply, answer) = oneshot::channel();
        // Should the task have ended, the answer below says so.
        let _ = self.queue.send(Queued { key, command, reply }).await;
        Box::pin(async move {
            let ended = |_| retry("commands are not sent any more");
            answer.await.unwrap_or_else(ended)
        })
    }
}

fn retry(reason: impl Into<String>) -> CommandOutcome {
    CommandOutcome::Retry {
        reason: reason.into(),
    }
}

async fn run(pool: HttpPool, mut queue: mpsc::Receiver<Queued>) {
    let posts = Arc::new(Semaphore::new(POSTS));
    let mut queued = Vec::new();
    loop {
        // First a place, then the commands: those that come meanwhile travel together.
        let Ok(first) = Arc::clone(&posts).acquire_owned().await else {
            return;
        };
        if queue.recv_many(&mut queued, QUEUE).await == 0 {
            return;
        }
        let mut place = Some(first);
        for batch in batches(queued.drain(..), |key| pool.owner(key)) {
            let place = match place.take() {
                Some(place) => place,
                None => match Arc::clone(&posts).acquire_owned().await {
                    Ok(place) => place,
                    Err(_) => return,
                },
            };
            let pool = pool.clone();
            tokio::spawn(async move {
                let _place = place;
                deliver(&pool, batch).await;
            });
        }
    }
}

/// By replica, in order, each of bounded size.
fn batches(
    queued: impl Iterator<Item = Queued>,
    owner: impl Fn(&str) -> Option<SocketAddr>,
) -> Vec<Vec<Queued>> {
    let mut full = Vec::new();
    let mut open: HashMap<Option<SocketAddr>, (usize, Vec<Queued>)> = HashMap::new();
    for command in queued {
        let bytes = command.command.get().len();
        let (held, batch) = open.entry(owner(&command.key)).or_default();
        if batch.len() >= MAX_COMMANDS || (!batch.is_empty() && *held + bytes > POST_BYTES) {
            full.push(std::mem::take(batch));
            *held = 0;
        }
        *held += bytes;
        batch.push(command);
    }
    full.extend(open.into_values().map(|(_, batch)| batch));
    full
}

/// Posts a batch and tells each command's sender its outcome. What has no outcome is to be tried again: under its id it
/// is done once, whatever became of this post.
async fn deliver(pool: &HttpPool, batch: Vec<Queued>) {
    let outcomes = match post(pool, &batch).await {
        Ok(outcomes) if outcomes.len() == batch.len() => outcomes,
        Ok(_) => vec![retry("not as many outcomes as commands"); batch.len()],
        Err(reason) => vec![retry(reason); batch.len()],
    };
    for (command, outcome) in batch.into_iter().zip(outcomes) {
        let outcome = match outcome {
            // Not of this process: it waits until the command API is upgraded.
            CommandOutcome::Upgrade { reason } => retry(reason),
            outcome => outcome,
        };
        // The sagas may have been cancelled meanwhile.
        let _ = command.reply.send(outcome);
    }
}

async fn post(pool: &HttpPool, batch: &[Queued]) -> Result<Vec<CommandOutcome>, String> {
    let key = batch.first().map(|command| command.key.as_str());
    let commands = batch.iter().map(|command| &*command.command).collect();
    let body = serde_json::to_vec(&Post { commands }).map_err(|error| error.to_string())?;
    let request = Request::post(COMMANDS_PATH)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answer = pool
        .request(key, request)
        .await
        .map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the command API answers {}", answer.status()));
    }
    let body = to_bytes(answer.into_body(), ANSWER_BYTES).await;
    let body = body.map_err(|error| error.to_string())?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(answer.outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(key: &str, bytes: usize) -> Queued {
        let command = serde_json::value::to_raw_value(&"x".repeat(bytes)).unwrap();
        Queued {
            key: key.to_owned(),
            command,
            reply: oneshot::channel().0,
        }
    }

    fn owner(key: &str) -> Option<SocketAddr> {
        let ours = key.starts_with("order");
        ours.then_some(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    #[test]
    fn a_batch_is_of_one_replica_in_order_and_bounded() {
        let many = (0..250).map(|n| queued(&format!("order/{n}"), 10));
        let few = (0..3).map(|n| queued(&format!("cart/{n}"), 10));
        let mut batches = batches(many.chain(few), owner);
        batches.sort_by_key(Vec::len);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 50, MAX_COMMANDS, MAX_COMMANDS]);
        for batch in &batches {
            let first = owner(&batch[0].key);
            assert!(batch.iter().all(|command| owner(&command.key) == first));
        }
        assert_eq!(batches[1][0].key, "order/200");
        assert_eq!(batches[1][49].key, "order/249");
    }

    #[test]
    fn large_commands_travel_alone() {
        let large = (0..3).map(|n| queued(&format!("order/{n}"), POST_BYTES));
        assert_eq!(batches(large, owner).len(), 3);
    }
}
