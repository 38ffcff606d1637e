//! Products and stock, as staff work on them.

mod support;

use identity::verifier::Role;
use serde_json::json;
use support::{Shop, gbp};

#[tokio::test]
async fn a_product_from_draft_to_archive() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    let created = staff
        .post("/v1/products", json!({ "title": "Mug", "tags": ["kitchen"] }))
        .await
        .expect(201);
    assert_eq!(created.body["type"], "product");
    assert_eq!(created.version(), 1);
    let product = created.id();
    assert_eq!(created.headers["location"], format!("/v1/products/{product}"));
    let token = created.body["consistency_token"].as_str().unwrap();
    assert!(token.starts_with(&format!("product/{product}@1.")), "{token}");

    let at = |step: &str| format!("/v1/products/{product}/{step}");
    staff
        .post(&at("publish"), json!({}))
        .await
        .refused(409, "no-variants");
    let variant = json!({ "sku": "MUG-1", "price": gbp(1_299) });
    staff.post(&at("variants"), variant.clone()).await.expect(201);
    staff
        .post(&at("price"), json!({ "sku": "MUG-1", "price": gbp(-1) }))
        .await
        .refused(422, "invalid-price");
    let dollars = json!({ "sku": "MUG-1", "price": { "amount": 1, "currency": "USD" } });
    staff
        .post(&at("price"), dollars)
        .await
        .refused(422, "currency-mismatch");
    staff
        .post(&at("price"), json!({ "sku": "MUG-2", "price": gbp(1) }))
        .await
        .refused(422, "unknown-variant");
    staff
        .post(&at("price"), json!({ "sku": "MUG-1", "price": gbp(999) }))
        .await
        .expect(200);
    let details = staff
        .post(&at("details"), json!({ "title": "" }))
        .await
        .refused(422, "invalid-input");
    assert_eq!(details.body["errors"][0]["pointer"], "/title");
    staff
        .post(&at("details"), json!({ "title": "Enamel mug" }))
        .await
        .expect(200);
    // No body at all is as good as an empty one.
    staff.send(&at("publish"), &[], None).await.expect(200);
    staff
        .post(&at("variants/MUG-1/remove"), json!({}))
        .await
        .refused(409, "no-variants");
    staff.post(&at("unpublish"), json!({})).await.expect(200);
    staff
        .post(&at("variants/MUG-1/remove"), json!({}))
        .await
        .expect(200);
    staff.post(&at("variants"), variant).await.expect(201);
    staff
        .post(&at("archive"), json!({ "reason": "discontinued" }))
        .await
        .expect(200);
    staff
        .post(&at("publish"), json!({}))
        .await
        .refused(409, "product-archived");

    let missing = "/v1/products/0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a/publish";
    staff.post(missing, json!({})).await.refused(404, "not-found");
}

#[tokio::test]
async fn if_match_is_the_version_of_the_receipt_and_a_repeat_passes_it() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    let product = staff
        .post("/v1/products", json!({ "title": "Mug" }))
        .await
        .expect(201)
        .id();
    let path = format!("/v1/products/{product}/details");
    let at = |version: &'static str, key: &'static str| [("if-match", version), ("idempotency-key", key)];
    let body = |title: &str| Some(json!({ "title": title }).to_string());

    let first = staff
        .send(&path, &at("\"1\"", "a"), body("Cup"))
        .await
        .expect(200);
    let stale = staff
        .send(&path, &at("\"1\"", "b"), body("Bowl"))
        .await
        .refused(412, "version-mismatch");
    assert_eq!(stale.body["version"], 2);
    let again = staff
        .send(&path, &at("\"1\"", "a"), body("Cup"))
        .await
        .expect(200);
    assert!(again.replayed() && !first.replayed());
    assert_eq!(again.receipt(), first.receipt());
    staff
        .send(&path, &at("\"1\"", "a"), body("Jug"))
        .await
        .refused(422, "idempotency-key-reused");
}

#[tokio::test]
async fn variants_honour_if_match_before_they_claim_the_sku() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    let product = staff
        .post("/v1/products", json!({ "title": "Mug" }))
        .await
        .expect(201)
        .id();
    let path = format!("/v1/products/{product}/variants");
    let variant = json!({ "sku": "MUG-1", "price": gbp(1) }).to_string();
    let headers = [("if-match", "\"7\""), ("idempotency-key", "a")];
    staff
        .send(&path, &headers, Some(variant))
        .await
        .refused(412, "version-mismatch");
    assert_eq!(shop.count("SkuAssigned").await, 0);
    let nowhere = "/v1/products/0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a/variants";
    staff
        .post(nowhere, json!({ "sku": "MUG-1", "price": gbp(1) }))
        .await
        .refused(404, "not-found");
    assert_eq!(
        shop.count("SkuAssigned").await,
        0,
        "what does not exist claims nothing"
    );
}

#[tokio::test]
async fn a_reused_key_claims_no_second_sku() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    let product = staff
        .post("/v1/products", json!({ "title": "Mug" }))
        .await
        .expect(201)
        .id();
    let path = format!("/v1/products/{product}/variants");
    let first = staff
        .post_as(&path, "k", json!({ "sku": "MUG-1", "price": gbp(1) }))
        .await
        .expect(201);
    let other = json!({ "sku": "MUG-2", "price": gbp(1) });
    staff
        .post_as(&path, "k", other)
        .await
        .refused(422, "idempotency-key-reused");
    assert_eq!(shop.count("SkuAssigned").await, 1);
    let again = staff
        .post_as(&path, "k", json!({ "sku": "MUG-1", "price": gbp(1) }))
        .await
        .expect(201);
    assert!(again.replayed());
    assert_eq!(again.receipt(), first.receipt());
}

/// Race 24.
#[tokio::test]
async fn two_products_claim_one_sku_and_the_loser_hears_whose_it_is() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    for round in 0..10 {
        let one = staff
            .post("/v1/products", json!({ "title": "One" }))
            .await
            .expect(201)
            .id();
        let two = staff
            .post("/v1/products", json!({ "title": "Two" }))
            .await
            .expect(201)
            .id();
        let variant = json!({ "sku": format!("SKU-{round}"), "price": gbp(1) });
        let claim = |product: &str| {
            let (staff, path, body) = (
                staff.clone(),
                format!("/v1/products/{product}/variants"),
                variant.clone(),
            );
            async move { staff.post(&path, body).await }
        };
        let (a, b) = tokio::join!(claim(&one), claim(&two));
        let (winner, loser, owner) = if a.status == 201 { (a, b, one) } else { (b, a, two) };
        winner.expect(201);
        let loser = loser.refused(409, "sku-taken");
        assert_eq!(loser.body["product_id"], owner);
    }
    assert_eq!(shop.count("VariantAdded").await, 10);
}

#[tokio::test]
async fn stock_moves_under_a_key_only_and_only_once() {
    let shop = Shop::open().await;
    shop.sell("MUG-1", 100, Some(5)).await;
    let staff = shop.user(Role::Staff).await;
    let path = "/v1/inventory/MUG-1/receipts";
    let body = json!({ "quantity": 3, "reference": "delivery 7" });
    staff
        .send(path, &[], Some(body.to_string()))
        .await
        .refused(400, "idempotency-key-required");
    let first = staff.post_as(path, "d7", body.clone()).await.expect(200);
    let again = staff.post_as(path, "d7", body.clone()).await.expect(200);
    assert!(again.replayed());
    assert_eq!(again.receipt(), first.receipt());
    // The key is the caller's and the path's own.
    let colleague = shop.user(Role::Staff).await;
    assert!(!colleague.post_as(path, "d7", body).await.expect(200).replayed());
    let adjustments = "/v1/inventory/MUG-1/adjustments";
    staff
        .post_as(adjustments, "d7", json!({ "delta": -11, "reason": "lost" }))
        .await
        .expect(200);
    let short = staff
        .post(adjustments, json!({ "delta": -1, "reason": "lost" }))
        .await
        .refused(409, "stock-promised");
    assert_eq!(short.body["available"], 0);
    staff
        .post("/v1/inventory/MUG-1/backorder-limit", json!({ "limit": 2 }))
        .await
        .expect(200);
    let unknown = json!({ "quantity": 1, "reference": "x" });
    staff
        .post("/v1/inventory/NO-SUCH/receipts", unknown)
        .await
        .refused(404, "not-found");
}
