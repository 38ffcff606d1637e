//! The routes, one file each.

mod carts;
mod dead_letters;
mod inventory;
mod orders;
mod payments;
mod products;

use utoipa_axum::router::OpenApiRouter;

use crate::state::CommandApi;

/// All routes with their OpenAPI document.
pub(crate) fn all() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .merge(products::routes())
        .merge(inventory::routes())
        .merge(carts::routes())
        .merge(orders::routes())
        .merge(payments::routes())
        .merge(dead_letters::routes())
}
