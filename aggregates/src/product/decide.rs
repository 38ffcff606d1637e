use event_schemas::ProductEvent;

use super::{Product, ProductCommand, ProductError};

pub(super) fn decide(state: &Product, command: &ProductCommand) -> Result<Vec<ProductEvent>, ProductError> {
    let _ = (state, command);
    todo!()
}
