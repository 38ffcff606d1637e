use std::time::Duration;

use aggregates::order::OrderCommand;
use axum::extract::State;
use event_schemas::{OrderId, ShipmentId, Timestamp};
use http_conventions::Problem;
use identity::verifier::Permission;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::execute;
use crate::openapi::{CommandProblems, KeyedCommandHeaders};
use crate::state::CommandApi;

pub(super) struct DeliverShipment;

/// `{id}` and `{shipment}`.
#[derive(Deserialize)]
pub(super) struct ShipmentPath {
    id: OrderId,
    shipment: ShipmentId,
}

/// When it arrived.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Delivery)]
pub(super) struct Body {
    /// As the carrier says; now if left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Timestamp>,
}

impl Route for DeliverShipment {
    type Path = ShipmentPath;
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::FULFILS;
    const KEY_REQUIRED: bool = true;

    fn without_body() -> Option<Body> {
        Some(Body::default())
    }
}

/// Record that a shipment arrived
#[utoipa::path(
    post, path = "/v1/orders/{id}/shipments/{shipment}/delivered", tag = "orders", operation_id = "deliverShipment",
    params(
        ("id" = String, Path, description = "The order"), ("shipment" = String, Path, description = "The shipment"),
        KeyedCommandHeaders,
    ),
    request_body = Option<Body>,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("order.fulfil"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<DeliverShipment>,
) -> Result<Accepted, Problem> {
    let now = api.services.clock.now();
    let command = not_in_the_future(call.body.delivered_at.unwrap_or(now), now).map(|delivered_at| {
        OrderCommand::RecordDelivered {
            shipment_id: call.path.shipment,
            delivered_at,
        }
    });
    let receipt = execute(&api.executors().orders, call.path.id, &call, command).await?;
    Ok(Accepted::changed(&receipt))
}

fn not_in_the_future(time: Timestamp, now: Timestamp) -> Result<Timestamp, Problem> {
    // A minute for the carrier's clock.
    if now
        .saturating_add(Duration::from_secs(60))
        .is_ok_and(|latest| time <= latest)
    {
        return Ok(time);
    }
    Err(Problem::refused("time-in-the-future", "In the future")
        .field("/delivered_at", "a delivery is recorded when it has taken place"))
}
