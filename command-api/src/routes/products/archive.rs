use aggregates::product::ProductCommand;
use axum::extract::State;
use event_schemas::Code;
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ProductPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct ArchiveProduct;

/// Why a product is archived.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProductArchival)]
pub(super) struct Body {
    #[schema(value_type = String, example = "discontinued")]
    reason: Code,
}

impl Route for ArchiveProduct {
    type Path = ProductPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::WRITES;
    const KEY_REQUIRED: bool = false;
}

/// Archive a product
///
/// For good: an archived product never changes again.
#[utoipa::path(
    post, path = "/v1/products/{id}/archive", tag = "products", operation_id = "archiveProduct",
    params(("id" = String, Path, description = "The product"), CommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("product.write"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<ArchiveProduct>,
) -> Result<Accepted, Problem> {
    let command = ProductCommand::Archive {
        reason: call.body.reason.clone(),
    };
    let receipt = execute(&api.executors().products, call.path.id, &call, Ok(command)).await?;
    Ok(Accepted::changed(&receipt))
}
