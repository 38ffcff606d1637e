use aggregates::inventory::InventoryCommand;
use axum::extract::State;
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

pub(super) struct SetBackorderLimit;

/// How many units may be promised beyond what is on hand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BackorderLimit)]
pub(super) struct Body {
    limit: u32,
}

impl Route for SetBackorderLimit {
    type Path = StockPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = true;
}

/// Set the back-order limit
///
/// How many units may be promised beyond what is on hand.
#[utoipa::path(
    post, path = "/v1/inventory/{sku}/backorder-limit", tag = "inventory", operation_id = "setBackorderLimit",
    params(("sku" = String, Path, description = "The SKU"), KeyedCommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("stock.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<SetBackorderLimit>,
) -> Result<Accepted, Problem> {
    let command = InventoryCommand::SetBackorderLimit {
        limit: call.body.limit,
    };
    let receipt = execute(&api.executors().inventory, &call.path.sku, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
