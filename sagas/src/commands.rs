//! Commands of policies on their way to their aggregates: to the executors of this process, or to the process that has
//! the aggregate in memory. The log keeps both right; the way is a matter of speed.

#[cfg(feature = "cluster")]
mod remote;

use std::pin::Pin;
use std::sync::Arc;

use event_schemas::{Actor, CommandId, CorrelationId, EventId, Version};
use event_store::{
    CommandRequest, ExecuteError, Executors, Fingerprints, Receipt, Unavailable, UnreadableReason,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::policies::{Command, Refusal, Refused};

#[cfg(feature = "cluster")]
pub use remote::RemoteCommands;

/// Where commands are posted to.
pub const COMMANDS_PATH: &str = "/internal/commands";
/// The most commands of one post.
pub const MAX_COMMANDS: usize = 100;
/// The most bytes of one post: more than any event of the log may have, many times over.
pub const MAX_BYTES: usize = 16 << 20;

/// Where commands of policies go.
#[derive(Clone)]
pub enum CommandSender {
    /// To the executors of this process.
    Local(Executors),
    /// To the replicas of the command API, by aggregate.
    #[cfg(feature = "cluster")]
    Remote(RemoteCommands),
}

impl From<Executors> for CommandSender {
    fn from(executors: Executors) -> Self {
        Self::Local(executors)
    }
}

/// A command of a policy, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentCommand {
    pub command_id: CommandId,
    /// In whose name.
    pub actor: Actor,
    pub correlation_id: CorrelationId,
    /// The event that it follows from.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub causation: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// The target is expected not to exist, which spares a look.
    #[serde(default)]
    pub creates: bool,
    pub command: Command,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CommandOutcome {
    /// It has its receipt, now or from before.
    Accepted,
    /// The aggregate refuses.
    Refused {
        /// What a policy would call the refusal; none if no policy foresees it.
        #[serde(default, deserialize_with = "known")]
        foreseen: Option<Refusal>,
        /// Whether it may be accepted later without anyone doing anything else.
        later: bool,
        reason: String,
    },
    /// The target was expected not to exist, but it does.
    Exists,
    /// It may succeed later, under the same id.
    Retry { reason: String },
    /// The aggregate has an event of a newer binary than the one that executes: that one has to be upgraded first.
    Upgrade { reason: String },
    /// It never will.
    Failed { reason: String },
}

/// What is still to come of a command that was handed in.
pub(crate) type Pending = Pin<Box<dyn Future<Output = CommandOutcome> + Send>>;

impl SentCommand {
    /// Hands the command in, in call order per target, waiting for room if need be. The future it resolves to sees the
    /// command through; dropping it does not take the command back.
    pub async fn enqueue(self, executors: &Executors) -> impl Future<Output = CommandOutcome> + Send + use<> {
        let Self {
            command_id,
            actor,
            correlation_id,
            causation,
            traceparent,
            creates,
            command,
        } = self;
        macro_rules! enqueue {
            ($executor:ident, $refused:path, $id:expr, $command:expr) => {{
                let request = CommandRequest {
                    command_id,
                    fingerprints: Fingerprints::none(),
                    actor,
                    correlation_id,
                    causation,
                    traceparent,
                    expected_version: creates.then_some(Version(0)),
                    command: $command,
                };
                let pending = executors.$executor.enqueue($id, request).await;
                Box::pin(async move { CommandOutcome::of(pending.await, $refused) }) as Pending
            }};
        }
        match command {
            Command::Inventory(sku, command) => enqueue!(inventory, Refused::Inventory, &sku, command),
            Command::Cart(id, command) => enqueue!(carts, Refused::Cart, id, command),
            Command::Order(id, command) => enqueue!(orders, Refused::Order, id, command),
            Command::Payment(id, command) => enqueue!(payments, Refused::Payment, id, command),
        }
    }
}

impl CommandOutcome {
    fn of<E>(outcome: Result<Receipt, ExecuteError<E>>, refused: impl FnOnce(E) -> Refused) -> Self
    where
        E: std::fmt::Display,
    {
        match outcome {
            Ok(_) => Self::Accepted,
            Err(ExecuteError::Refused(error)) => {
                let refused = refused(error);
                Self::Refused {
                    foreseen: refused.foreseen(),
                    later: refused.later(),
                    reason: refused.to_string(),
                }
            }
            Err(ExecuteError::VersionMismatch { .. }) => Self::Exists,
            Err(ExecuteError::Unavailable(Unavailable::Unreadable(event)))
                if event.reason == UnreadableReason::Newer =>
            {
                Self::Upgrade {
                    reason: event.to_string(),
                }
            }
            Err(error) if error.retryable() => Self::Retry {
                reason: error.to_string(),
            },
            Err(error) => Self::Failed {
                reason: error.to_string(),
            },
        }
    }
}

impl CommandSender {
    /// Hands the command in, waiting for room if need be.
    pub(crate) async fn send(&self, command: SentCommand) -> Pending {
        match self {
            Self::Local(executors) => Box::pin(command.enqueue(executors).await),
            #[cfg(feature = "cluster")]
            Self::Remote(remote) => remote.send(&command).await,
        }
    }
}

/// A refusal that only a newer binary knows is one that nobody here foresees.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Refusal>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.and_then(|name| serde_json::from_value(name.into()).ok()))
}

mod as_text {
    use event_schemas::EventId;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(id: &Option<EventId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<EventId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use aggregates::inventory::InventoryCommand;
    use event_schemas::{OrderId, Sku, derive_uuid};

    use super::*;

    #[test]
    fn a_command_is_sent_as_it_is() {
        let command = CommandId::from_uuid(derive_uuid("test", &[]));
        let reserve = InventoryCommand::Reserve {
            order_id: OrderId::for_command(command),
            quantity: 2,
        };
        let target = Command::Inventory(Sku::new("MUG").unwrap(), reserve);
        let sent = SentCommand {
            command_id: command,
            actor: Actor::system("reserve-stock"),
            correlation_id: CorrelationId::for_command(command),
            causation: Some(EventId {
                stream: target.stream(),
                version: Version(3),
            }),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            creates: true,
            command: target,
        };
        let text = serde_json::to_string(&sent).unwrap();
        assert!(text.contains(r#""causation":"inventory/MUG/3""#), "{text}");
        assert_eq!(serde_json::from_str::<SentCommand>(&text).unwrap(), sent);
        let bare = SentCommand {
            causation: None,
            traceparent: None,
            ..sent
        };
        let text = serde_json::to_string(&bare).unwrap();
        assert_eq!(serde_json::from_str::<SentCommand>(&text).unwrap(), bare);
    }

    #[test]
    fn an_outcome_says_which_refusal_it_is_and_unknown_ones_are_unforeseen() {
        let refused = CommandOutcome::Refused {
            foreseen: Some(Refusal::PaidByAnotherAttempt),
            later: false,
            reason: "paid".to_owned(),
        };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<CommandOutcome>(&text).unwrap(), refused);
        let newer = text.replace("PaidByAnotherAttempt", "SomethingNew");
        let unforeseen = serde_json::from_str::<CommandOutcome>(&newer).unwrap();
        assert!(matches!(
            unforeseen,
            CommandOutcome::Refused { foreseen: None, .. }
        ));
    }
}
