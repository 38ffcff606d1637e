//! Typed ids. Generated ids are `UUIDv7`; derived ids are `UUIDv8` over SHA-256 (RFC 9562, section 5.8), so that a
//! retried command finds the aggregate its first try created.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::envelope::{AggregateId, EventId};
use crate::time::Timestamp;

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: expected 36 characters such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct ParseIdError;

/// A `UUIDv8` that depends on `namespace` and `parts` only; parts are length-prefixed, so `("ab","c")` and `("a","bc")` differ.
pub fn derive_uuid(namespace: &str, parts: &[&[u8]]) -> Uuid {
    let mut hasher = Sha256::new();
    for part in std::iter::once(namespace.as_bytes()).chain(parts.iter().copied()) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

macro_rules! uuid_id {
    ($($(#[doc = $doc:literal])* $name:ident;)+) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes an id read from storage or from a request.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A fresh `UUIDv7`: sorts by `now` (milliseconds since the epoch), made unique by `random`.
            pub fn generate(now: Timestamp, random: &[u8; 10]) -> Self {
                let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
            }

            /// The id as a UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::schemas::uuid(concat!($($doc),*))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // The hyphenated form only: one spelling an id, so that ids compare as text too.
                if text.len() != 36 {
                    return Err(ParseIdError);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError)
            }
        }

        impl From<$name> for AggregateId {
            fn from(id: $name) -> Self {
                AggregateId::from(id.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()) as &str)
            }
        }
    )+};
}

uuid_id! {
    /// A product of the catalogue.
    ProductId;
    /// A customer, guests included. Never an e-mail or an outside id.
    CustomerId;
    /// Whoever signs in: a customer, a guest, staff or an admin. A customer's account id is its customer id.
    AccountId;
    /// A cart; derived from its owner.
    CartId;
    /// An order; derived from the command, or from cart and attempt.
    OrderId;
    /// The payment of an order; derived from the order.
    PaymentId;
    /// One parcel of an order.
    ShipmentId;
    /// One return of an order.
    ReturnId;
    /// One refund of a payment.
    RefundId;
    /// Identifies a command for good: a repeat returns the first outcome.
    CommandId;
    /// Ties together everything that one request of a client caused.
    CorrelationId;
}

impl From<AccountId> for CustomerId {
    fn from(id: AccountId) -> Self {
        Self(id.0)
    }
}

impl From<CustomerId> for AccountId {
    fn from(id: CustomerId) -> Self {
        Self(id.0)
    }
}

impl CommandId {
    /// The id of a client's command: the same principal, method, path and `Idempotency-Key` give the same id.
    pub fn for_request(principal: &str, method: &str, path: &str, idempotency_key: &str) -> Self {
        let parts = [principal, method, path, idempotency_key].map(str::as_bytes);
        Self(derive_uuid("omisys/command/request", &parts))
    }

    /// The id of a policy's command. `ordinal` tells apart commands of one policy to one target from one event.
    pub fn for_policy(
        event: &EventId,
        policy: &str,
        command: &str,
        target: &AggregateId,
        ordinal: u32,
    ) -> Self {
        let event = event.to_string();
        let parts: [&[u8]; 5] = [
            event.as_bytes(),
            policy.as_bytes(),
            command.as_bytes(),
            target.as_str().as_bytes(),
            &ordinal.to_be_bytes(),
        ];
        Self(derive_uuid("omisys/command/policy", &parts))
    }
}

impl CorrelationId {
    /// A command that nobody correlated starts a correlation of its own.
    pub const fn for_command(command: CommandId) -> Self {
        Self(command.0)
    }
}

impl ProductId {
    /// The product that this command creates.
    pub fn for_command(command: CommandId) -> Self {
        Self(derive_uuid("omisys/product", &[command.0.as_bytes()]))
    }
}

impl CartId {
    /// The one cart of this customer.
    pub fn for_owner(owner: CustomerId) -> Self {
        Self(derive_uuid("omisys/cart", &[owner.0.as_bytes()]))
    }
}

impl OrderId {
    /// The order that this command places without a cart.
    pub fn for_command(command: CommandId) -> Self {
        Self(derive_uuid("omisys/order/command", &[command.0.as_bytes()]))
    }

    /// The order of a cart's check-out; `attempt` counts from 1.
    pub fn for_checkout(cart: CartId, attempt: u32) -> Self {
        Self(derive_uuid(
            "omisys/order/checkout",
            &[cart.0.as_bytes(), &attempt.to_be_bytes()],
        ))
    }
}

impl PaymentId {
    /// The one payment of this order; further attempts live inside it.
    pub fn for_order(order: OrderId) -> Self {
        Self(derive_uuid("omisys/payment", &[order.0.as_bytes()]))
    }
}

impl ShipmentId {
    /// The shipment that this command dispatches.
    pub fn for_command(command: CommandId) -> Self {
        Self(derive_uuid("omisys/shipment", &[command.0.as_bytes()]))
    }
}

impl ReturnId {
    /// The return that this command requests.
    pub fn for_command(command: CommandId) -> Self {
        Self(derive_uuid("omisys/return", &[command.0.as_bytes()]))
    }
}

impl RefundId {
    /// The refund that this command requests.
    pub fn for_command(command: CommandId) -> Self {
        Self(derive_uuid("omisys/refund", &[command.0.as_bytes()]))
    }
}
