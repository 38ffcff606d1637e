//! Orders and what happened to them: one's own, or everybody's for those with `order.read_all`.

mod as_of;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod stream;
pub(crate) mod timeline;

use std::sync::Arc;

use event_schemas::{CustomerId, OrderId};
use http_conventions::Problem;
use identity::verifier::{Caller, Permission};
use projections::{ConsistencyPoint, Served, View, ViewReader};

use crate::QueryApi;
use crate::read::{document, owned_or};

/// What a view says of an order, for those who may see it: its `customer`, and staff.
async fn of_order<V: View>(
    api: &QueryApi,
    reader: &ViewReader<V>,
    caller: &Caller,
    id: OrderId,
    point: Option<&ConsistencyPoint>,
    customer: fn(&V::Doc) -> CustomerId,
) -> Result<Arc<Served<V::Doc>>, Problem> {
    let is_theirs = owned_or(caller, Permission::OrderReadAll);
    let may_see = |doc: &V::Doc| is_theirs(customer(doc));
    document(reader, &id.into(), point, api.wait, may_see).await
}
