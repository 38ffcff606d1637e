//! What may happen: pure `decide` and `evolve` per aggregate. No I/O, no clock, no randomness, no async.
//!
//! One module per aggregate, each with the same files: `commands` (what can be asked), `decide` (what may happen),
//! `state` (what follows from what happened), `error` (why not), `invariants` (what always holds) and `aggregate`
//! (cqrs-es forwards to the rest). Tests lie beside them: `tests/<name>_rules.rs` and `tests/<name>_properties.rs`.

pub mod audit;
pub mod cart;
pub mod inventory;
pub mod order;
pub mod payment;
pub mod product;

use std::fmt::Debug;

use event_schemas::{AggregateType, Event};

/// An event-sourced aggregate as OMISYS runs it. The `cqrs_es::Aggregate` impls only forward here.
///
/// Folding the events that `decide` returns with `evolve` gives the next state; nothing else changes it.
pub trait Decide:
    cqrs_es::Aggregate<
        Services = (),
        Event: Into<Event> + TryFrom<Event, Error = Event>,
        Command: Clone + Debug + Send + Sync + 'static,
        Error: Clone + PartialEq + Send + Sync + 'static,
    > + Clone
    + PartialEq
    + Debug
    + 'static
{
    /// Whose events these are.
    const AGGREGATE_TYPE: AggregateType;

    /// What the command makes happen in this state: no events where its goal is met already or moot.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// The state after `event`.
    fn evolve(&mut self, event: &Self::Event);

    /// The command's name for metadata, metrics and receipts, such as `Reserve`.
    fn command_name(command: &Self::Command) -> &'static str;
}
