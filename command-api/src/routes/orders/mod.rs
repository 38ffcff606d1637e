//! Orders: placing them without a cart, cancelling, and what staff do with them.

mod cancel;
mod complete;
mod deliver;
mod dispatch;
mod place;

use event_schemas::{OrderId, OrderPlaced};
use http_conventions::Problem;
use identity::verifier::{Caller, Permission};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::execute::access_problem;
use crate::state::CommandApi;

/// Who ships, delivers and completes.
const FULFILS: &[Permission] = &[Permission::OrderFulfil];

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(place::handler))
        .routes(routes!(cancel::handler))
        .routes(routes!(dispatch::handler))
        .routes(routes!(deliver::handler))
        .routes(routes!(complete::handler))
}

/// `{id}`.
#[derive(Deserialize)]
struct OrderPath {
    id: OrderId,
}

impl CommandApi {
    /// What `read` says of the order as it was agreed; 404 unless it is there and the caller's own, or the caller has
    /// the permission `or`.
    pub(super) async fn own_order<T: Send + 'static>(
        &self,
        id: OrderId,
        caller: &Caller,
        or: Option<Permission>,
        mut read: impl FnMut(&OrderPlaced) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let orders = &self.executors().orders;
        let found = orders.with_state(id, move |order, _| {
            order.placed().map(|placed| (placed.customer, read(placed)))
        });
        let (customer, value) = found
            .await
            .map_err(access_problem)?
            .ok_or_else(Problem::not_found)?;
        if caller.is(customer) || or.is_some_and(|permission| caller.may(permission)) {
            Ok(value)
        } else {
            Err(Problem::not_found())
        }
    }
}
