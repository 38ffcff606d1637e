use aggregates::cart::CartCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;

use super::ItemPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, NoBody, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct RemoveItem;

impl Route for RemoveItem {
    type Path = ItemPath;
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = super::USES;
    const KEY_REQUIRED: bool = false;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Take something out of the cart
#[utoipa::path(
    post, path = "/v1/carts/mine/items/{sku}/remove", tag = "carts", operation_id = "removeCartItem",
    params(("sku" = String, Path, description = "A SKU in the cart"), CommandHeaders),
    request_body = Option<NoBody>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<RemoveItem>,
) -> Result<Accepted, Problem> {
    let command = CartCommand::RemoveItem {
        sku: call.path.sku.clone(),
    };
    let receipt = execute(&api.executors().carts, call.cart(), &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
