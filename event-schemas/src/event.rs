//! The sum of all events, and how a stored one is read back.

use std::cmp::Ordering;

use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

use crate::cart::CartEvent;
use crate::envelope::AggregateType;
use crate::inventory::InventoryEvent;
use crate::order::OrderEvent;
use crate::payment::PaymentEvent;
use crate::product::ProductEvent;
use crate::upcast::{SchemaVersion, Upcasters};

/// Names each variant and its current schema version, and implements `cqrs_es::DomainEvent` by them.
macro_rules! event_names {
    ($name:ident, $aggregate:ident; $($variant:ident = $version:literal),+ $(,)?) => {
        impl $name {
            /// Every event type of this aggregate with the schema version that this binary writes.
            pub const TYPES: &'static [(&'static str, &'static str)] = &[$((stringify!($variant), $version)),+];

            /// The event type, such as `StockReserved`.
            #[allow(deprecated, reason = "a retired event is read and has a name")]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant)),+ }
            }

            /// The schema version that this binary writes for it, `major.minor`.
            #[allow(deprecated, reason = "a retired event is read and has a version")]
            pub const fn schema_version(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $version),+ }
            }
        }

        impl cqrs_es::DomainEvent for $name {
            fn event_type(&self) -> String {
                self.name().to_owned()
            }

            fn event_version(&self) -> String {
                self.schema_version().to_owned()
            }
        }

        impl From<$name> for crate::event::Event {
            fn from(event: $name) -> Self {
                Self::$aggregate(event)
            }
        }

        impl TryFrom<crate::event::Event> for $name {
            type Error = crate::event::Event;

            /// Gives the event back if it is another aggregate's.
            fn try_from(event: crate::event::Event) -> Result<Self, Self::Error> {
                match event {
                    crate::event::Event::$aggregate(event) => Ok(event),
                    other => Err(other),
                }
            }
        }
    };
}
pub(crate) use event_names;

/// Any event of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Product(ProductEvent),
    Inventory(InventoryEvent),
    Cart(CartEvent),
    Order(OrderEvent),
    Payment(PaymentEvent),
}

impl Event {
    /// Whose event it is.
    pub const fn aggregate_type(&self) -> AggregateType {
        match self {
            Self::Product(_) => AggregateType::Product,
            Self::Inventory(_) => AggregateType::Inventory,
            Self::Cart(_) => AggregateType::Cart,
            Self::Order(_) => AggregateType::Order,
            Self::Payment(_) => AggregateType::Payment,
        }
    }

    /// The event type, such as `StockReserved`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Product(event) => event.name(),
            Self::Inventory(event) => event.name(),
            Self::Cart(event) => event.name(),
            Self::Order(event) => event.name(),
            Self::Payment(event) => event.name(),
        }
    }

    /// The schema version that this binary writes for it.
    pub const fn schema_version(&self) -> &'static str {
        match self {
            Self::Product(event) => event.schema_version(),
            Self::Inventory(event) => event.schema_version(),
            Self::Cart(event) => event.schema_version(),
            Self::Order(event) => event.schema_version(),
            Self::Payment(event) => event.schema_version(),
        }
    }

    /// The payload as the log holds it: `{"<event type>": {…}}`.
    pub fn to_json(&self) -> serde_json::Result<String> {
        match self {
            Self::Product(event) => serde_json::to_string(event),
            Self::Inventory(event) => serde_json::to_string(event),
            Self::Cart(event) => serde_json::to_string(event),
            Self::Order(event) => serde_json::to_string(event),
            Self::Payment(event) => serde_json::to_string(event),
        }
    }

    /// The payload as a JSON value.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        match self {
            Self::Product(event) => serde_json::to_value(event),
            Self::Inventory(event) => serde_json::to_value(event),
            Self::Cart(event) => serde_json::to_value(event),
            Self::Order(event) => serde_json::to_value(event),
            Self::Payment(event) => serde_json::to_value(event),
        }
    }
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer binary: no poison, the reader must be upgraded.
    #[error("{event_type} {event_version} is newer than this binary: upgrade")]
    Newer {
        event_type: String,
        event_version: String,
    },
    /// The payload does not fit its type, or no upcaster leads from its version to the current one: poison.
    #[error("the payload of {event_type} {event_version} does not fit its schema")]
    Malformed {
        event_type: String,
        event_version: String,
        #[source]
        source: serde_json::Error,
    },
}

const fn known_types(aggregate_type: AggregateType) -> &'static [(&'static str, &'static str)] {
    match aggregate_type {
        AggregateType::Product => ProductEvent::TYPES,
        AggregateType::Inventory => InventoryEvent::TYPES,
        AggregateType::Cart => CartEvent::TYPES,
        AggregateType::Order => OrderEvent::TYPES,
        AggregateType::Payment => PaymentEvent::TYPES,
    }
}

/// Reads a stored payload, through the upcasters if it was written by an older version.
pub fn decode(
    aggregate_type: AggregateType,
    event_type: &str,
    event_version: &str,
    payload: &str,
    upcasters: &Upcasters,
) -> Result<Event, DecodeError> {
    let malformed = |source| malformed(event_type, event_version, source);
    // The common case by far: no detour through a JSON tree.
    if known_types(aggregate_type).contains(&(event_type, event_version)) {
        let event = from_text(aggregate_type, payload).map_err(malformed)?;
        return named(event, event_type).map_err(malformed);
    }
    let value = serde_json::from_str(payload).map_err(malformed)?;
    decode_value(aggregate_type, event_type, event_version, value, upcasters)
}

/// As [`decode`], from a JSON value.
pub fn decode_value(
    aggregate_type: AggregateType,
    event_type: &str,
    event_version: &str,
    payload: Value,
    upcasters: &Upcasters,
) -> Result<Event, DecodeError> {
    let malformed = |source| malformed(event_type, event_version, source);
    let upcast = upcasters.upcast(event_type, event_version, payload);
    let newer = || DecodeError::Newer {
        event_type: event_type.to_owned(),
        event_version: event_version.to_owned(),
    };
    let (_, current) = known_types(aggregate_type)
        .iter()
        .find(|(name, _)| *name == upcast.event_type)
        .ok_or_else(newer)?;
    match SchemaVersion::parse(&upcast.event_version).cmp(&SchemaVersion::parse(current)) {
        Ordering::Greater => return Err(newer()),
        // An older payload that happens to fit may still mean something else now: only a step may say what.
        Ordering::Less => {
            let stuck = format!(
                "no upcaster leads from {} {}",
                upcast.event_type, upcast.event_version
            );
            return Err(malformed(serde_json::Error::custom(stuck)));
        }
        Ordering::Equal => {}
    }
    let event = from_value(aggregate_type, upcast.payload).map_err(malformed)?;
    named(event, &upcast.event_type).map_err(malformed)
}

fn malformed(event_type: &str, event_version: &str, source: serde_json::Error) -> DecodeError {
    DecodeError::Malformed {
        event_type: event_type.to_owned(),
        event_version: event_version.to_owned(),
        source,
    }
}

/// The payload names its type itself; a row whose column says otherwise must not be folded as either.
fn named(event: Event, event_type: &str) -> serde_json::Result<Event> {
    if event.name() == event_type {
        Ok(event)
    } else {
        Err(serde_json::Error::custom(format!(
            "the payload is of {}, the event of {event_type}",
            event.name()
        )))
    }
}

fn from_text(aggregate_type: AggregateType, payload: &str) -> serde_json::Result<Event> {
    fn read<T: DeserializeOwned + Into<Event>>(payload: &str) -> serde_json::Result<Event> {
        serde_json::from_str::<T>(payload).map(Into::into)
    }
    match aggregate_type {
        AggregateType::Product => read::<ProductEvent>(payload),
        AggregateType::Inventory => read::<InventoryEvent>(payload),
        AggregateType::Cart => read::<CartEvent>(payload),
        AggregateType::Order => read::<OrderEvent>(payload),
        AggregateType::Payment => read::<PaymentEvent>(payload),
    }
}

fn from_value(aggregate_type: AggregateType, payload: Value) -> serde_json::Result<Event> {
    fn read<T: DeserializeOwned + Into<Event>>(payload: Value) -> serde_json::Result<Event> {
        serde_json::from_value::<T>(payload).map(Into::into)
    }
    match aggregate_type {
        AggregateType::Product => read::<ProductEvent>(payload),
        AggregateType::Inventory => read::<InventoryEvent>(payload),
        AggregateType::Cart => read::<CartEvent>(payload),
        AggregateType::Order => read::<OrderEvent>(payload),
        AggregateType::Payment => read::<PaymentEvent>(payload),
    }
}
