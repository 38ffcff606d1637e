//! `/v1/products` and `/v1/inventory`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use event_schemas::{ActorKind, ProductEvent};
use identity::verifier::Role;
use support::{Shop, person, product, product_created, product_id, sku, start, stock, stock_received};

/// Three published mugs, a draft, and 7 units of the first mug.
async fn catalogue() -> Shop {
    let shop = start().await;
    let staff = person(ActorKind::Staff, 9);
    for (number, title, price) in [
        (1, "Blue mug", 500),
        (2, "Red mug", 300),
        (3, "Large blue bowl", 900),
    ] {
        let mut events = product_created(number, title, price);
        events.push(ProductEvent::ProductPublished {});
        shop.append(product(number), &staff, events).await;
    }
    shop.append(product(4), &staff, product_created(4, "Secret mug", 1))
        .await;
    shop.tell(stock(1), &staff, stock_received(1, 7)).await;
    shop
}

fn titles(page: &serde_json::Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["title"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn anybody_may_browse_what_is_published() {
    let shop = catalogue().await;
    let reply = shop.ask("/v1/products", None, &[]).await;
    assert_eq!(reply.header("cache-control"), Some("public, no-cache"));
    let page = reply.json();
    assert_eq!(titles(&page), ["Blue mug", "Large blue bowl", "Red mug"]);
    assert_eq!(page["items"][0]["variants"][0]["available"], 7);
    assert_eq!(page["next_cursor"], serde_json::Value::Null);
    for (query, expected) in [
        ("sort=price", vec!["Red mug", "Blue mug", "Large blue bowl"]),
        ("sort=-price", vec!["Large blue bowl", "Blue mug", "Red mug"]),
        ("q=BLUE", vec!["Blue mug", "Large blue bowl"]),
        ("q=mug+blue", vec!["Blue mug"]),
        ("category=mugs&q=red", vec!["Red mug"]),
        ("category=plates", vec![]),
        ("sku=MUG-1", vec!["Blue mug"]),
        ("sku=MUG-4", vec![]),
        ("sku=NONE", vec![]),
    ] {
        let page = shop.ask(&format!("/v1/products?{query}"), None, &[]).await.json();
        assert_eq!(titles(&page), expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let shop = catalogue().await;
    for sort in ["title", "newest", "price", "-price"] {
        let all = shop
            .ask(&format!("/v1/products?sort={sort}"), None, &[])
            .await
            .json();
        let mut seen = Vec::new();
        let mut next = Some(format!("/v1/products?sort={sort}&limit=1"));
        while let Some(path) = next {
            let reply = shop.ask(&path, None, &[]).await;
            let page = reply.json();
            seen.extend(titles(&page).into_iter().map(str::to_owned));
            // The link is what the cursor says.
            next = reply.header("link").map(|link| {
                let (path, relation) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
                assert_eq!(relation, "; rel=\"next\"");
                assert!(path.ends_with(page["next_cursor"].as_str().unwrap()));
                path.to_owned()
            });
            assert_eq!(next.is_some(), page["next_cursor"].is_string());
        }
        assert_eq!(seen, titles(&all), "{sort}");
    }
}

#[tokio::test]
async fn a_cursor_belongs_to_its_list() {
    let shop = catalogue().await;
    let page = shop.ask("/v1/products?limit=1", None, &[]).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let by_price = format!("/v1/products?limit=1&sort=price&cursor={cursor}");
    shop.ask(&by_price, None, &[])
        .await
        .expect_problem(400, "malformed-request");
    for cursor in ["", "x", "e30", "bnVsbA", &"A".repeat(2_000)] {
        let reply = shop
            .ask(&format!("/v1/products?cursor={cursor}"), None, &[])
            .await;
        reply.expect_problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn what_is_not_published_is_for_those_who_may_read_all() {
    let shop = catalogue().await;
    let (staff, customer) = (
        shop.token(Role::Staff, 9).await,
        shop.token(Role::Customer, 1).await,
    );
    let draft = format!("/v1/products/{}", product_id(4));
    shop.ask(&draft, None, &[]).await.expect_problem(404, "not-found");
    shop.get(&draft, &customer).await.expect_problem(404, "not-found");
    assert_eq!(shop.get(&draft, &staff).await.json()["status"], "draft");
    assert_eq!(
        titles(&shop.get("/v1/products?status=draft", &staff).await.json()),
        ["Secret mug"]
    );
    assert_eq!(
        shop.get("/v1/products", &staff).await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        shop.get("/v1/products", &staff).await.header("cache-control"),
        Some("private, no-cache")
    );
    shop.get("/v1/products?status=draft", &customer)
        .await
        .expect_problem(403, "forbidden");
    shop.ask("/v1/products?status=draft", None, &[])
        .await
        .expect_problem(403, "forbidden");
    // A bad token is never taken for none.
    shop.get("/v1/products", "nonsense")
        .await
        .expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_products_tag_changes_with_its_stock() {
    let shop = catalogue().await;
    let path = format!("/v1/products/{}", product_id(1));
    let first = shop.ask(&path, None, &[]).await;
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.json()["variants"][0]["available"], 7);
    let reply = shop.ask(&path, None, &[("if-none-match", &tag)]).await;
    assert_eq!((reply.status, reply.body.len()), (304, 0));
    assert_eq!(reply.header("etag"), Some(tag.as_str()));

    let received = stock_received(1, 3).split_off(1);
    let token = shop
        .append(stock(1), &person(ActorKind::Staff, 9), received)
        .await;
    // The receipt of the stock's command is good for the product that shows it.
    let path = format!("{path}?at_least={token}");
    let reply = shop.ask(&path, None, &[("if-none-match", &tag)]).await;
    assert_eq!(reply.json()["variants"][0]["available"], 10);
    let list = shop
        .ask(&format!("/v1/products?sku=MUG-1&at_least={token}"), None, &[])
        .await
        .json();
    assert_eq!(list["items"][0]["variants"][0]["available"], 10);
}

#[tokio::test]
async fn stock_is_for_staff() {
    let shop = catalogue().await;
    let (staff, customer) = (
        shop.token(Role::Staff, 9).await,
        shop.token(Role::Customer, 1).await,
    );
    let path = format!("/v1/inventory/{}", sku(1));
    shop.get(&path, &customer).await.expect_problem(403, "forbidden");
    // Not even whether there is such a SKU.
    shop.get("/v1/inventory/NONE", &customer)
        .await
        .expect_problem(403, "forbidden");
    let stock = shop.get(&path, &staff).await.json();
    assert_eq!((&stock["on_hand"], &stock["available"]), (&7.into(), &7.into()));
    shop.get("/v1/inventory/NONE", &staff)
        .await
        .expect_problem(404, "not-found");
    shop.get("/v1/inventory/not%20a%20sku", &staff)
        .await
        .expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn malformed_queries_are_refused() {
    let shop = start().await;
    for query in [
        "nonsense=1",
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=many",
        "sort=random",
        "sku=not%20a%20sku",
        "sku=MUG-1&q=mug",
        "status=unheard-of",
        "at_least=nonsense",
        "at_least=order/x@1",
        "limit=1&limit=2",
    ] {
        let reply = shop.ask(&format!("/v1/products?{query}"), None, &[]).await;
        reply.expect_problem(400, "malformed-request");
    }
    let long = "a".repeat(300);
    shop.ask(&format!("/v1/products?q={long}"), None, &[])
        .await
        .expect_problem(400, "malformed-request");
    for id in ["7", "not-a-uuid", "%00"] {
        shop.ask(&format!("/v1/products/{id}"), None, &[])
            .await
            .expect_problem(400, "malformed-request");
    }
}
