use aggregates::product::ProductCommand;
use axum::extract::State;
use event_schemas::{ProductId, Sku};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;

use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, NoBody, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct RemoveVariant;

/// `{id}` and `{sku}`.
#[derive(Deserialize)]
pub(super) struct VariantPath {
    id: ProductId,
    sku: Sku,
}

impl Route for RemoveVariant {
    type Path = VariantPath;
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Remove a variant
///
/// The SKU stays the product's, with its stock; adding it again brings it back.
#[utoipa::path(
    post, path = "/v1/products/{id}/variants/{sku}/remove", tag = "products", operation_id = "removeVariant",
    params(
        ("id" = String, Path, description = "The product"), ("sku" = String, Path, description = "The variant"),
        CommandHeaders,
    ),
    request_body = Option<NoBody>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<RemoveVariant>,
) -> Result<Accepted, Problem> {
    let command = ProductCommand::RemoveVariant {
        sku: call.path.sku.clone(),
    };
    let receipt = execute(&api.executors().products, call.path.id, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
