use std::sync::Arc;

use aggregates::cart::CartCommand;
use axum::extract::State;
use event_schemas::{CartEvent, CartId, CustomerId, Event, RecordedEvent, Version};
use event_store::Receipt;
use http_conventions::Problem;
use identity::verifier::{Permission, Role, TokenError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::answer::{Accepted, ReceiptBody};
use crate::call::{Call, Route};
use crate::execute::{access_problem, execute, submit};
use crate::openapi::{CommandHeaders, CommandProblems};
use crate::state::CommandApi;

pub(super) struct MergeCart;

/// The other side of the merge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CartMerge)]
pub(super) struct Body {
    /// The guest's access token: the proof that its cart is the caller's to take.
    #[schema(max_length = 4096)]
    guest_token: String,
}

impl Route for MergeCart {
    type Path = ();
    type Body = Body;
    const PERMISSIONS: &'static [Permission] = super::USES;
    const KEY_REQUIRED: bool = false;
}

/// Take over a guest's cart
///
/// At login: moves every line of the guest's cart into the caller's. While the caller's cart is checked out the lines
/// are kept, and appear when it opens again.
#[utoipa::path(
    post, path = "/v1/carts/mine/merge", tag = "carts", operation_id = "mergeCart",
    params(CommandHeaders), request_body = Body,
    responses((status = 200, description = "Accepted", body = ReceiptBody), CommandProblems),
    security(("bearer" = [])), extensions(("x-omisys-access" = json!("caller"))),
)]
pub(super) async fn handler(
    State(api): State<CommandApi>,
    mut call: Call<MergeCart>,
) -> Result<Accepted, Problem> {
    let guest = guest(&api, &call.body.guest_token).await?;
    let source = CartId::for_owner(guest);
    // `If-Match` speaks of the caller's cart, and what merges is never lost by its changing meanwhile.
    call.expected_version = None;
    let prepared = check_room(&api, source, call.cart())
        .await
        .map(|()| CartCommand::MergeInto {
            target_owner: call.customer(),
        });
    let given = execute(&api.executors().carts, source, &call, prepared).await?;
    let taken = match merged_into(&api, &given, call.cart()).await? {
        Some(merged) => take(&api, &call, source, &merged).await?,
        None => take_nothing(&api, &call, source).await?,
    };
    Ok(Accepted {
        replayed: given.replayed,
        ..Accepted::changed(&taken)
    })
}

/// Whose token it is; 422 unless it is a guest's.
async fn guest(api: &CommandApi, token: &str) -> Result<CustomerId, Problem> {
    let refused = |detail: String| {
        Problem::refused("guest-token-refused", "Guest token refused").field("/guest_token", detail)
    };
    match api.services.verifier.authenticate(token).await {
        Ok(caller) if caller.role == Role::Guest => Ok(caller.customer_id()),
        Ok(_) => Err(refused("not the token of a guest".to_owned())),
        Err(error @ TokenError::Unchecked) => Err(error.problem()),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// 422 unless the target can hold what the source has: a merge that has begun drops nothing.
async fn check_room(api: &CommandApi, source: CartId, target: CartId) -> Result<(), Problem> {
    let carts = &api.executors().carts;
    let lines = carts
        .with_state(source, |cart, _| cart.lines().to_vec())
        .await
        .map_err(access_problem)?;
    let room = carts
        .with_state(target, move |cart, _| cart.has_room_for(&lines))
        .await
        .map_err(access_problem)?;
    if room {
        return Ok(());
    }
    Err(Problem::refused("cart-full", "The cart is full")
        .detail("the two carts together have more lines or units than one cart may hold"))
}

/// The event by which the source gave its lines to `to`; none if it had none to give. (A source that was empty already
/// may have given its lines to somebody else before.)
async fn merged_into(
    api: &CommandApi,
    given: &Receipt,
    to: CartId,
) -> Result<Option<Arc<RecordedEvent>>, Problem> {
    if given.version == Version(0) {
        return Ok(None);
    }
    let last = api.recorded(given).await?;
    let gave = matches!(&last.event, Event::Cart(CartEvent::CartMergedInto { target, .. }) if *target == to);
    Ok(gave.then_some(last))
}

/// Runs what follows from `CartMergedInto` at once, under the policy's id; after a crash in between the policy does.
/// Answers the target's receipt.
async fn take(
    api: &CommandApi,
    call: &Call<MergeCart>,
    source: CartId,
    merged: &RecordedEvent,
) -> Result<Receipt, Problem> {
    let Event::Cart(CartEvent::CartMergedInto {
        target,
        target_owner,
        lines,
    }) = &merged.event
    else {
        return Err(Problem::internal("not a CartMergedInto"));
    };
    let (command_id, command) =
        sagas::policies::merge_command(&merged.id(), source, *target, *target_owner, lines.clone());
    submit(
        &api.executors().carts,
        *target,
        call.follow_up(merged, command_id, command),
    )
    .await
}

/// The receipt of a merge of an empty cart: of the target, which stays as it is.
async fn take_nothing(api: &CommandApi, call: &Call<MergeCart>, source: CartId) -> Result<Receipt, Problem> {
    let command = CartCommand::Merge {
        owner: call.customer(),
        from: source,
        lines: Vec::new(),
    };
    execute(&api.executors().carts, call.cart(), call, Ok(command)).await
}
