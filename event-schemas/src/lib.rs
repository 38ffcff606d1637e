//! What can have happened in OMISYS: the events, the values they are made of, and how they are written down.
//!
//! Everything here is plain data. What *may* happen is decided in `aggregates`; what *must follow* in `sagas`.
//! A log cannot be amended, so every type in this crate is a persisted format: it changes only by a new
//! `event_version` and an upcaster (see [`Upcasters`]), and the golden files under `golden/` are never deleted.

mod cart;
mod classification;
mod envelope;
mod event;
mod ids;
mod inventory;
mod money;
mod order;
mod payment;
mod product;
pub mod schemas;
mod sealed;
mod time;
mod upcast;
mod values;

pub use cart::{CartCheckedOut, CartEvent, CartLine};
pub use classification::{CLASSIFICATION, DataClass, FieldClass};
pub use cqrs_es::DomainEvent;
pub use envelope::{
    Actor, ActorKind, AggregateId, AggregateType, EventId, LogIdentity, Metadata, ParseEnvelopeError,
    Position, RecordedEvent, StreamId, Version,
};
pub use event::{DecodeError, Event, decode, decode_value};
pub use ids::{
    AccountId, CartId, CommandId, CorrelationId, CustomerId, OrderId, ParseIdError, PaymentId, ProductId,
    RefundId, ReturnId, ShipmentId, derive_uuid,
};
pub use inventory::{InventoryEvent, ReleaseReason, ReturnCondition};
pub use iso_currency::Currency;
pub use money::{Money, MoneyError};
pub use order::{
    CancelReason, LineQuantity, OrderEvent, OrderLine, OrderPlaced, OrderStage, ReturnedLine, ShippingCharge,
    Tax, Totals,
};
pub use payment::{Anomaly, PaymentEvent, PaymentMethod};
pub use product::{ProductDetails, ProductEvent, ProductOption};
pub use sealed::{KeyId, Sealed};
pub use time::{Clock, ManualClock, Timestamp};
pub use upcast::{UpcastFn, Upcasters};
pub use values::{Code, CountryCode, ProviderRef, Reference, SecretRef, Sku, ValueError};
