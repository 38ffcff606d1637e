//! The catalogue, for staff.

mod add_variant;
mod archive;
mod change_details;
mod change_price;
mod create;
mod publish;
mod remove_variant;
mod unpublish;

use event_schemas::{Money, ProductDetails, ProductId, ProductOption};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::CommandApi;

/// Who may write to the catalogue.
const WRITES: &[Permission] = &[Permission::ProductWrite];

pub(super) fn routes() -> OpenApiRouter<CommandApi> {
    OpenApiRouter::default()
        .routes(routes!(create::handler))
        .routes(routes!(change_details::handler))
        .routes(routes!(add_variant::handler))
        .routes(routes!(remove_variant::handler))
        .routes(routes!(change_price::handler))
        .routes(routes!(publish::handler))
        .routes(routes!(unpublish::handler))
        .routes(routes!(archive::handler))
}

/// `{id}`.
#[derive(Deserialize)]
struct ProductPath {
    id: ProductId,
}

/// What shoppers read about a product. The aggregate checks lengths and counts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProductDetails)]
struct DetailsBody {
    #[schema(example = "Enamel mug")]
    title: String,
    #[serde(default)]
    description: String,
    /// The slug of the one category that lists the product.
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    /// The dimensions that variants differ in.
    #[serde(default)]
    options: Vec<OptionBody>,
    /// URLs or paths, in the order to show them.
    #[serde(default)]
    images: Vec<String>,
}

/// A dimension that variants differ in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProductOption)]
struct OptionBody {
    #[schema(example = "size")]
    name: String,
    values: Vec<String>,
}

impl From<DetailsBody> for ProductDetails {
    fn from(body: DetailsBody) -> Self {
        let options = body.options.into_iter();
        Self {
            title: body.title,
            description: body.description,
            category: body.category,
            tags: body.tags,
            options: options
                .map(|option| ProductOption {
                    name: option.name,
                    values: option.values,
                })
                .collect(),
            images: body.images,
        }
    }
}

/// 422 unless the price is in the shop's one currency.
fn check_currency(api: &CommandApi, price: Money) -> Result<(), Problem> {
    let currency = api.rules.currency;
    if price.currency() == currency {
        return Ok(());
    }
    Err(Problem::refused("currency-mismatch", "Wrong currency").field(
        "/price/currency",
        format!("this shop sells in {}", currency.code()),
    ))
}
