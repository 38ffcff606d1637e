use aggregates::cart::CartCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;

use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, NoBody, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct ClearCart;

impl Route for ClearCart {
    type Path = ();
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = super::USES;
    const KEY_REQUIRED: bool = false;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Empty the cart
#[utoipa::path(
    post, path = "/v1/carts/mine/clear", tag = "carts", operation_id = "clearCart",
    params(CommandHeaders), request_body = Option<NoBody>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<ClearCart>,
) -> Result<Accepted, Problem> {
    let receipt = execute(&api.executors().carts, call.cart(), &call, Ok(CartCommand::Clear)).await?;
    Ok(Accepted::changed(&receipt))
}
