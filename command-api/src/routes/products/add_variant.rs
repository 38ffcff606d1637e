use std::collections::BTreeMap;

use aggregates::Decide as _;
use aggregates::inventory::InventoryCommand;
use aggregates::product::ProductCommand;
use axum::extract::State;
use event_schemas::{Money, Sku};
use event_store::{ExecuteError, Receipt};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{ProductPath, check_currency};
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::{access_problem, earlier, execute, problem, submit};
use crate::openapi::{CommandHeaders, CommandProblems, MoneySchema};
use crate::state::CommandApi;

pub(super) struct AddVariant;

/// One thing of the product that can be bought.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewVariant)]
pub(super) struct Body {
    /// Unused by any other product, ever.
    #[schema(value_type = String, example = "MUG-1")]
    sku: Sku,
    /// Option name → value.
    #[serde(default)]
    option_values: BTreeMap<String, String>,
    #[schema(value_type = MoneySchema)]
    price: Money,
    /// Whether stock is kept and reserved for it.
    #[serde(default = "tracked")]
    #[schema(default = true)]
    tracked: bool,
}

const fn tracked() -> bool {
    true
}

impl Route for AddVariant {
    type Path = ProductPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;
}

/// Add a variant
///
/// Claims the SKU for the product first; 409 `sku-taken` names the product that has it already.
#[utoipa::path(
    post, path = "/v1/products/{id}/variants", tag = "products", operation_id = "addVariant",
    params(("id" = String, Path, description = "The product"), CommandHeaders), request_body = Body,
    responses((status = 201, description = "Added", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<AddVariant>,
) -> Result<Accepted, Problem> {
    let products = &api.executors().products;
    // First, since the steps below claim a SKU: a key that is used again with another SKU must not.
    let receipt = match earlier(products, call.path.id, &call).await? {
        Some(receipt) => receipt,
        None => execute(products, call.path.id, &call, claim_sku(&api, &call).await).await?,
    };
    Ok(Accepted::created(&receipt, "/v1/products"))
}

/// Gives the SKU to the product, so that a SKU belongs to one product whoever asks at the same moment.
///
/// A product that would refuse the variant claims nothing; should it come to refuse it in between (archived just now),
/// the SKU stays claimed by a product without it, which harms nobody but that SKU.
async fn claim_sku(api: &CommandApi, call: &Call<AddVariant>) -> Result<ProductCommand, Problem> {
    let Body {
        sku,
        option_values,
        price,
        tracked,
    } = &call.body;
    check_currency(api, *price)?;
    let command = ProductCommand::AddVariant {
        sku: sku.clone(),
        option_values: option_values.clone(),
        price: *price,
        tracked: *tracked,
    };
    would_accept(api, call, command.clone()).await?;

    let mut claim = call.request(InventoryCommand::AssignSku {
        product_id: call.path.id,
    });
    // `If-Match` speaks of the product.
    claim.expected_version = None;
    let _: Receipt = submit(&api.executors().inventory, sku, claim).await?;
    Ok(command)
}

async fn would_accept(
    api: &CommandApi,
    call: &Call<AddVariant>,
    command: ProductCommand,
) -> Result<(), Problem> {
    let expected = call.expected_version;
    let verdict = api
        .executors()
        .products
        .with_state(call.path.id, move |product, actual| {
            if expected.is_some_and(|expected| expected != actual) {
                return Err(ExecuteError::VersionMismatch { actual });
            }
            product.decide(&command).map(drop).map_err(ExecuteError::Refused)
        });
    verdict.await.map_err(access_problem)?.map_err(problem)
}
