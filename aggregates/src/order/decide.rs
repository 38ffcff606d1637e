use event_schemas::OrderEvent;

use super::{Order, OrderCommand, OrderError};

pub(super) fn decide(state: &Order, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
    let _ = (state, command);
    todo!()
}
