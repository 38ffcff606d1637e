use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, OrderEvent};

use super::{Order, OrderCommand, OrderError};
use crate::Decide;

impl Decide for Order {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Order;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &OrderEvent) {
        super::state::evolve(self, event);
    }

    fn command_name(command: &OrderCommand) -> &'static str {
        command.name()
    }
}

impl cqrs_es::Aggregate for Order {
    const TYPE: &'static str = Self::AGGREGATE_TYPE.as_str();
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderError;
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
