//! Commands of policies: given in whose name and why, tried again, and what follows from a refusal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use event_schemas::{Actor, CommandId, CorrelationId, EventId, RecordedEvent};
use tokio_util::sync::CancellationToken;

use crate::commands::{CommandOutcome, CommandSender, Pending, SentCommand};
use crate::config::Backoff;
use crate::fault::{self, Died, Faults};
use crate::policies::{IfRefused, PolicyCommand, Refusal};

/// Why a command of a policy did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The aggregate is busy with something that takes its time: the policy has to run again later.
    #[error("{0}")]
    Later(String),
    /// The aggregate has an event that a newer binary wrote. No dead letter: whoever follows the stream stops.
    #[error("{0}")]
    Upgrade(String),
    /// Nobody foresaw this: a dead letter.
    #[error("{0}")]
    Unforeseen(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The sagas are shutting down, or a test has killed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("the sagas are shutting down")]
    Cancelled,
    #[error(transparent)]
    Died(#[from] Died),
}

/// Hands commands in. Clones share everything.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    sender: CommandSender,
    backoff: Backoff,
    cancel: CancellationToken,
    faults: Faults,
    /// One actor per policy: they are asked for with every command.
    actors: Arc<Mutex<HashMap<&'static str, Actor>>>,
}

/// Why and in whose name a command is given.
#[derive(Clone)]
pub(crate) struct Cause {
    /// None for what the provider reports on its own.
    event: Option<EventId>,
    correlation_id: CorrelationId,
    traceparent: Option<Arc<str>>,
}

impl Cause {
    /// The provider said so, and nobody asked.
    pub(crate) const fn of_report(command: CommandId) -> Self {
        Self {
            event: None,
            correlation_id: CorrelationId::for_command(command),
            traceparent: None,
        }
    }
}

impl From<&RecordedEvent> for Cause {
    fn from(recorded: &RecordedEvent) -> Self {
        Self {
            event: Some(recorded.id()),
            correlation_id: recorded.metadata.correlation_id,
            traceparent: recorded.metadata.traceparent.clone(),
        }
    }
}

impl Dispatcher {
    pub(crate) fn new(
        sender: CommandSender,
        backoff: Backoff,
        cancel: CancellationToken,
        faults: Faults,
    ) -> Self {
        Self {
            sender,
            backoff,
            cancel,
            faults,
            actors: Arc::default(),
        }
    }

    pub(crate) fn sender(&self) -> &CommandSender {
        &self.sender
    }

    /// Hands `command` in, in call order per target, waiting for room if need be.
    pub(crate) async fn enqueue(&self, cause: &Cause, command: &PolicyCommand) -> Pending {
        self.hand_in(cause, command, command.creates).await
    }

    /// `creates`: the target is expected not to exist, which spares the executor a look.
    async fn hand_in(&self, cause: &Cause, policy: &PolicyCommand, creates: bool) -> Pending {
        let command = SentCommand {
            command_id: policy.command_id,
            actor: self.actor(policy.policy),
            correlation_id: cause.correlation_id,
            causation: cause.event.clone(),
            traceparent: cause.traceparent.clone(),
            creates,
            command: policy.command.clone(),
        };
        self.sender.send(command).await
    }

    /// Sees `command` through: tries again what may be tried again, takes the foreseen branch of a refusal.
    pub(crate) async fn follow(
        &self,
        cause: &Cause,
        mut command: PolicyCommand,
        mut pending: Pending,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let (policy, name) = (command.policy, command.command.name());
            match pending.await {
                CommandOutcome::Accepted => {
                    count(policy, "accepted");
                    return Ok(());
                }
                CommandOutcome::Refused {
                    foreseen,
                    later,
                    reason,
                } => {
                    let Some(then) = branch(command, foreseen, later, &reason)? else {
                        return Ok(());
                    };
                    self.faults.visit(fault::AFTER_REFUSAL).map_err(Stopped::Died)?;
                    command = then;
                    tries = 0;
                }
                // It was there already: by the same command in another hand, or by a `Close` that came first.
                CommandOutcome::Exists => {}
                CommandOutcome::Retry { reason } => {
                    count(policy, "retried");
                    tries += 1;
                    tracing::warn!(reason, cause = ?cause.event, command = name, "trying again");
                    tokio::select! {
                        () = tokio::time::sleep(self.backoff.after(tries)) => {}
                        () = self.cancel.cancelled() => return Err(Stopped::Cancelled.into()),
                    }
                }
                CommandOutcome::Upgrade { reason } => {
                    return Err(Failure::Upgrade(format!("{name}: {reason}")));
                }
                CommandOutcome::Failed { reason } => {
                    count(policy, "failed");
                    return Err(Failure::Unforeseen(format!("{name}: {reason}")));
                }
            }
            pending = self.hand_in(cause, &command, false).await;
        }
    }

    /// Hands `command` in and sees it through.
    pub(crate) async fn run(&self, cause: &Cause, command: PolicyCommand) -> Result<(), Failure> {
        let pending = self.enqueue(cause, &command).await;
        self.follow(cause, command, pending).await
    }

    fn actor(&self, policy: &'static str) -> Actor {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        actors
            .entry(policy)
            .or_insert_with(|| Actor::system(policy))
            .clone()
    }
}

/// What the table says about this refusal: none if nothing has to be done.
fn branch(
    command: PolicyCommand,
    foreseen: Option<Refusal>,
    later: bool,
    reason: &str,
) -> Result<Option<PolicyCommand>, Failure> {
    let (policy, name) = (command.policy, command.command.name());
    let is_foreseen = |with: &[Refusal]| foreseen.is_some_and(|refusal| with.contains(&refusal));
    match command.if_refused {
        IfRefused::Nothing { with } if is_foreseen(with) => {
            count(policy, "moot");
            Ok(None)
        }
        IfRefused::Then { with, then } if is_foreseen(with) => {
            count(policy, "branched");
            Ok(Some(*then))
        }
        _ if later => {
            count(policy, "later");
            Err(Failure::Later(format!("{name}: {reason}")))
        }
        _ => {
            count(policy, "failed");
            Err(Failure::Unforeseen(format!("{name}: {reason}")))
        }
    }
}

fn count(policy: &'static str, outcome: &'static str) {
    metrics::counter!("omisys_saga_steps_total", "policy" => policy, "outcome" => outcome).increment(1);
}
