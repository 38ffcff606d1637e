use std::time::Duration;

use aggregates::order::OrderCommand;
use aggregates::{cart, order};
use axum::extract::State;
use event_schemas::{CountryCode, CustomerId, Money, OrderId, OrderPlaced, Sku, Timestamp, Version};
use http_conventions::Problem;
use identity::verifier::{Caller, Permission};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::answer::Accepted;
use crate::call::{Call, Route};
use crate::execute::{Refusal, execute};
use crate::follow::Permit;
use crate::openapi::{CommandProblems, KeyedCommandHeaders, MoneySchema};
use crate::order_now::OrderAnswer;
use crate::paying::PaymentInput;
use crate::pricing::{Assortment, Wanted, check_total};
use crate::state::CommandApi;

/// How far ahead of our clock a given time may be.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

pub(super) struct PlaceOrder;

/// An order without a cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOrder)]
pub(super) struct Body {
    /// At most 200; for staff 2,000.
    #[schema(min_items = 1, max_items = 2000)]
    lines: Vec<Line>,
    payment: PaymentInput,
    /// Where it goes to, ISO 3166-1 alpha-2.
    #[schema(value_type = String, example = "GB")]
    country: CountryCode,
    /// Refuse with 409 `total-changed` unless this is the total.
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    expected_total: Option<Money>,
    /// Whom it is for, if not the caller; needs `order.price_override`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    customer: Option<CustomerId>,
    /// When the sale took place, if not now; needs `order.backdate`.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    occurred_at: Option<Timestamp>,
}

/// Units of one SKU.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOrderLine)]
pub(super) struct Line {
    #[schema(value_type = String, example = "MUG-1")]
    sku: Sku,
    /// At most 999; for staff 100,000.
    #[schema(minimum = 1, maximum = 100_000)]
    quantity: u32,
    /// As agreed with the customer, instead of the catalogue's; needs `order.price_override`.
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    unit_price: Option<Money>,
}

impl Route for PlaceOrder {
    type Path = ();
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::OrderPlace];
    const KEY_REQUIRED: bool = true;

    fn takes_large_body(caller: &Caller) -> bool {
        sells_for_the_shop(caller)
    }
}

fn sells_for_the_shop(caller: &Caller) -> bool {
    caller.may(Permission::OrderPriceOverride)
}

/// Place an order without a cart
///
/// Once it is durable the answer is 201, whatever becomes of the order: see the check-out. Staff with
/// `order.price_override` may name the customer and agreed unit prices; with `order.backdate` also the time of the sale.
#[utoipa::path(
    post, path = "/v1/orders", tag = "orders", operation_id = "placeOrder",
    params(KeyedCommandHeaders, ("Prefer" = Option<String>, Header, description = "`wait=N` seconds")),
    request_body = Body,
    responses((status = 201, description = "Placed", body = OrderAnswer), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    mut call: Call<PlaceOrder>,
) -> Result<Accepted<OrderAnswer>, Problem> {
    authorise_terms(&call)?;
    // Derived from the command: a retry finds the order that its first try placed.
    let order_id = OrderId::for_command(call.command_id);
    call.expected_version.get_or_insert(Version(0));
    let (command, permit) = match prepare(&api, &call, order_id).await {
        Ok((command, permit)) => (Ok(command), permit),
        Err(refusal) => (Err(refusal), None),
    };
    let receipt = execute(&api.executors().orders, order_id, &call, command).await?;
    if let (Some(permit), false) = (permit, receipt.replayed) {
        permit.placed();
    }
    api.order_answer(order_id, &receipt, receipt.replayed, call.prefer)
        .await
}

/// 403 for terms that this caller may not set.
fn authorise_terms(call: &Call<PlaceOrder>) -> Result<(), Problem> {
    let Body {
        lines,
        customer,
        occurred_at,
        ..
    } = &call.body;
    let for_another = customer.is_some_and(|customer| !call.caller.is(customer));
    if for_another || lines.iter().any(|line| line.unit_price.is_some()) {
        call.caller.require(Permission::OrderPriceOverride)?;
    }
    if occurred_at.is_some() {
        call.caller.require(Permission::OrderBackdate)?;
    }
    Ok(())
}

/// Prices the order, counts it against the limits, and keeps its payment token.
async fn prepare(
    api: &CommandApi,
    call: &Call<PlaceOrder>,
    order_id: OrderId,
) -> Result<(OrderCommand, Option<Permit>), Problem> {
    let (body, now) = (&call.body, api.services.clock.now());
    check_size(body, &call.caller)?;
    let occurred_at = check_time(body.occurred_at, now)?;
    let provider = api.provider(&body.payment)?;
    let staff = sells_for_the_shop(&call.caller);
    let assortment = if staff {
        Assortment::Everything
    } else {
        Assortment::Published
    };
    let lines = body.lines.iter();
    let wanted: Vec<Wanted> = lines
        .map(|line| Wanted {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price,
        })
        .collect();
    let priced = api.price(&wanted, assortment).await?;
    check_total(&priced.totals, body.expected_total)?;

    let customer = body.customer.unwrap_or_else(|| call.customer());
    let payment_deadline = api.payment_deadline(now);
    let permit = if staff {
        None
    } else {
        let admitted = api
            .unpaid
            .admit(order_id, customer, call.address.bucket(), payment_deadline, now);
        Some(admitted.map_err(Refusal::problem)?)
    };
    let placed = OrderPlaced {
        order_id,
        customer,
        lines: priced.lines,
        shipping: priced.shipping,
        totals: priced.totals,
        country: body.country.clone(),
        cart_id: None,
        payment: api.keep_token(&body.payment, provider, payment_deadline).await?,
        occurred_at,
        payment_deadline,
    };
    Ok((OrderCommand::Place(Box::new(placed)), permit))
}

fn check_size(body: &Body, caller: &Caller) -> Result<(), Problem> {
    let (max_lines, max_quantity) = if sells_for_the_shop(caller) {
        (order::MAX_LINES, order::MAX_QUANTITY)
    } else {
        (cart::MAX_LINES, cart::MAX_QUANTITY)
    };
    if body.lines.is_empty() || body.lines.len() > max_lines {
        return Err(Problem::refused("too-many-lines", "Not that many lines")
            .field("/lines", format!("an order has 1 to {max_lines} lines"))
            .with("max", max_lines));
    }
    match body
        .lines
        .iter()
        .position(|line| !(1..=max_quantity).contains(&line.quantity))
    {
        None => Ok(()),
        Some(index) => Err(Problem::refused("quantity-out-of-range", "Quantity out of range")
            .field(
                format!("/lines/{index}/quantity"),
                format!("a line has 1 to {max_quantity} units"),
            )
            .with("max", max_quantity)),
    }
}

fn check_time(given: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Problem> {
    let Some(given) = given else { return Ok(now) };
    if given.duration_since(now) > CLOCK_TOLERANCE.try_into().unwrap_or_default() {
        return Err(Problem::refused("time-in-the-future", "In the future")
            .field("/occurred_at", "a sale is recorded when it has taken place"));
    }
    Ok(given)
}
