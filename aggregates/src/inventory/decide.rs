use event_schemas::InventoryEvent;

use super::{InventoryCommand, InventoryError, StockItem};

pub(super) fn decide(
    state: &StockItem,
    command: &InventoryCommand,
) -> Result<Vec<InventoryEvent>, InventoryError> {
    let _ = (state, command);
    todo!()
}
