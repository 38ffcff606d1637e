//! Commands of policies on their way to the executors, and what becomes of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use event_schemas::{Actor, CommandId, CorrelationId, EventId, RecordedEvent, Version};
use event_store::{CommandRequest, ExecuteError, Executors, Fingerprints, Receipt};
use tokio_util::sync::CancellationToken;

use crate::config::Backoff;
use crate::fault::{self, Died, Faults};
use crate::policies::{Command, IfRefused, PolicyCommand, Refusal, Refused};

type Outcome = Result<Receipt, ExecuteError<Refused>>;

/// A command that has been handed in.
pub(crate) struct Pending(Pin<Box<dyn Future<Output = Outcome> + Send>>);

/// Why a command of a policy did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The aggregate is busy with something that takes its time: the policy has to run again later.
    #[error("{0}")]
    Later(String),
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
    executors: Executors,
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
        executors: Executors,
        backoff: Backoff,
        cancel: CancellationToken,
        faults: Faults,
    ) -> Self {
        Self {
            executors,
            backoff,
            cancel,
            faults,
            actors: Arc::default(),
        }
    }

    pub(crate) fn executors(&self) -> &Executors {
        &self.executors
    }

    /// Hands `command` in, in call order per target, waiting for room if need be.
    pub(crate) async fn enqueue(&self, cause: &Cause, command: &PolicyCommand) -> Pending {
        self.hand_in(cause, command, command.creates).await
    }

    /// `creates`: the target is expected not to exist, which spares the executor a look.
    async fn hand_in(&self, cause: &Cause, policy: &PolicyCommand, creates: bool) -> Pending {
        macro_rules! enqueue {
            ($executor:ident, $refused:path, $id:expr, $command:expr) => {{
                let request = CommandRequest {
                    command_id: policy.command_id,
                    fingerprints: Fingerprints::none(),
                    actor: self.actor(policy.policy),
                    correlation_id: cause.correlation_id,
                    causation: cause.event.clone(),
                    traceparent: cause.traceparent.clone(),
                    expected_version: creates.then_some(Version(0)),
                    command: $command.clone(),
                };
                let pending = self.executors.$executor.enqueue($id, request).await;
                Pending(Box::pin(async move {
                    pending.await.map_err(|error| map_refusal(error, $refused))
                }))
            }};
        }
        match &policy.command {
            Command::Inventory(sku, command) => enqueue!(inventory, Refused::Inventory, sku, command),
            Command::Cart(id, command) => enqueue!(carts, Refused::Cart, *id, command),
            Command::Order(id, command) => enqueue!(orders, Refused::Order, *id, command),
            Command::Payment(id, command) => enqueue!(payments, Refused::Payment, *id, command),
        }
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
            let Err(error) = pending.0.await else {
                return Ok(());
            };
            match error {
                ExecuteError::Refused(refused) => {
                    let Some(then) = branch(command, &refused)? else {
                        return Ok(());
                    };
                    self.faults.visit(fault::AFTER_REFUSAL).map_err(Stopped::Died)?;
                    command = then;
                    tries = 0;
                }
                // It was there already: by the same command in another hand, or by a `Close` that came first.
                ExecuteError::VersionMismatch { .. } => {}
                error if error.retryable() => {
                    tries += 1;
                    tracing::warn!(%error, cause = ?cause.event, command = command.command.name(), "trying again");
                    tokio::select! {
                        () = tokio::time::sleep(self.backoff.after(tries)) => {}
                        () = self.cancel.cancelled() => return Err(Stopped::Cancelled.into()),
                    }
                }
                error => {
                    return Err(Failure::Unforeseen(format!(
                        "{}: {error}",
                        command.command.name()
                    )));
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
fn branch(command: PolicyCommand, refused: &Refused) -> Result<Option<PolicyCommand>, Failure> {
    let foreseen = |with: &[Refusal]| refused.foreseen().is_some_and(|refusal| with.contains(&refusal));
    let name = command.command.name();
    match command.if_refused {
        IfRefused::Nothing { with } if foreseen(with) => Ok(None),
        IfRefused::Then { with, then } if foreseen(with) => Ok(Some(*then)),
        _ if refused.later() => Err(Failure::Later(format!("{name}: {refused}"))),
        _ => Err(Failure::Unforeseen(format!("{name}: {refused}"))),
    }
}

fn map_refusal<E>(error: ExecuteError<E>, refused: impl FnOnce(E) -> Refused) -> ExecuteError<Refused> {
    match error {
        ExecuteError::Refused(error) => ExecuteError::Refused(refused(error)),
        ExecuteError::KeyReused => ExecuteError::KeyReused,
        ExecuteError::VersionMismatch { actual } => ExecuteError::VersionMismatch { actual },
        ExecuteError::Conflict => ExecuteError::Conflict,
        ExecuteError::Overloaded => ExecuteError::Overloaded,
        ExecuteError::Unavailable(error) => ExecuteError::Unavailable(error),
    }
}
