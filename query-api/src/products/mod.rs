//! The catalogue. Public; callers with `product.read_all` see what is not published too.

pub(crate) mod get;
pub(crate) mod list;

use event_schemas::AggregateType;
use http_conventions::Problem;
use identity::verifier::{Caller, MaybeCaller, Permission};
use projections::ConsistencyPoint;
use projections::products::{ProductStatus, ProductView};

use crate::QueryApi;
use crate::read::{Scope, reach};

/// Splits what the client has to see at least into the product's part, which is given back, and the stock's, which is
/// waited for here: availability is joined from another view.
async fn reach_stock(
    api: &QueryApi,
    point: Option<ConsistencyPoint>,
) -> Result<Option<ConsistencyPoint>, Problem> {
    match point {
        Some(point) if point.stream.aggregate_type == AggregateType::Inventory => {
            reach(api.views.stock(), Some(&point), api.wait).await?;
            Ok(None)
        }
        point => Ok(point),
    }
}

fn sees_all(caller: MaybeCaller) -> bool {
    caller
        .0
        .is_some_and(|caller: Caller| caller.may(Permission::ProductReadAll))
}

fn is_visible(product: &ProductView, sees_all: bool) -> bool {
    sees_all || product.status == ProductStatus::Published
}

fn scope(caller: MaybeCaller) -> Scope {
    if caller.0.is_some() {
        Scope::TheCaller
    } else {
        Scope::Everybody
    }
}
