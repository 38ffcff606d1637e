//! `/v1/orders/{id}/stream`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use axum::body::Body;
use event_schemas::{Actor, ActorKind};
use http_body_util::BodyExt as _;
use identity::verifier::Role;
use support::{Shop, order, order_id, paid, payment_required, person, placed, soon, start};

struct Events {
    body: Body,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    id: String,
    status: String,
}

impl Events {
    async fn open(shop: &Shop, token: &str, last: Option<&str>) -> Self {
        let headers: Vec<(&'static str, &str)> = last.into_iter().map(|id| ("last-event-id", id)).collect();
        let path = format!("/v1/orders/{}/stream", order_id(1));
        let response = shop.respond(&path, Some(token), &headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// The next event that is no comment; none at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::trim)
                };
                let Some(data) = field("data:") else { continue };
                assert_eq!(field("event:"), Some("order"));
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                let status = data["status"].as_str().unwrap().to_owned();
                return Some(Event {
                    id: field("id:").unwrap().to_owned(),
                    status,
                });
            }
            let frame = soon("an event", self.body.frame()).await?.unwrap();
            self.text
                .push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
}

async fn with_order() -> (Shop, String) {
    let shop = start().await;
    let at = "2026-01-01T10:00:00Z".parse().unwrap();
    shop.tell(
        order(1),
        &person(ActorKind::Customer, 1),
        [placed(1, 1, 1, "GB", at)],
    )
    .await;
    let token = shop.token(Role::Customer, 1).await;
    (shop, token)
}

#[tokio::test]
async fn a_stream_tells_each_change_and_goes_on_where_it_stopped() {
    let (shop, token) = with_order().await;
    let system = Actor::system("test");
    let mut events = Events::open(&shop, &token, None).await;
    let first = events.next().await.unwrap();
    assert_eq!(first.status, "placed");
    shop.append(order(1), &system, [payment_required(1, 500)]).await;
    let second = events.next().await.unwrap();
    assert_eq!(second.status, "awaiting-payment");
    assert_ne!(first.id, second.id);
    drop(events);

    // Nothing new: nothing is told until something is.
    let mut events = Events::open(&shop, &token, Some(&second.id)).await;
    let told = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
    assert!(told.is_err(), "told again: {told:?}");
    shop.append(order(1), &system, [paid(1, 500)]).await;
    assert_eq!(events.next().await.unwrap().status, "paid");
    drop(events);

    // Something was missed: the order as it is now comes at once.
    let mut events = Events::open(&shop, &token, Some(&first.id)).await;
    assert_eq!(events.next().await.unwrap().status, "paid");
}

#[tokio::test]
async fn a_stream_ends_with_the_token() {
    let (shop, token) = with_order().await;
    let mut events = Events::open(&shop, &token, None).await;
    assert!(events.next().await.is_some());
    shop.clock.advance(Duration::from_secs(601));
    // Whatever wakes the stream next: it is not told.
    shop.append(order(1), &Actor::system("test"), [payment_required(1, 500)])
        .await;
    assert_eq!(events.next().await, None);
    let path = format!("/v1/orders/{}/stream", order_id(1));
    shop.clock.advance(Duration::from_secs(5));
    shop.get(&path, &token).await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_stream_ends_when_its_reader_may_no_longer_see_the_order() {
    let (shop, _) = with_order().await;
    let staff = shop.token(Role::Staff, 9).await;
    let mut events = Events::open(&shop, &staff, None).await;
    assert!(events.next().await.is_some());
    // Already waiting when the role is taken away: what it wakes up for is not told.
    let mut next = std::pin::pin!(events.next());
    let told = tokio::time::timeout(Duration::from_millis(100), &mut next).await;
    assert!(told.is_err(), "told without a change: {told:?}");
    shop.set_role(9, Role::Customer).await;
    shop.append(order(1), &Actor::system("test"), [payment_required(1, 500)])
        .await;
    assert_eq!(next.await, None);
}
