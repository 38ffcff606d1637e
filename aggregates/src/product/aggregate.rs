use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, ProductEvent};

use super::{Product, ProductCommand, ProductError};
use crate::Decide;

impl Decide for Product {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Product;

    fn decide(&self, command: &ProductCommand) -> Result<Vec<ProductEvent>, ProductError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &ProductEvent) {
        super::state::evolve(self, event);
    }

    fn command_name(command: &ProductCommand) -> &'static str {
        command.name()
    }
}

impl cqrs_es::Aggregate for Product {
    const TYPE: &'static str = Self::AGGREGATE_TYPE.as_str();
    type Command = ProductCommand;
    type Event = ProductEvent;
    type Error = ProductError;
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
