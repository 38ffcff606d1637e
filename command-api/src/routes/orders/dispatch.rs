use aggregates::order::OrderCommand;
use axum::extract::State;
use event_schemas::{Code, LineQuantity, Reference, ShipmentId};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OrderPath;
use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::state::CommandApi;

pub(super) struct DispatchShipment;

/// A parcel that leaves the building.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewShipment)]
pub(super) struct Body {
    #[schema(min_items = 1)]
    lines: Vec<Line>,
    #[schema(value_type = String, example = "royal-mail")]
    carrier: Code,
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    tracking_number: Option<Reference>,
}

/// Units of a line of the order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShippedLine)]
pub(super) struct Line {
    /// The order's line, from 1.
    line_no: u32,
    #[schema(minimum = 1)]
    quantity: u32,
}

/// The order's receipt, and the shipment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShipmentReceipt {
    #[serde(flatten)]
    receipt: ReceiptBody,
    #[schema(value_type = String)]
    shipment_id: ShipmentId,
}

impl Route for DispatchShipment {
    type Path = OrderPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::FULFILS;
    const KEY_REQUIRED: bool = true;
}

/// Ship lines of an order
///
/// Once it is paid; all of it at once or in parts.
#[utoipa::path(
    post, path = "/v1/orders/{id}/shipments", tag = "orders", operation_id = "dispatchShipment",
    params(("id" = String, Path, description = "The order"), KeyedCommandHeaders), request_body = Body,
    responses((status = 201, description = "Dispatched", body = ShipmentReceipt), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("order.fulfil"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<DispatchShipment>,
) -> Result<Accepted<ShipmentReceipt>, Problem> {
    let shipment_id = ShipmentId::for_command(call.command_id);
    let lines = call.body.lines.iter();
    let command = OrderCommand::Dispatch {
        shipment_id,
        lines: lines
            .map(|line| LineQuantity {
                line_no: line.line_no,
                quantity: line.quantity,
            })
            .collect(),
        carrier: call.body.carrier.clone(),
        tracking_number: call.body.tracking_number.clone(),
    };
    let receipt = execute(&api.executors().orders, call.path.id, &call, Ok(command)).await?;
    let Accepted {
        body: receipt,
        created,
        replayed,
    } = Accepted::created(&receipt, "/v1/orders");
    Ok(Accepted {
        body: ShipmentReceipt { receipt, shipment_id },
        created,
        replayed,
    })
}
