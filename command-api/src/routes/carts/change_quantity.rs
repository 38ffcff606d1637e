use aggregates::cart::CartCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ItemPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct ChangeQuantity;

/// How many units there should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CartQuantity)]
pub(super) struct Body {
    /// The new quantity.
    #[schema(minimum = 1, maximum = 999)]
    quantity: u32,
}

impl Route for ChangeQuantity {
    type Path = ItemPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::USES;
    const KEY_REQUIRED: bool = false;
}

/// Change how many units are in the cart
#[utoipa::path(
    post, path = "/v1/carts/mine/items/{sku}/quantity", tag = "carts", operation_id = "changeCartQuantity",
    params(("sku" = String, Path, description = "A SKU in the cart"), CommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<ChangeQuantity>,
) -> Result<Accepted, Problem> {
    let command = CartCommand::ChangeQuantity {
        sku: call.path.sku.clone(),
        quantity: call.body.quantity,
    };
    let receipt = execute(&api.executors().carts, call.cart(), &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
