//! A small aggregate for the suite and for measurements: units on a shelf.

use aggregates::Decide;
use cqrs_es::event_sink::EventSink;
use event_schemas::{AggregateType, Code, InventoryEvent, OrderId, Reference};
use serde::{Deserialize, Serialize};

/// Units on a shelf, in the events of a stock item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    pub units: i64,
}

/// What can be asked of a [`Shelf`].
#[derive(Debug, Clone)]
pub enum ShelfCommand {
    /// Puts units on.
    Put(u32),
    /// Changes the number of units to whatever comes out.
    Adjust(i64),
    /// Takes units for an order; emits a rejection if there are too few.
    Reserve(OrderId, u32),
    /// Takes units; refused if there are too few.
    Take(OrderId, u32),
    /// Accepted, and changes nothing.
    Touch,
    /// Puts one unit on, this many times.
    PutOneByOne(u32),
    /// Panics.
    Panic,
}

/// Why a [`Shelf`] refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only {units} units")]
pub struct TooFew {
    pub units: i64,
}

impl cqrs_es::Aggregate for Shelf {
    const TYPE: &'static str = AggregateType::Inventory.as_str();
    type Command = ShelfCommand;
    type Event = InventoryEvent;
    type Error = TooFew;
    type Services = ();

    async fn handle(
        &mut self,
        command: ShelfCommand,
        _services: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), TooFew> {
        for event in self.decide(&command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: InventoryEvent) {
        self.evolve(&event);
    }
}

impl Decide for Shelf {
    const AGGREGATE_TYPE: AggregateType = AggregateType::Inventory;

    fn decide(&self, command: &ShelfCommand) -> Result<Vec<InventoryEvent>, TooFew> {
        let units = self.units;
        match *command {
            ShelfCommand::Put(quantity) => Ok(vec![put(quantity)]),
            ShelfCommand::Adjust(delta) => Ok(vec![InventoryEvent::StockAdjusted {
                delta,
                reason: Code::new("count").expect("a code"),
            }]),
            ShelfCommand::Reserve(order_id, quantity) if i64::from(quantity) <= units => {
                Ok(vec![InventoryEvent::StockReserved { order_id, quantity }])
            }
            ShelfCommand::Reserve(order_id, quantity) => {
                let available = u64::try_from(units).unwrap_or(0);
                Ok(vec![InventoryEvent::ReservationRejected {
                    order_id,
                    quantity,
                    available,
                }])
            }
            ShelfCommand::Take(order_id, quantity) if i64::from(quantity) <= units => {
                Ok(vec![InventoryEvent::StockReserved { order_id, quantity }])
            }
            ShelfCommand::Take(..) => Err(TooFew { units }),
            ShelfCommand::Touch => Ok(Vec::new()),
            ShelfCommand::PutOneByOne(times) => Ok((0..times).map(|_| put(1)).collect()),
            ShelfCommand::Panic => panic!("asked to"),
        }
    }

    fn evolve(&mut self, event: &InventoryEvent) {
        match event {
            InventoryEvent::StockReceived { quantity, .. } => self.units += i64::from(*quantity),
            InventoryEvent::StockAdjusted { delta, .. } => self.units += delta,
            InventoryEvent::StockReserved { quantity, .. } => self.units -= i64::from(*quantity),
            _ => {}
        }
    }

    fn command_name(command: &ShelfCommand) -> &'static str {
        match command {
            ShelfCommand::Put(_) => "Put",
            ShelfCommand::Adjust(_) => "Adjust",
            ShelfCommand::Reserve(..) => "Reserve",
            ShelfCommand::Take(..) => "Take",
            ShelfCommand::Touch => "Touch",
            ShelfCommand::PutOneByOne(_) => "PutOneByOne",
            ShelfCommand::Panic => "Panic",
        }
    }
}

/// The event that puts `quantity` units on.
pub fn put(quantity: u32) -> InventoryEvent {
    InventoryEvent::StockReceived {
        quantity,
        reference: Reference::new("suite").expect("a reference"),
    }
}
