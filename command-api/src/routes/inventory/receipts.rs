use aggregates::inventory::InventoryCommand;
use axum::extract::State;
use event_schemas::Reference;
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

pub(super) struct ReceiveStock;

/// Goods that came in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StockReceipt)]
pub(super) struct Body {
    #[schema(minimum = 1)]
    quantity: u32,
    #[schema(value_type = String, min_length = 1, max_length = 128, example = "delivery 4711")]
    reference: Reference,
}

impl Route for ReceiveStock {
    type Path = StockPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = true;
}

/// Receive stock
///
/// Units that have come in, with the delivery note or document they came with.
#[utoipa::path(
    post, path = "/v1/inventory/{sku}/receipts", tag = "inventory", operation_id = "receiveStock",
    params(("sku" = String, Path, description = "The SKU"), KeyedCommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("stock.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<ReceiveStock>,
) -> Result<Accepted, Problem> {
    let command = InventoryCommand::Receive {
        quantity: call.body.quantity,
        reference: call.body.reference.clone(),
    };
    let receipt = execute(&api.executors().inventory, &call.path.sku, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
