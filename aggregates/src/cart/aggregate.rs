use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, CartEvent};

use super::{Cart, CartCommand, CartError};
use crate::Decide;

impl Decide for Cart {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Cart;

    fn decide(&self, command: &CartCommand) -> Result<Vec<CartEvent>, CartError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &CartEvent) {
        super::state::evolve(self, event);
    }

    fn command_name(command: &CartCommand) -> &'static str {
        command.name()
    }
}

impl cqrs_es::Aggregate for Cart {
    const TYPE: &'static str = Self::AGGREGATE_TYPE.as_str();
    type Command = CartCommand;
    type Event = CartEvent;
    type Error = CartError;
    type Services = ();

    async fn handle(
        &mut self,
        command: Self::Command,
        _services: &Self::Services,
        sink: &EventSink<Self>,
    ) -> Result<(), Self::Error> {
        // Decided as a whole first: `write` applies each event to `self`.
        for event in self.decide(&command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Self::Event) {
        self.evolve(&event);
    }
}
