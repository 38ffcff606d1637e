//! What a policy asks for.

use std::fmt;
use std::str::FromStr;

use aggregates::cart::{CartCommand, CartError};
use aggregates::inventory::{InventoryCommand, InventoryError};
use aggregates::order::{OrderCommand, OrderError};
use aggregates::payment::{PaymentCommand, PaymentError};
use event_schemas::{
    AggregateId, AggregateType, CartId, CommandId, OrderId, PaymentId, RecordedEvent, Sku, StreamId,
    Timestamp,
};
use serde::{Deserialize, Serialize};

/// One thing that follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Command(PolicyCommand),
    /// At `due_at`, [`super::react_to_timer`] says what follows.
    Timer {
        kind: TimerKind,
        due_at: Timestamp,
    },
    /// Timers of this kind that earlier events of the stream have set need not fire any more.
    ClearTimers {
        kind: TimerKind,
    },
    /// A call to the payment provider.
    Effect {
        kind: EffectKind,
    },
}

/// A command with the id that the event and the policy give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCommand {
    pub command_id: CommandId,
    /// The policy's name, for the command's actor.
    pub policy: &'static str,
    pub command: Command,
    pub if_refused: IfRefused,
    /// Whether the target usually begins with this command: a hint that spares a look for it.
    pub creates: bool,
}

impl PolicyCommand {
    /// `ordinal` tells apart commands of one policy to one target.
    pub(crate) fn new(
        recorded: &RecordedEvent,
        policy: &'static str,
        ordinal: u32,
        command: Command,
    ) -> Self {
        let command_id =
            CommandId::for_policy(&recorded.id(), policy, command.name(), &command.target(), ordinal);
        Self {
            command_id,
            policy,
            command,
            if_refused: IfRefused::DeadLetter,
            creates: false,
        }
    }

    pub(crate) fn if_refused(mut self, with: &'static [Refusal], then: Option<PolicyCommand>) -> Self {
        self.if_refused = match then {
            Some(then) => IfRefused::Then {
                with,
                then: Box::new(then),
            },
            None => IfRefused::Nothing { with },
        };
        self
    }
}

impl From<PolicyCommand> for Action {
    fn from(command: PolicyCommand) -> Self {
        Self::Command(command)
    }
}

/// A command to one aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Inventory(Sku, InventoryCommand),
    Cart(CartId, CartCommand),
    Order(OrderId, OrderCommand),
    Payment(PaymentId, PaymentCommand),
}

impl Command {
    /// The command's name, such as `Reserve`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Inventory(_, command) => command.name(),
            Self::Cart(_, command) => command.name(),
            Self::Order(_, command) => command.name(),
            Self::Payment(_, command) => command.name(),
        }
    }

    /// Whom it is for.
    pub fn target(&self) -> AggregateId {
        match self {
            Self::Inventory(sku, _) => sku.into(),
            Self::Cart(id, _) => (*id).into(),
            Self::Order(id, _) => (*id).into(),
            Self::Payment(id, _) => (*id).into(),
        }
    }

    /// The stream of whom it is for.
    pub fn stream(&self) -> StreamId {
        let aggregate_type = match self {
            Self::Inventory(..) => AggregateType::Inventory,
            Self::Cart(..) => AggregateType::Cart,
            Self::Order(..) => AggregateType::Order,
            Self::Payment(..) => AggregateType::Payment,
        };
        StreamId {
            aggregate_type,
            aggregate_id: self.target(),
        }
    }
}

/// What follows from a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfRefused {
    /// No refusal is foreseen.
    DeadLetter,
    /// One of these means that the goal is moot.
    Nothing { with: &'static [Refusal] },
    /// One of these means that something else has to be done.
    Then {
        with: &'static [Refusal],
        then: Box<PolicyCommand>,
    },
}

/// The refusals that a policy may foresee, each one variant of an aggregate's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// [`OrderError::Agreement`].
    Agreement,
    /// [`OrderError::Cancelled`].
    Cancelled,
    /// [`OrderError::PaidByAnotherAttempt`].
    PaidByAnotherAttempt,
    /// [`OrderError::ReturnOpen`].
    ReturnOpen,
    /// [`OrderError::WrongStatus`].
    WrongStatus,
}

/// The refusal of whichever aggregate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("inventory refuses: {0}")]
    Inventory(InventoryError),
    #[error("cart refuses: {0}")]
    Cart(CartError),
    #[error("order refuses: {0}")]
    Order(OrderError),
    #[error("payment refuses: {0}")]
    Payment(PaymentError),
}

impl Refused {
    /// What a policy would call it; none if no policy foresees it.
    pub const fn foreseen(&self) -> Option<Refusal> {
        let Self::Order(error) = self else { return None };
        match error {
            OrderError::Agreement(_) => Some(Refusal::Agreement),
            OrderError::Cancelled => Some(Refusal::Cancelled),
            OrderError::PaidByAnotherAttempt { .. } => Some(Refusal::PaidByAnotherAttempt),
            OrderError::ReturnOpen => Some(Refusal::ReturnOpen),
            OrderError::WrongStatus { .. } => Some(Refusal::WrongStatus),
            _ => None,
        }
    }

    /// Whether the same command may be accepted later without anyone doing anything else.
    pub const fn later(&self) -> bool {
        match self {
            Self::Payment(error) => error.retryable(),
            Self::Inventory(_) | Self::Cart(_) | Self::Order(_) => false,
        }
    }
}

/// The text names no kind of timer or effect of this binary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of timer or effect")]
pub struct UnknownKind;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The name that its rows have.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownKind;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(UnknownKind) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

kinds! {
    /// What a timer is for.
    TimerKind {
        /// The order is cancelled unless it was paid.
        PaymentDeadline = "payment_deadline",
        /// A delivered order is completed unless a return is open.
        AutoComplete = "auto_complete",
        /// A policy's command met an aggregate that was busy: the policy of the event runs again.
        PolicyAgain = "policy_again",
    }
    /// What the provider is asked for; the event that the row is keyed by is its intent.
    EffectKind {
        Session = "session",
        Capture = "capture",
        Void = "void",
        Refund = "refund",
    }
}
