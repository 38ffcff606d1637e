//! GET routes and live streams: everything that is read from the read models, and the care of them.
//!
//! One endpoint, one file: its query type, its documentation, its handler. What they share is in [`read`]: freshness,
//! entity tags, errors.

mod carts;
mod inventory;
mod ops;
mod orders;
mod payments;
mod products;
mod read;
mod reports;
mod state;

pub use state::QueryApi;

use http_conventions::not_found;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(OpenApi)]
#[openapi(tags(
    (name = "products", description = "The catalogue."),
    (name = "inventory", description = "Stock, for staff."),
    (name = "carts", description = "The caller's one cart."),
    (name = "orders", description = "Orders and what happened to them."),
    (name = "payments", description = "Payments of orders."),
    (name = "reports", description = "Sums over sales, for staff."),
    (name = "ops", description = "How the system is doing."),
))]
struct ApiDoc;

/// All routes with their documentation; errors are completed by `http_conventions::finish`, which is layered here.
pub fn router(state: QueryApi) -> OpenApiRouter {
    routes()
        .fallback(not_found)
        .layer(axum::middleware::from_fn(http_conventions::finish))
        .with_state(state)
}

/// What [`router`] serves, for whoever documents it without running it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<QueryApi> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(products::list::list))
        .routes(routes!(products::get::get))
        .routes(routes!(inventory::get::get))
        .routes(routes!(carts::mine::mine))
        .routes(routes!(orders::list::list))
        .routes(routes!(orders::get::get))
        .routes(routes!(orders::timeline::timeline))
        .routes(routes!(orders::stream::stream))
        .routes(routes!(payments::get::get))
        .routes(routes!(reports::sales::sales))
        .routes(routes!(ops::projections::projections))
        .routes(routes!(ops::rebuild::rebuild))
        .routes(routes!(ops::dead_letters::list))
}
