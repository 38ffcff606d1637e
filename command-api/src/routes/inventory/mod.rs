//! Stock, for staff.

mod adjustments;
mod backorder_limit;
mod receipts;

use event_schemas::Sku;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::CommandApi;

/// Who may change stock.
const WRITES: &[Permission] = &[Permission::StockWrite];

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(receipts::handler))
        .routes(routes!(adjustments::handler))
        .routes(routes!(backorder_limit::handler))
}

/// `{sku}`.
#[derive(Deserialize)]
struct StockPath {
    sku: Sku,
}
