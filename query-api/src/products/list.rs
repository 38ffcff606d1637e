use axum::extract::{OriginalUri, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;
use event_schemas::{ProductId, Sku};
use http_conventions::{AtLeast, ConsistencyToken, Cursor, Limit, Page, Problem, Query};
use identity::verifier::{MaybeCaller, Permission};
use projections::products::{ProductFilter, ProductSort, ProductStatus, ProductView};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{is_visible, reach_stock, scope, sees_all};
use crate::QueryApi;
use crate::read::{Refusals, after, cursor, point, reach, view_problem};

/// Longer than any category's slug.
const CATEGORY_CHARS_MAX: usize = 128;
/// More is cut by the search itself; this bounds what is looked at.
const SEARCH_CHARS_MAX: usize = 256;

/// Which products, in which order.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// The slug of one category.
    #[param(max_length = 128)]
    category: Option<String>,
    /// Words of the title, in any order and case.
    #[param(max_length = 256)]
    q: Option<String>,
    /// The one product whose variant this is; not together with other filters.
    #[param(value_type = Option<String>)]
    sku: Option<Sku>,
    /// Needs `product.read_all`; everybody else sees what is published.
    status: Option<ProductStatus>,
    #[serde(default)]
    #[param(inline)]
    sort: Sort,
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// From `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// Prices are those of a product's cheapest variant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Sort {
    #[default]
    Title,
    Newest,
    Price,
    #[serde(rename = "-price")]
    PriceDescending,
}

impl Sort {
    const fn key(self) -> ProductSort {
        match self {
            Self::Title => ProductSort::Title,
            Self::Newest => ProductSort::Newest,
            Self::Price => ProductSort::PriceAscending,
            Self::PriceDescending => ProductSort::PriceDescending,
        }
    }

    /// Names the list in cursors.
    const fn list(self) -> &'static str {
        match self {
            Self::Title => "products/title",
            Self::Newest => "products/newest",
            Self::Price => "products/price",
            Self::PriceDescending => "products/-price",
        }
    }
}

/// The catalogue, page by page.
#[utoipa::path(
    get, path = "/v1/products", tag = "products", operation_id = "listProducts", params(Params),
    responses(
        (status = 200, body = Page<ProductView>, headers(("Link" = String, description = "The next page."))),
        (status = 403, description = "`status` without `product.read_all`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security((), ("bearer" = [])),
    extensions(("x-omisys-access" = json!("public"))),
)]
pub(crate) async fn list(
    caller: MaybeCaller,
    State(api): State<QueryApi>,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
    at_least: AtLeast,
) -> Result<Response, Problem> {
    let all = sees_all(caller);
    if params.status.is_some() && !all {
        return Err(Problem::forbidden(Permission::ProductReadAll.as_str()));
    }
    check(&params)?;
    let after = after::<ProductId>(params.sort.list(), params.cursor.as_ref())?;
    let point = reach_stock(&api, point(params.at_least.clone(), at_least)?).await?;
    reach(api.views.products(), point.as_ref(), api.wait).await?;

    let (found, next) = if let Some(sku) = &params.sku {
        let product = api.views.product_of_sku(sku).await.map_err(view_problem)?;
        (
            product
                .into_iter()
                .filter(|product| is_visible(&product.doc, all))
                .collect(),
            None,
        )
    } else {
        let status = if all {
            params.status
        } else {
            Some(ProductStatus::Published)
        };
        let filter = ProductFilter {
            status,
            category: params.category,
            text: params.q,
            sort: params.sort.key(),
        };
        let found = api
            .views
            .products()
            .find(&filter.page(after, params.limit.get()))
            .await
            .map_err(view_problem)?;
        (found.items, found.next)
    };
    let items = api.views.with_availability(&found).await.map_err(view_problem)?;
    let mut response = Page {
        items,
        next_cursor: cursor(params.sort.list(), next),
    }
    .answer(&uri);
    let caching = HeaderValue::from_static(scope(caller).cache_control());
    response.headers_mut().insert(CACHE_CONTROL, caching);
    Ok(response)
}

fn check(params: &Params) -> Result<(), Problem> {
    let too_long = |text: &Option<String>, max| text.as_ref().is_some_and(|text| text.chars().count() > max);
    if too_long(&params.category, CATEGORY_CHARS_MAX) || too_long(&params.q, SEARCH_CHARS_MAX) {
        return Err(Problem::malformed(
            "category is at most 128 characters, q at most 256",
        ));
    }
    let others =
        params.category.is_some() || params.q.is_some() || params.status.is_some() || params.cursor.is_some();
    if params.sku.is_some() && others {
        return Err(Problem::malformed(
            "sku names one product: it does not go with other filters",
        ));
    }
    Ok(())
}
