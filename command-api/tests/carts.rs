//! The caller's cart, and taking over a guest's.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use std::pin::pin;

use futures_util::poll;
use identity::verifier::Role;
use serde_json::json;
use support::{Answer, Shop, User};

async fn merge(user: &User, guest: &User, key: &str) -> Answer {
    user.post_as("/v1/carts/mine/merge", key, json!({ "guest_token": guest.token }))
        .await
}

async fn lines(shop: &Shop, user: &User) -> Vec<(String, u32)> {
    let (cart, _) = shop.executors.carts.load(user.cart()).await.unwrap();
    cart.lines()
        .iter()
        .map(|line| (line.sku.to_string(), line.quantity))
        .collect()
}

#[tokio::test]
async fn filling_and_emptying_a_cart() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let user = shop.user(Role::Guest).await;
    let added = user.add("A", 2).await.expect(200);
    assert_eq!(
        (added.body["type"].as_str(), added.id()),
        (Some("cart"), user.cart().to_string())
    );
    user.add("NO-SUCH", 1).await.refused(422, "not-for-sale");
    user.add("A", 0).await.refused(422, "quantity-out-of-range");
    let many = user.add("A", 998).await.refused(422, "quantity-out-of-range");
    assert_eq!(many.body["max"], 999);
    user.post("/v1/carts/mine/items/A/quantity", json!({ "quantity": 5 }))
        .await
        .expect(200);
    assert_eq!(lines(&shop, &user).await, [("A".to_owned(), 5)]);
    user.post("/v1/carts/mine/items/B/quantity", json!({ "quantity": 5 }))
        .await
        .refused(404, "not-found");
    user.post("/v1/carts/mine/items/A/remove", json!({}))
        .await
        .expect(200);
    user.add("A", 1).await.expect(200);
    user.send("/v1/carts/mine/clear", &[], None).await.expect(200);
    assert_eq!(lines(&shop, &user).await, []);
}

#[tokio::test]
async fn a_draft_cannot_be_put_into_a_cart_but_a_repeat_of_what_was_put_in_can() {
    let shop = Shop::open().await;
    let product = shop.sell("A", 100, None).await;
    let user = shop.user(Role::Guest).await;
    let body = json!({ "sku": "A", "quantity": 1 });
    let first = user
        .post_as("/v1/carts/mine/items", "k", body.clone())
        .await
        .expect(200);
    let staff = shop.user(Role::Staff).await;
    staff
        .post(&format!("/v1/products/{product}/unpublish"), json!({}))
        .await
        .expect(200);
    user.add("A", 1).await.refused(422, "not-for-sale");
    let again = user.post_as("/v1/carts/mine/items", "k", body).await.expect(200);
    assert!(again.replayed());
    assert_eq!(again.receipt(), first.receipt());
    assert_eq!(lines(&shop, &user).await, [("A".to_owned(), 1)]);
}

#[tokio::test]
async fn a_login_takes_over_the_guests_cart_once() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    shop.sell("B", 100, None).await;
    let (user, guest) = (shop.user(Role::Customer).await, shop.user(Role::Guest).await);
    user.add("A", 1).await.expect(200);
    guest.add("A", 2).await.expect(200);
    guest.add("B", 3).await.expect(200);
    let merged = merge(&user, &guest, "k").await.expect(200);
    assert_eq!(merged.id(), user.cart().to_string());
    assert_eq!(
        lines(&shop, &user).await,
        [("A".to_owned(), 3), ("B".to_owned(), 3)]
    );
    assert_eq!(lines(&shop, &guest).await, []);
    let again = merge(&user, &guest, "k").await.expect(200);
    assert!(again.replayed());
    assert_eq!(again.receipt(), merged.receipt());
    merge(&user, &guest, "another-key").await.expect(200);
    assert_eq!(
        lines(&shop, &user).await,
        [("A".to_owned(), 3), ("B".to_owned(), 3)]
    );
}

#[tokio::test]
async fn a_merge_needs_the_token_of_a_guest() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (user, victim) = (shop.user(Role::Customer).await, shop.user(Role::Customer).await);
    victim.add("A", 1).await.expect(200);
    merge(&user, &victim, "a")
        .await
        .refused(422, "guest-token-refused");
    let forged = json!({ "guest_token": "eyJhbGciOiJub25lIn0.e30." });
    user.post("/v1/carts/mine/merge", forged)
        .await
        .refused(422, "guest-token-refused");
    let guest = shop.user(Role::Guest).await;
    merge(&guest, &guest, "b").await.expect(200);
    guest.add("A", 1).await.expect(200);
    merge(&guest, &guest, "c").await.refused(422, "same-cart");
    assert_eq!(lines(&shop, &victim).await.len(), 1);
}

#[tokio::test]
async fn merging_nothing_answers_ones_own_cart_and_nobody_elses() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let guest = shop.user(Role::Guest).await;
    let (first, second) = (shop.user(Role::Customer).await, shop.user(Role::Customer).await);
    guest.add("A", 1).await.expect(200);
    merge(&first, &guest, "k").await.expect(200);
    let nothing = merge(&second, &guest, "k").await.expect(200);
    assert_eq!(nothing.id(), second.cart().to_string());
    assert_eq!(lines(&shop, &first).await.len(), 1);
}

#[tokio::test]
async fn carts_that_do_not_fit_together_stay_apart() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (user, guest) = (shop.user(Role::Customer).await, shop.user(Role::Guest).await);
    user.add("A", 999).await.expect(200);
    guest.add("A", 1).await.expect(200);
    merge(&user, &guest, "k").await.refused(422, "cart-full");
    assert_eq!(lines(&shop, &guest).await.len(), 1);
}

#[tokio::test]
async fn a_merge_into_a_checked_out_cart_is_kept_for_later() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (user, guest) = (shop.user(Role::Customer).await, shop.user(Role::Guest).await);
    user.add("A", 1).await.expect(200);
    user.check_out("k").await.expect(201);
    guest.add("A", 2).await.expect(200);
    merge(&user, &guest, "m").await.expect(200);
    assert_eq!(lines(&shop, &guest).await, []);
    assert_eq!(shop.count("CartMerged").await, 1);
}

/// Race 25, the handler's part: it dies between the two carts.
#[tokio::test]
async fn a_merge_that_died_half_way_is_finished_by_its_repeat() {
    let shop = Shop::open().await;
    shop.sell("A", 100, None).await;
    let (user, guest) = (shop.user(Role::Customer).await, shop.user(Role::Guest).await);
    guest.add("A", 2).await.expect(200);
    {
        let mut dying = pin!(merge(&user, &guest, "k"));
        while !lines(&shop, &guest).await.is_empty() {
            assert!(poll!(&mut dying).is_pending(), "it must not come to its end");
        }
    }
    assert_eq!(lines(&shop, &user).await, []);
    let shop = shop.restarted().await;
    let again = merge(&shop.here(&user), &guest, "k").await.expect(200);
    assert!(again.replayed());
    assert_eq!(lines(&shop, &user).await, [("A".to_owned(), 2)]);
}
