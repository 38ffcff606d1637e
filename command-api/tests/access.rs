//! Every route, as the OpenAPI document lists them: who gets in, and what bad input answers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use identity::verifier::{Permission, Role, RolePermissions};
use serde_json::{Value, json};
use support::Shop;

/// A path of the document with ids that name nothing.
fn concrete(path: &str) -> String {
    let uuid = "0197f3a0-5f0e-7c1e-9d52-0d5a4c8f1b7a";
    path.replace("{id}", uuid)
        .replace("{shipment}", uuid)
        .replace("{sku}", "NO-SUCH")
}

fn operations(openapi: &Value) -> Vec<(String, Value)> {
    let paths = openapi["paths"].as_object().unwrap();
    paths
        .iter()
        .map(|(path, item)| (path.clone(), item["post"].clone()))
        .collect()
}

#[tokio::test]
async fn the_document_lists_every_route_with_its_access() {
    let shop = Shop::open().await;
    let operations = operations(&shop.openapi);
    assert_eq!(
        operations.len(),
        26,
        "{:?}",
        operations.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    for (path, operation) in operations {
        let access = operation["x-omisys-access"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} has no access"));
        let permission = access.strip_prefix("owner|").unwrap_or(access);
        assert!(
            ["caller", "owner"].contains(&access) || permission.parse::<Permission>().is_ok(),
            "{access}"
        );
        assert_eq!(operation["security"], json!([{ "bearer": [] }]), "{path}");
        assert!(
            operation["operationId"].is_string() && operation["summary"].is_string(),
            "{path}"
        );
        let keyed = operation["parameters"].as_array().unwrap().iter();
        let mut key = keyed.filter(|parameter| parameter["name"] == "Idempotency-Key");
        // What appends nothing to the log has no key: to repeat it is safe without.
        let required = key.next().is_some_and(|key| key["required"] == json!(true));
        let moves = [
            "/v1/inventory",
            "/v1/orders",
            "/v1/payments",
            "/v1/carts/mine/checkout",
        ];
        assert_eq!(
            required,
            moves.iter().any(|prefix| path.starts_with(prefix)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn permissions_are_checked_before_anything_else() {
    let shop = Shop::open().await;
    let guest = shop.user(Role::Guest).await;
    let customer = shop.user(Role::Customer).await;
    for (path, operation) in operations(&shop.openapi) {
        let (access, path) = (operation["x-omisys-access"].as_str().unwrap(), concrete(&path));
        // No key and no body: a caller who is not allowed hears of neither.
        let anonymous = shop
            .anonymous()
            .send(&path, &[], None)
            .await
            .refused(401, "unauthorized");
        assert!(anonymous.headers.contains_key("www-authenticate"), "{path}");
        for user in [&guest, &customer] {
            let answer = user.send(&path, &[], None).await;
            let allowed = access.parse().ok().is_none_or(|permission: Permission| {
                RolePermissions::default().of(Role::Guest).contains(permission)
            });
            if allowed {
                assert_ne!(answer.status, 403, "{path}: {}", answer.body);
            } else {
                answer.refused(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn bad_input_is_a_problem_and_never_a_fault_of_ours() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Admin).await;
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "3",
        "\"x\"",
        &deep,
        &huge,
        r#"{"unknown_field":1}"#,
        r#"{"quantity":99999999999999999999}"#,
        r#"{"quantity":-1,"reference":"x"}"#,
        r#"{"quantity":1.5,"reference":"x"}"#,
        r#"{"delta":9223372036854775808,"reason":"x"}"#,
        r#"{"limit":4294967296}"#,
        r#"{"sku":"has space","quantity":1}"#,
        r#"{"sku":"A","price":{"amount":9007199254740992,"currency":"GBP"}}"#,
        r#"{"sku":"A","price":{"amount":1,"currency":"XYZ"}}"#,
        r#"{"amount":{"amount":-1,"currency":"GBP"},"reason":"NOT A CODE"}"#,
        r#"{"payment":{"method":"sandbox","token":"has space"},"country":"GB"}"#,
        r#"{"payment":{"method":"sandbox"},"country":"Great Britain","lines":[]}"#,
    ];
    for (path, _) in operations(&shop.openapi) {
        for body in bodies {
            let headers = [("idempotency-key", "k")];
            let answer = staff
                .send(&concrete(&path), &headers, Some(body.to_owned()))
                .await;
            assert!(
                (400..500).contains(&answer.status),
                "{path} {:.60}: {} {}",
                body,
                answer.status,
                answer.body
            );
            assert!(answer.body["type"].as_str().unwrap().starts_with("/problems/"));
        }
        let form = [("idempotency-key", "k"), ("content-type", "text/plain")];
        staff
            .send(&concrete(&path), &form, None)
            .await
            .refused(415, "unsupported-media-type");
        for header in [
            ("if-match", "3"),
            ("idempotency-key", "a b"),
            ("if-match", "\"x\""),
        ] {
            let headers = [("idempotency-key", "k"), header];
            let headers = if header.0 == "if-match" {
                &headers[..]
            } else {
                &headers[1..]
            };
            staff
                .send(&concrete(&path), headers, Some("{}".to_owned()))
                .await
                .refused(400, "malformed-request");
        }
    }
}

#[tokio::test]
async fn malformed_ids_in_paths_are_400_for_those_who_may_ask() {
    let shop = Shop::open().await;
    let staff = shop.user(Role::Staff).await;
    for path in [
        "/v1/products/17/publish",
        "/v1/orders/x/complete",
        "/v1/inventory/a%20b/receipts",
    ] {
        let key = [("idempotency-key", "k")];
        staff
            .send(path, &key, Some("{}".to_owned()))
            .await
            .refused(400, "malformed-request");
        shop.anonymous()
            .send(path, &key, None)
            .await
            .refused(401, "unauthorized");
    }
}
