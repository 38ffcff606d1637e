use aggregates::product::ProductCommand;
use axum::extract::State;
use event_schemas::{ProductId, Version};
use http_conventions::Problem;
use identity::verifier::Permission;

use super::DetailsBody;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct CreateProduct;

impl Route for CreateProduct {
    type Path = ();
    type Body = DetailsBody;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;
}

/// Create a product
///
/// As a draft without variants. Its id comes with the receipt.
#[utoipa::path(
    post, path = "/v1/products", tag = "products", operation_id = "createProduct",
    params(CommandHeaders), request_body = DetailsBody,
    responses((status = 201, description = "Created", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    mut call: Call<CreateProduct>,
) -> Result<Accepted, Problem> {
    // Derived from the command: a retry finds the product that its first try created.
    let id = ProductId::for_command(call.command_id);
    call.expected_version.get_or_insert(Version(0));
    let command = ProductCommand::Create {
        details: std::mem::take(&mut call.body).into(),
    };
    let receipt = execute(&api.executors().products, id, &call, Ok(command)).await?;
    Ok(Accepted::created(&receipt, "/v1/products"))
}
