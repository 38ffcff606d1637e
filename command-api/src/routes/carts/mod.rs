//! The caller's one cart.

mod add_item;
mod change_quantity;
mod checkout;
mod clear;
mod merge;
mod remove_item;

use event_schemas::{CartId, Sku};
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::call::{Call, Route};
use crate::state::CommandApi;

/// Who may have a cart: by default everybody.
const USES: &[Permission] = &[Permission::CartUse];

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(add_item::handler))
        .routes(routes!(change_quantity::handler))
        .routes(routes!(remove_item::handler))
        .routes(routes!(clear::handler))
        .routes(routes!(merge::handler))
        .routes(routes!(checkout::handler))
}

/// `{sku}`.
#[derive(Deserialize)]
struct ItemPath {
    sku: Sku,
}

impl<R: Route> Call<R> {
    /// The caller's cart.
    fn cart(&self) -> CartId {
        CartId::for_owner(self.customer())
    }
}
