use aggregates::product::ProductCommand;
use axum::extract::State;
use http_conventions::Problem;
use identity::verifier::Permission;

use super::ProductPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, NoBody, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct PublishProduct;

impl Route for PublishProduct {
    type Path = ProductPath;
    type Body = NoBody;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;

    fn without_body() -> Option<NoBody> {
        Some(NoBody {})
    }
}

/// Publish a product
///
/// From now on shoppers see it and can buy its variants.
#[utoipa::path(
    post, path = "/v1/products/{id}/publish", tag = "products", operation_id = "publishProduct",
    params(("id" = String, Path, description = "The product"), CommandHeaders), request_body = Option<NoBody>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<PublishProduct>,
) -> Result<Accepted, Problem> {
    let receipt = execute(
        &api.executors().products,
        call.path.id,
        &call,
        Ok(ProductCommand::Publish),
    )
    .await?;
    Ok(Accepted::changed(&receipt))
}
