use aggregates::product::ProductCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;

use super::{DetailsBody, ProductPath};
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct ChangeDetails;

impl Route for ChangeDetails {
    type Path = ProductPath;
    type Body = DetailsBody;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;
}

/// Change a product's details
///
/// Sets all of them: what is left out is empty afterwards.
#[utoipa::path(
    post, path = "/v1/products/{id}/details", tag = "products", operation_id = "changeProductDetails",
    params(("id" = String, Path, description = "The product"), CommandHeaders), request_body = DetailsBody,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    mut call: Call<ChangeDetails>,
) -> Result<Accepted, Problem> {
    let command = ProductCommand::ChangeDetails {
        details: std::mem::take(&mut call.body).into(),
    };
    let receipt = execute(&api.executors().products, call.path.id, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
