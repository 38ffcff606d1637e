//! Every route of the API, as its own document lists them, tried by everybody: nobody reads or changes another's things.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Demo, Profile};
use http::Method;
use serde_json::{Value, json};
use testkit::{Reply, User, until};

/// One operation of the OpenAPI document.
struct Operation {
    method: Method,
    path: String,
    access: String,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else {
                continue;
            };
            if !matches!(method, Method::GET | Method::POST) {
                continue;
            }
            let access = operation["x-omisys-access"].as_str();
            let access = access.unwrap_or_else(|| panic!("{method} {path} does not say who may call it"));
            let operation = |path: &str| Operation {
                method: method.clone(),
                path: path.to_owned(),
                access: access.to_owned(),
            };
            operations.push(operation(path));
            // The past is read elsewhere, and is nobody else's either.
            if path == "/v1/orders/{id}" {
                operations.push(operation("/v1/orders/{id}?as_of=1"));
            }
        }
    }
    assert!(operations.len() > 30, "the document lists the API");
    operations
}

/// What the walk is about: the owner's things.
struct Things {
    product: String,
    order: String,
    payment: String,
    account: String,
}

impl Things {
    fn path(&self, template: &str) -> String {
        let id = match template.split('/').nth(2) {
            Some("products") => &self.product,
            Some("payments") => &self.payment,
            Some("accounts") => &self.account,
            _ => &self.order,
        };
        let query = if template == "/v1/reports/sales" {
            "?from=2026-01-01&to=2026-12-31&by=day"
        } else {
            ""
        };
        format!("{template}{query}")
            .replace("{id}", id)
            .replace("{sku}", "WALK")
            .replace("{shipment}", &self.order)
            .replace("{view}", "orders")
    }
}

/// A body that is well-formed for the route, so that a refusal is about the caller.
fn body(path: &str) -> Value {
    let payment = json!({ "method": "sandbox", "token": "tok_ok" });
    match path {
        "/v1/carts/mine/items" => json!({ "sku": "WALK", "quantity": 1 }),
        "/v1/carts/mine/items/{sku}/quantity" => json!({ "quantity": 1 }),
        "/v1/carts/mine/checkout" => json!({ "payment": payment, "country": "GB" }),
        "/v1/orders" => {
            json!({ "lines": [{ "sku": "WALK", "quantity": 1 }], "payment": payment, "country": "GB" })
        }
        "/auth/accounts/{id}/roles" => json!({ "role": "customer" }),
        "/v1/payments/{id}/retry" => json!({ "payment": payment }),
        _ => json!({}),
    }
}

/// What the token itself says that its bearer may do.
fn may(user: &User, permission: &str) -> bool {
    let payload = user.token.as_ref().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims["scope"]
        .as_str()
        .unwrap()
        .split(' ')
        .any(|scope| scope == permission)
}

async fn call(user: &User, operation: &Operation, path: &str) -> Reply {
    let key = user.shop().fresh_key();
    let body = (operation.method == Method::POST).then(|| body(&operation.path));
    user.try_request(operation.method.clone(), path, Some(&key), &[], body.as_ref())
        .await
        .unwrap()
}

/// Calls every operation of `document` as nobody, as strangers and as staff.
async fn walk(demo: &Demo, document: &Value, things: &Things, owner: &User) {
    let (guest, anonymous) = (demo.shop.guest().await, demo.shop.anonymous());
    let (email, password) = Demo::account("customer");
    let customer = demo.shop.login(&email, &password).await;
    let (email, password) = Demo::account("staff");
    let staff = demo.shop.login(&email, &password).await;
    for operation in operations(document) {
        // Streams do not end, and a logout would end the walk.
        if operation.path.ends_with("/stream")
            || ["/auth/logout", "/auth/password"].contains(&operation.path.as_str())
        {
            continue;
        }
        let path = things.path(&operation.path);
        let name = format!("{} {} ({})", operation.method, operation.path, operation.access);
        let reply = call(&anonymous, &operation, &path).await;
        if operation.access == "public" {
            assert!(
                !reply.status.is_server_error(),
                "{name} by nobody: {}",
                reply.status
            );
            continue;
        }
        assert_eq!(reply.status, 401, "{name} by nobody");
        let by_owner = operation.access.split('|').any(|access| access == "owner");
        let permission = operation
            .access
            .split('|')
            .find(|access| !["owner", "caller"].contains(access));
        for (who, user) in [
            ("another guest", &guest),
            ("another customer", &customer),
            ("staff", &staff),
            ("the admin", &demo.staff),
        ] {
            let reply = call(user, &operation, &path).await;
            let status = reply.status.as_u16();
            assert!(
                status < 500,
                "{name} by {who}: {status} {}",
                String::from_utf8_lossy(&reply.body)
            );
            let permitted = permission.is_some_and(|permission| may(user, permission));
            if by_owner && !permitted {
                assert_eq!(status, 404, "{name} by {who}");
            } else if permission.is_some() && !permitted {
                assert_eq!(status, 403, "{name} by {who}");
            } else {
                assert!(![401, 403].contains(&status), "{name} by {who}: {status}");
            }
            // Staff may list everybody's orders on the route on which all others list their own.
            if !permitted && !may(user, "order.read_all") && operation.method == Method::GET {
                let leaked = String::from_utf8_lossy(&reply.body).contains(&owner.id);
                assert!(!leaked, "{name} shows {who} what is the owner's");
            }
        }
    }
}

async fn every_route_is_walked_by_everybody(profile: Profile) {
    let demo = Demo::start(profile).await;
    let product = demo.staff.stock_product("WALK", 100, 1000).await;
    let owner = demo.shop.guest().await;
    owner.add_to_cart("WALK", 1).await.expect(200);
    let bought = owner.check_out("tok_ok", 10).await.expect(201).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let things = Things {
        product,
        order: text(&bought["order"]["id"]),
        payment: text(&bought["order"]["payment"]["id"]),
        // Somebody else's, since the admin's call will end that account's sessions.
        account: demo.shop.guest().await.id,
    };
    // The cart is renewed by a policy, once the order is paid.
    let added = until("the next cart takes items", || async {
        let reply = owner.add_to_cart("WALK", 7).await;
        (reply.status == 200).then(|| reply.json())
    })
    .await;
    let own = [
        format!("/v1/orders/{}", things.order),
        format!("/v1/payments/{}", things.payment),
        format!("/v1/carts/mine?at_least={}", text(&added["consistency_token"])),
        format!("/v1/orders/{}/timeline", things.order),
        format!("/v1/orders/{}?as_of=1", things.order),
    ];
    let mut before = Vec::new();
    for path in &own {
        before.push(
            until("the owner sees what is theirs", || async {
                let reply = owner.get(path).await;
                (reply.status == 200 && !reply.body.is_empty()).then(|| reply.json())
            })
            .await,
        );
    }

    let document = demo
        .shop
        .anonymous()
        .get("/openapi.json")
        .await
        .expect(200)
        .json();
    walk(&demo, &document, &things, &owner).await;
    // What others tried without permission has changed nothing of the owner's; staff did not cancel a paid order by `{}`.
    let cart = owner.get("/v1/carts/mine").await.json();
    assert_eq!(cart["version"], before[2]["version"]);
    let payment = owner.get(&own[1]).await.json();
    assert_eq!(payment["amount"], before[1]["amount"]);
}

async fn headers_and_bodies_give_nobody_another_identity(profile: Profile) {
    let demo = Demo::start(profile).await;
    demo.staff.stock_product("MINE", 100, 1000).await;
    let owner = demo.shop.guest().await;
    let intruder = demo.shop.guest().await;
    owner.add_to_cart("MINE", 3).await.expect(200);
    for name in [
        "x-user-id",
        "x-account-id",
        "x-omisys-caller",
        "x-roles",
        "x-forwarded-user",
        "x-original-url",
    ] {
        let header = [(http::HeaderName::from_static(name), owner.id.clone())];
        let reply = intruder
            .try_request(Method::GET, "/v1/carts/mine", None, &header, None)
            .await
            .unwrap();
        assert!(
            reply.json()["lines"].as_array().is_none_or(Vec::is_empty),
            "{name} opened another's cart"
        );
    }
    let order = json!({
        "customer": owner.id, "lines": [{ "sku": "MINE", "quantity": 1 }],
        "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB",
    });
    assert_eq!(intruder.post("/v1/orders", &order).await.status, 403);
    let priced = json!({
        "lines": [{ "sku": "MINE", "quantity": 1, "unit_price": { "amount": 1, "currency": "GBP" } }],
        "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB",
    });
    assert_eq!(intruder.post("/v1/orders", &priced).await.status, 403);
    let register = json!({ "email": "x@example.com", "password": "long enough to do", "role": "admin" });
    assert_eq!(
        intruder.post("/auth/register", &register).await.status.as_u16() / 100,
        4
    );
}

common::on_both_profiles!(
    every_route_is_walked_by_everybody,
    headers_and_bodies_give_nobody_another_identity,
);
