use aggregates::cart::CartCommand;
use axum::extract::State;
use event_schemas::Sku;
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct AddItem;

/// Units to put into the cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CartItem)]
pub(super) struct Body {
    #[schema(value_type = String, example = "MUG-1")]
    sku: Sku,
    /// Added to what is there.
    #[schema(minimum = 1, maximum = 999)]
    quantity: u32,
}

impl Route for AddItem {
    type Path = ();
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::USES;
    const KEY_REQUIRED: bool = false;
}

/// Put something into the cart
///
/// The first item opens the caller's cart. Nothing is reserved before the check-out.
#[utoipa::path(
    post, path = "/v1/carts/mine/items", tag = "carts", operation_id = "addCartItem",
    params(CommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(State(api): State<CommandApi>, call: Call<AddItem>) -> Result<Accepted, Problem> {
    let Body { sku, quantity } = &call.body;
    let command = api.check_for_sale(sku).await.map(|()| CartCommand::AddItem {
        owner: call.customer(),
        sku: sku.clone(),
        quantity: *quantity,
    });
    let receipt = execute(&api.executors().carts, call.cart(), &call, command).await?;
    Ok(Accepted::changed(&receipt))
}
