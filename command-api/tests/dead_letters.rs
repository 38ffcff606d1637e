//! Asking for dead letters to be healed: who may, what is answered, and that one letter is given up and no other.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use event_bus::{DeadLetters, NewDeadLetter, Remedy, Retried};
use event_schemas::{AggregateType, EventId, Position, StreamId, Timestamp, Version};
use identity::verifier::Role;
use serde_json::json;
use support::Shop;

const PATH: &str = "/ops/dead-letters/views.g1%3Aorder%2Fo-1";
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A subscriber with two letters of one order.
async fn parked(shop: &Shop) -> DeadLetters {
    let letters = DeadLetters::open(&shop.database, "views.g1").await.unwrap();
    for (position, reason) in [(7, Some("broken".to_owned())), (9, None)] {
        let stream = StreamId::new(AggregateType::Order, "o-1");
        let letter = NewDeadLetter {
            scope: stream.to_string().into(),
            position: Position(position),
            event_id: EventId {
                stream,
                version: Version(position),
            },
            event_type: "OrderPaid".to_owned(),
            reason,
            parked_at: NOW,
        };
        letters.park(letter).await.unwrap();
    }
    letters
}

/// Does what is asked, as a projector would.
async fn serve(letters: DeadLetters) {
    loop {
        for request in letters.asked_for().await.unwrap() {
            match request.remedy {
                Remedy::Retry => {
                    let retried = Retried::StillParked {
                        handled: 0,
                        reason: "still broken".to_owned(),
                    };
                    letters.answer(&request, retried, NOW).await.unwrap();
                }
                Remedy::Skip { position } => {
                    letters.skip(&request, position, NOW).await.unwrap();
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn healing_is_for_admins_and_says_what_came_of_it() {
    let shop = Shop::open().await;
    let letters = parked(&shop).await;
    let (admin, staff) = (shop.user(Role::Admin).await, shop.user(Role::Staff).await);
    let (retry, skip) = (format!("{PATH}/retry"), format!("{PATH}/skip"));
    staff.post(&retry, json!({})).await.refused(403, "forbidden");
    staff
        .post(&skip, json!({ "position": 7 }))
        .await
        .refused(403, "forbidden");
    assert_eq!(letters.asked_for().await.unwrap(), []);

    // Nobody is there to do it.
    let now = [("prefer", "wait=0")];
    let answer = admin.send(&retry, &now, None).await.expect(202);
    assert_eq!(
        answer.body,
        json!({ "id": "views.g1:order/o-1", "outcome": "accepted", "handled": 0, "detail": null })
    );
    let subscriber = tokio::spawn(serve(letters.clone()));
    let answer = admin.post(&retry, json!({})).await.expect(200);
    assert_eq!(
        (&answer.body["outcome"], &answer.body["detail"]),
        (&json!("still_parked"), &json!("still broken"))
    );

    admin
        .post(&skip, json!({}))
        .await
        .refused(400, "malformed-request");
    admin
        .post(&skip, json!({ "position": 9 }))
        .await
        .refused(409, "not-the-first");
    let answer = admin.post(&skip, json!({ "position": 7 })).await.expect(200);
    assert_eq!(answer.body["outcome"], "skipped");
    let left = letters.show("order/o-1").await.unwrap();
    assert_eq!((left.len(), left[0].position), (1, Position(9)));
    admin
        .post(&skip, json!({ "position": 7 }))
        .await
        .refused(409, "not-the-first");
    admin
        .post("/ops/dead-letters/views.g1%3Aorder%2Fo-2/retry", json!({}))
        .await
        .refused(404, "not-found");
    admin
        .post("/ops/dead-letters/nonsense/retry", json!({}))
        .await
        .refused(400, "malformed-request");
    subscriber.abort();
}
