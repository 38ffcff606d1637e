use event_schemas::CartEvent;

use super::{Cart, CartCommand, CartError};

pub(super) fn decide(state: &Cart, command: &CartCommand) -> Result<Vec<CartEvent>, CartError> {
    let _ = (state, command);
    todo!()
}
