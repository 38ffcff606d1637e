use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use event_schemas::CountryCode;
use http_conventions::{AtLeast, ConsistencyToken, Problem, Query};
use identity::verifier::{Caller, Permission};
use jiff::civil::Date;
use projections::sales::{MAX_REPORT_DAYS, SalesBy, SalesFilter, SalesReport};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::QueryApi;
use crate::read::{Refusals, Scope, point, reach, view_problem};

/// Which sales, summed by what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// The first UTC day.
    #[param(value_type = String, format = Date, example = "2011-01-01")]
    from: Date,
    /// The last UTC day; at most 1,000 days in all.
    #[param(value_type = String, format = Date, example = "2011-01-31")]
    to: Date,
    #[serde(default)]
    #[param(inline)]
    by: By,
    /// Only sales to this country, as ISO 3166-1 alpha-2.
    #[param(value_type = Option<String>)]
    country: Option<CountryCode>,
    /// A consistency token of a receipt.
    #[param(value_type = Option<String>)]
    at_least: Option<ConsistencyToken>,
}

/// What a report has a row for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Day,
    Sku,
    Country,
}

impl By {
    const fn rows(self) -> SalesBy {
        match self {
            Self::Day => SalesBy::Day,
            Self::Sku => SalesBy::Sku,
            Self::Country => SalesBy::Country,
        }
    }
}

/// Paid orders that were not cancelled, summed by day, SKU or country. Needs `report.read`.
#[utoipa::path(
    get, path = "/v1/reports/sales", tag = "reports", operation_id = "reportSales", params(Params),
    responses(
        (status = 200, body = SalesReport),
        (status = 403, description = "Without `report.read`.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("report.read"))),
)]
pub(crate) async fn sales(
    caller: Caller,
    State(api): State<QueryApi>,
    Query(params): Query<Params>,
    at_least: AtLeast,
) -> Result<Response, Problem> {
    caller.require(Permission::ReportRead)?;
    let Params {
        from,
        to,
        by,
        country,
        at_least: token,
    } = params;
    let days = from.until(to).map_or(i32::MAX, |span| span.get_days());
    if !(0..MAX_REPORT_DAYS).contains(&days) {
        return Err(Problem::malformed(
            "from is not after to, and they span at most 1,000 days",
        ));
    }
    let point = point(token, at_least)?;
    reach(api.views.sales(), point.as_ref(), api.wait).await?;
    let report = api
        .views
        .sales_report(&SalesFilter { from, to, country }, by.rows())
        .await
        .map_err(view_problem)?;
    let caching = HeaderValue::from_static(Scope::TheCaller.cache_control());
    Ok(([(CACHE_CONTROL, caching)], Json(report)).into_response())
}
