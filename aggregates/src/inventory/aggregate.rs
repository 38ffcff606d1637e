use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, InventoryEvent};

use super::{InventoryCommand, InventoryError, StockItem};
use crate::Decide;

impl Decide for StockItem {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Inventory;

    fn decide(&self, command: &InventoryCommand) -> Result<Vec<InventoryEvent>, InventoryError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &InventoryEvent) {
        super::state::evolve(self, event);
    }

    fn command_name(command: &InventoryCommand) -> &'static str {
        command.name()
    }
}

impl cqrs_es::Aggregate for StockItem {
    const TYPE: &'static str = Self::AGGREGATE_TYPE.as_str();
    type Command = InventoryCommand;
    type Event = InventoryEvent;
    type Error = InventoryError;
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
