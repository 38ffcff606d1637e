use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use event_schemas::AccountId;
use http_conventions::{Cursor, Limit, Page, Path, Problem, Query, StrictJson};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{AccountView, unavailable};
use crate::permissions::{Permission, Role};
use crate::service::Identity;
use crate::values::Email;
use crate::verifier::Caller;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AccountQuery {
    /// The one account with this address.
    #[param(value_type = Option<String>)]
    email: Option<Email>,
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100)]
    limit: Limit,
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// Find accounts.
#[utoipa::path(
    get, path = "/auth/accounts", tag = "identity", security(("bearer" = [])),
    params(AccountQuery),
    responses(
        (status = 200, description = "A page of accounts", body = Page<AccountView>),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No or a bad token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without `account.read`", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("account.read"))),
)]
pub(super) async fn list(
    State(identity): State<Identity>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<AccountQuery>,
) -> Result<Response, Problem> {
    caller.require(Permission::AccountRead)?;
    let found = if let Some(email) = query.email {
        identity
            .find_account(email)
            .await
            .map(|account| account.into_iter().collect())
    } else {
        let after: Option<AccountId> = query.cursor.as_ref().map(Cursor::decode).transpose()?;
        identity.accounts(after, query.limit.get() + 1).await
    };
    let found: Vec<_> = found.map_err(|error| unavailable(&error))?;
    let items = found.iter().map(AccountView::from).collect();
    Ok(Page::cut(items, query.limit, |account| account.id).answer(&uri))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleRequest {
    /// `customer`, `staff` or `admin`.
    role: Role,
}

/// Give an account a role. Its sessions end, and so do the access tokens of staff and admins.
#[utoipa::path(
    post, path = "/auth/accounts/{id}/roles", tag = "identity", security(("bearer" = [])),
    params(("id" = String, Path, format = "uuid")),
    request_body = RoleRequest,
    responses(
        (status = 200, description = "The account with its role", body = AccountView),
        (status = 400, description = "Malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No or a bad token", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without `account.write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such account", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`last-admin`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`guest-role`", body = Problem, content_type = "application/problem+json"),
    ),
    extensions(("x-omisys-access" = json!("account.write"))),
)]
pub(super) async fn set_role(
    State(identity): State<Identity>,
    caller: Caller,
    Path(id): Path<AccountId>,
    StrictJson(body): StrictJson<RoleRequest>,
) -> Result<impl IntoResponse, Problem> {
    caller.require(Permission::AccountWrite)?;
    let account = identity.set_role(id, body.role).await?;
    tracing::info!(by = %caller.account_id, account = %id, role = %account.role, "role set");
    Ok(Json(AccountView::from(&account)))
}
