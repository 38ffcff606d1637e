use event_schemas::PaymentEvent;

use super::{Payment, PaymentCommand, PaymentError};

pub(super) fn decide(state: &Payment, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentError> {
    let _ = (state, command);
    todo!()
}
