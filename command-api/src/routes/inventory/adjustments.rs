use aggregates::inventory::InventoryCommand;
use axum::extract::State;
use event_schemas::Code;
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::StockPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::state::CommandApi;

pub(super) struct AdjustStock;

/// A correction of the count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StockAdjustment)]
pub(super) struct Body {
    #[schema(example = -2)]
    delta: i64,
    #[schema(value_type = String, example = "damaged")]
    reason: Code,
}

impl Route for AdjustStock {
    type Path = StockPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = true;
}

/// Correct the count
///
/// Up or down; what is promised to orders cannot be taken away.
#[utoipa::path(
    post, path = "/v1/inventory/{sku}/adjustments", tag = "inventory", operation_id = "adjustStock",
    params(("sku" = String, Path, description = "The SKU"), KeyedCommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("stock.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<AdjustStock>,
) -> Result<Accepted, Problem> {
    let command = InventoryCommand::Adjust {
        delta: call.body.delta,
        reason: call.body.reason.clone(),
    };
    let receipt = execute(&api.executors().inventory, &call.path.sku, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
