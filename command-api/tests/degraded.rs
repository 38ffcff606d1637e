//! With the database cut off: 503 with `Retry-After`, and nothing of our insides.

mod support;

use identity::verifier::Role;
use serde_json::json;
use support::{Shop, buying};

#[tokio::test]
async fn without_the_log_every_command_is_503_and_says_nothing_of_why() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let user = shop.user(Role::Guest).await;
    user.add("A", 1).await.expect(200);
    let order = user.buy("A").await.expect(201);
    let order = order.body["order"]["id"].as_str().unwrap();
    shop.database.close().await.unwrap();

    let answers = [
        user.add("A", 1).await,
        user.check_out("k").await,
        user.post("/v1/carts/mine/clear", json!({})).await,
        user.post("/v1/orders", buying("A", 1)).await,
        user.post(&format!("/v1/orders/{order}/cancel"), json!({})).await,
        user.post_as("/v1/orders", "key-2", buying("A", 1)).await,
    ];
    for answer in answers {
        let answer = answer.refused(503, "unavailable");
        assert!(answer.headers.contains_key("retry-after"));
        let text = answer.body.to_string().to_lowercase();
        for inside in ["sql", "sqlite", "database", "log", "closed", "writer"] {
            assert!(!text.contains(inside), "{text}");
        }
    }
}
