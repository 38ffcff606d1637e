//! Payments: trying again, and giving money back.

mod refund;
mod retry;

use event_schemas::PaymentId;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::CommandApi;

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(retry::handler))
        .routes(routes!(refund::handler))
}

/// `{id}`.
#[derive(Deserialize)]
struct PaymentPath {
    id: PaymentId,
}
