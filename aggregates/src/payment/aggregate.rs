use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, PaymentEvent};

use super::{Payment, PaymentCommand, PaymentError};
use crate::Decide;

impl Decide for Payment {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Payment;

    fn decide(&self, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &PaymentEvent) {
        super::state::evolve(self, event);
    }

    fn command_name(command: &PaymentCommand) -> &'static str {
        command.name()
    }
}

impl cqrs_es::Aggregate for Payment {
    const TYPE: &'static str = Self::AGGREGATE_TYPE.as_str();
    type Command = PaymentCommand;
    type Event = PaymentEvent;
    type Error = PaymentError;
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
