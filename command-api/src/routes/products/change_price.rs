use aggregates::product::ProductCommand;
use axum::extract::State;
use event_schemas::{Money, Sku};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{ProductPath, check_currency};
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems, MoneySchema};
use crate::state::CommandApi;

pub(super) struct ChangePrice;

/// A variant's new price.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PriceChange)]
pub(super) struct Body {
    #[schema(value_type = String, example = "MUG-1")]
    sku: Sku,
    #[schema(value_type = MoneySchema)]
    price: Money,
}

impl Route for ChangePrice {
    type Path = ProductPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;
}

/// Change a variant's price
///
/// Orders that were placed keep theirs.
#[utoipa::path(
    post, path = "/v1/products/{id}/price", tag = "products", operation_id = "changePrice",
    params(("id" = String, Path, description = "The product"), CommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<ChangePrice>,
) -> Result<Accepted, Problem> {
    let Body { sku, price } = &call.body;
    let command = check_currency(&api, *price).map(|()| ProductCommand::ChangePrice {
        sku: sku.clone(),
        price: *price,
    });
    let receipt = execute(&api.executors().products, call.path.id, &call, command).await?;
    Ok(Accepted::changed(&receipt))
}
