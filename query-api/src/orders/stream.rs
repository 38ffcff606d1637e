use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::State;
use axum::http::Request;
use axum::http::request::Parts;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use event_schemas::OrderId;
use futures_util::{Stream, stream};
use http_conventions::{Path, Problem};
use identity::verifier::{Caller, Permission};
use projections::orders::OrderView;
use projections::{DocId, DocWatch};
use tokio::time::timeout;

use super::of_order;
use crate::QueryApi;
use crate::read::{Refusals, owned_or};

/// Keeps proxies from taking a quiet stream for a dead one, and finds clients that are gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// An order as it changes: server-sent events named `order`, each with the whole order as data and its entity tag as
/// id. Begins with the order as it is, unless `Last-Event-ID` says that the client has that already; steps in quick
/// succession may be told as one. Ends when the token does: come back with a new one.
#[utoipa::path(
    get, path = "/v1/orders/{id}/stream", tag = "orders", operation_id = "streamOrder",
    params(
        ("id" = String, Path, format = Uuid),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id received."),
    ),
    responses(
        (status = 200, description = "A stream of orders.", body = OrderView, content_type = "text/event-stream"),
        (status = 404, description = "Not there, or not yours.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
    security(("bearer" = [])),
    extensions(("x-omisys-access" = json!("owner|order.read_all"))),
)]
pub(crate) async fn stream(
    caller: Caller,
    State(api): State<QueryApi>,
    Path(id): Path<OrderId>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let orders = api.views.orders();
    // Watched before it is read, so that no change falls in between.
    let watch = orders.watch(&id.into());
    of_order(&api, orders, &caller, id, None, |order| order.customer_id).await?;
    let (request, _) = request.into_parts();
    let seen = request
        .headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let changes = Changes {
        seen: seen.map(str::to_owned),
        id: id.into(),
        watch,
        first: true,
        request,
        api,
    };
    Ok(Sse::new(changes.events()).into_response())
}

struct Changes {
    api: QueryApi,
    id: DocId,
    watch: DocWatch,
    /// The id of what the client has.
    seen: Option<String>,
    first: bool,
    /// Carries the token, which is checked again and again: an account may lose its role meanwhile.
    request: Parts,
}

impl Changes {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut changes| async move {
            let event = changes.next().await?;
            Some((Ok(event), changes))
        })
    }

    /// The next event; none once the token is no longer good, or the read model fails: the client will come back.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let left = self.left().await?;
            if !std::mem::take(&mut self.first) {
                let pause = HEARTBEAT.min(left);
                if timeout(pause, self.watch.changed()).await.is_err() {
                    return self.left().await.map(|_| Event::default().comment(""));
                }
                self.left().await?;
            }
            let order = self.api.views.orders().get(&self.id).await.ok()??;
            let tag = order.etag();
            let id = tag.trim_matches('"');
            if self.seen.as_deref() == Some(id) {
                continue;
            }
            self.seen = Some(id.to_owned());
            // JSON text has no line break, which is all that event data may not have.
            let text = String::from_utf8(order.json().to_vec()).ok()?;
            return Some(Event::default().event("order").id(id).data(text));
        }
    }

    /// How long the token is good for, for all that is known now; none once it isn't, or no longer opens this order.
    async fn left(&mut self) -> Option<Duration> {
        let caller = Caller::from_request_parts(&mut self.request, &self.api)
            .await
            .ok()?;
        let order = self.api.views.orders().get(&self.id).await.ok()??;
        if !owned_or(&caller, Permission::OrderReadAll)(order.doc.customer_id) {
            return None;
        }
        let left = caller.expires_at.duration_since(self.api.clock.now());
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }
}
