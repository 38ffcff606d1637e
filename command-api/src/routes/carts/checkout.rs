use aggregates::cart::{CartCommand, CartError, CheckOut};
use axum::extract::State;
use event_schemas::{CartEvent, CartId, CountryCode, Event, Money, OrderId};
use event_store::{ExecuteError, Receipt};
use http_conventions::Problem;
use identity::verifier::Permission;
use sagas::fault;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::answer::Accepted;
use crate::call::{Call, Route};
use crate::execute::{Refusal, access_problem, earlier_or, problem, submit};
use crate::follow::Permit;
use crate::openapi::{CommandProblems, KeyedCommandHeaders, MoneySchema};
use crate::order_now::OrderAnswer;
use crate::paying::PaymentInput;
use crate::pricing::{Assortment, Wanted, check_total};
use crate::state::CommandApi;

/// How often a cart that keeps changing is priced.
const MAX_PRICINGS: u32 = 3;

pub(super) struct CheckOutCart;

/// How the cart's order is to be paid, and what it is expected to cost.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckOut)]
pub(super) struct Body {
    payment: PaymentInput,
    /// Where it goes to, ISO 3166-1 alpha-2.
    #[schema(value_type = String, example = "GB")]
    country: CountryCode,
    /// Refuse with 409 `total-changed` unless this is the total.
    #[serde(default)]
    #[schema(value_type = Option<MoneySchema>)]
    expected_total: Option<Money>,
}

impl Route for CheckOutCart {
    type Path = ();
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = &[Permission::OrderPlace];
    const KEY_REQUIRED: bool = true;
}

/// Check the cart out
///
/// Places an order of what is in the cart at the catalogue's prices. Once that is durable the answer is 201, whatever
/// becomes of the order: stock that runs out is `order.status: "cancelled"` with `order.problem`. With
/// `Prefer: wait=N` (at most 10) the answer waits until the order is paid, cancelled or needs its customer.
#[utoipa::path(
    post, path = "/v1/carts/mine/checkout", tag = "carts", operation_id = "checkOutCart",
    params(KeyedCommandHeaders, ("Prefer" = Option<String>, Header, description = "`wait=N` seconds")),
    request_body = Body,
    responses((status = 201, description = "Placed", body = OrderAnswer), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    call: Call<CheckOutCart>,
) -> Result<Accepted<OrderAnswer>, Problem> {
    let cart = call.cart();
    let checked_out = match check_out(&api, &call, cart).await {
        Ok(receipt) => receipt,
        Err(refusal) => earlier_or(&api.executors().carts, cart, &call, refusal).await?,
    };
    fault::point(fault::CHECKOUT_BETWEEN_APPENDS);
    let (order_id, placed) = place(&api, &call, &checked_out).await?;
    api.order_answer(order_id, &placed, checked_out.replayed, call.prefer)
        .await
}

/// Prices the cart and checks it out; prices again what has changed in between.
async fn check_out(api: &CommandApi, call: &Call<CheckOutCart>, cart: CartId) -> Result<Receipt, Problem> {
    let body = &call.body;
    let provider = api.provider(&body.payment)?;
    let now = api.services.clock.now();
    let payment_deadline = api.payment_deadline(now);
    let mut payment = None;
    let mut pricings = 0;
    loop {
        pricings += 1;
        let (wanted, order_id) = wanted(api, call, cart).await?;
        let priced = api.price(&wanted, Assortment::Published).await?;
        check_total(&priced.totals, body.expected_total)?;
        let permit = admit(api, call, order_id)?;
        let method = match &payment {
            Some(method) => method,
            None => payment.insert(
                api.keep_token(&body.payment, provider.clone(), payment_deadline)
                    .await?,
            ),
        };
        let command = CartCommand::CheckOut(Box::new(CheckOut {
            lines: priced.lines,
            shipping: priced.shipping,
            totals: priced.totals,
            country: body.country.clone(),
            payment: method.clone(),
            occurred_at: now,
            payment_deadline,
        }));
        match api.executors().carts.submit(cart, call.request(command)).await {
            Ok(receipt) => {
                if let (Some(permit), false) = (permit, receipt.replayed) {
                    permit.placed();
                }
                return Ok(receipt);
            }
            Err(ExecuteError::Refused(CartError::PricedOtherwise)) if pricings < MAX_PRICINGS => {}
            Err(error) => return Err(problem(error)),
        }
    }
}

/// What is in the cart, and the order that it would become.
async fn wanted(
    api: &CommandApi,
    call: &Call<CheckOutCart>,
    cart: CartId,
) -> Result<(Vec<Wanted>, OrderId), Problem> {
    let (owner, expected) = (call.customer(), call.expected_version);
    let read = api.executors().carts.with_state(cart, move |cart, actual| {
        if expected.is_some_and(|expected| expected != actual) {
            return Err(ExecuteError::VersionMismatch { actual });
        }
        if let Some(order_id) = cart.checked_out_as() {
            return Err(ExecuteError::Refused(CartError::CheckedOut { order_id }));
        }
        if cart.lines().is_empty() {
            return Err(ExecuteError::Refused(CartError::Empty));
        }
        let lines = cart.lines().iter();
        let wanted = lines.map(|line| Wanted {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: None,
        });
        Ok((wanted.collect(), cart.next_order_id(owner)))
    });
    read.await.map_err(access_problem)?.map_err(problem)
}

fn admit(api: &CommandApi, call: &Call<CheckOutCart>, order_id: OrderId) -> Result<Option<Permit>, Problem> {
    if call.caller.role.is_privileged() {
        return Ok(None);
    }
    let now = api.services.clock.now();
    let permit = api.unpaid.admit(
        order_id,
        call.customer(),
        call.address.bucket(),
        api.payment_deadline(now),
        now,
    );
    permit.map(Some).map_err(Refusal::problem)
}

/// Runs what follows from `CartCheckedOut` at once, under the policy's id; after a crash in between the policy does.
async fn place(
    api: &CommandApi,
    call: &Call<CheckOutCart>,
    checked_out: &Receipt,
) -> Result<(OrderId, Receipt), Problem> {
    let recorded = api.recorded(checked_out).await?;
    let Event::Cart(CartEvent::CartCheckedOut(event)) = &recorded.event else {
        return Err(Problem::internal(
            "a check-out that was accepted recorded something else",
        ));
    };
    let (command_id, order_id, command) = sagas::policies::place_order_command(&recorded.id(), event);
    let request = call.follow_up(&recorded, command_id, command);
    Ok((
        order_id,
        submit(&api.executors().orders, order_id, request).await?,
    ))
}
