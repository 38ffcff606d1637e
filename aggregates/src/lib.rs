//! What may happen: pure `decide` and `evolve` per aggregate. No I/O, no clock, no randomness, no async.
//!
//! One module per aggregate, each with the same files: `commands` (what can be asked), `decide` (what may happen),
//! `state` (what follows from what happened), `error` (why not) and `invariants` (what always holds). Tests lie beside them: `tests/<name>_rules.rs` and `tests/<name>_properties.rs`.

/// Makes `$state` an aggregate, by the `decide` and the `state` of the module that this stands in. All of it only forwards.
macro_rules! aggregate {
    ($state:ident, $kind:ident, $command:ty, $event:ty, $error:ty) => {
        impl $crate::Decide for $state {
            const AGGREGATE_TYPE: event_schemas::AggregateType = event_schemas::AggregateType::$kind;

            fn decide(&self, command: &$command) -> Result<Vec<$event>, $error> {
                decide::decide(self, command)
            }

            fn evolve(&mut self, event: &$event) {
                state::evolve(self, event);
            }

            fn command_name(command: &$command) -> &'static str {
                command.name()
            }
        }

        impl cqrs_es::Aggregate for $state {
            const TYPE: &'static str = event_schemas::AggregateType::$kind.as_str();
            type Command = $command;
            type Event = $event;
            type Error = $error;
            type Services = ();

            async fn handle(
                &mut self,
                command: $command,
                _services: &(),
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), $error> {
                // Decided as a whole first: `write` applies each event to `self`.
                for event in $crate::Decide::decide(self, &command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: $event) {
                $crate::Decide::evolve(self, &event);
            }
        }
    };
}

pub mod audit;
pub mod cart;
pub mod inventory;
pub mod order;
pub mod payment;
pub mod product;

use std::fmt::Debug;

use event_schemas::{AggregateType, Event};

/// An event-sourced aggregate as OMISYS runs it. The `cqrs_es::Aggregate` impls, by `aggregate!`, only forward here.
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
