//! Signing up and in, guests, admins, throttling, and input that is refused.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use event_schemas::AccountId;
use identity::verifier::Role;
use identity::{AccountError, Email, Limits, Rate, Settings, Status};
use serde_json::{Value, json};
use support::{PASSWORD, Shop, address};

#[tokio::test]
async fn a_customer_signs_up_and_is_who_they_are() {
    let shop = Shop::open().await;
    let body = json!({ "email": "Ann@Example.com", "password": PASSWORD });
    let answer = shop.post("/auth/register", body.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 600);
    let me = shop.get_as(&answer.text("/access_token"), "/auth/me").await;
    assert_eq!(me.body["email"], "ann@example.com");
    assert_eq!(me.body["role"], "customer");
    assert_eq!(me.body["permissions"], json!(["cart.use", "order.place"]));
    assert_eq!(me.body["id"], answer.body["account"]["id"]);

    let again = shop.post("/auth/register", body).await;
    assert_eq!((again.status.as_u16(), again.slug()), (409, "email-taken"));
    assert!(!again.body.to_string().contains("ann@"));
}

#[tokio::test]
async fn a_role_never_comes_from_a_sign_up_body() {
    let shop = Shop::open().await;
    for field in [
        "role",
        "roles",
        "id",
        "account_id",
        "status",
        "epoch",
        "permissions",
    ] {
        for (path, mut body) in [
            (
                "/auth/register",
                json!({ "email": "eve@example.com", "password": PASSWORD }),
            ),
            ("/auth/guest", json!({})),
            (
                "/auth/login",
                json!({ "email": "eve@example.com", "password": PASSWORD }),
            ),
        ] {
            body[field] = json!("admin");
            let answer = shop.post(path, body).await;
            assert_eq!(answer.status, 400, "{path} with {field}: {}", answer.body);
            assert_eq!(
                answer.body["errors"][0]["pointer"],
                format!("/{field}"),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(shop.identity.accounts(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn guests_shop_without_a_word() {
    let shop = Shop::open().await;
    let one = shop.send(axum::http::Request::post("/auth/guest"), None).await;
    let two = shop.post("/auth/guest", json!({})).await;
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (201, 201));
    assert_ne!(one.body["account"]["id"], two.body["account"]["id"]);
    let me = shop.get_as(&one.text("/access_token"), "/auth/me").await;
    assert_eq!(
        (&me.body["role"], &me.body["email"]),
        (&json!("guest"), &Value::Null)
    );
    assert_eq!(shop.refresh(&one.text("/refresh_token")).await.status, 200);
    let body = json!({ "current_password": "x", "new_password": "another good one" });
    assert_eq!(
        shop.post_as(&one.text("/access_token"), "/auth/password", body)
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn wrong_password_and_unknown_account_look_the_same() {
    let shop = Shop::open().await;
    shop.account("ann@example.com", Role::Customer).await;
    shop.identity
        .create_account(Email::new("bare@example.com").unwrap(), None, Role::Customer)
        .await
        .unwrap();
    let mut answers = Vec::new();
    for (email, password) in [
        ("ann@example.com", "not the password"),
        ("nobody@example.com", PASSWORD),
        ("bare@example.com", PASSWORD),
    ] {
        let mut answer = shop.log_in(email, password).await;
        assert_eq!(answer.status, 401);
        answer.body["trace_id"] = Value::Null;
        answers.push(answer.body);
    }
    assert!(answers.iter().all(|body| *body == answers[0]));
}

#[tokio::test]
async fn an_account_is_throttled_from_everywhere_and_recovers() {
    let shop = Shop::open().await;
    shop.account("ann@example.com", Role::Customer).await;
    for n in 0..10 {
        assert_eq!(
            shop.log_in_from(address(n), "ann@example.com", "wrong one")
                .await
                .status,
            401
        );
    }
    let answer = shop.log_in_from(address(99), "ann@example.com", PASSWORD).await;
    assert_eq!(
        (answer.status.as_u16(), answer.slug()),
        (429, "too-many-requests")
    );
    assert_eq!(answer.headers["retry-after"], "30");
    assert_eq!(
        shop.log_in_from(address(1), "bob@example.com", PASSWORD)
            .await
            .status,
        401,
        "others are not"
    );
    for n in 0..10 {
        // Whether or not the account exists.
        shop.log_in_from(address(100 + n), "bob@example.com", PASSWORD)
            .await;
    }
    assert_eq!(
        shop.log_in_from(address(120), "bob@example.com", PASSWORD)
            .await
            .status,
        429
    );
    shop.pass(Duration::from_secs(30));
    assert_eq!(
        shop.log_in_from(address(99), "ann@example.com", PASSWORD)
            .await
            .status,
        200
    );
    for _ in 0..10 {
        assert_eq!(
            shop.log_in_from(address(98), "ann@example.com", "wrong one")
                .await
                .status,
            401,
            "a success starts over"
        );
    }
}

#[tokio::test]
async fn an_address_is_throttled_over_all_accounts() {
    let limits = Limits {
        passwords_per_address: Rate {
            burst: 3,
            per_minute: 1,
        },
        ..Limits::default()
    };
    let shop = Shop::with(Settings {
        limits,
        ..Settings::default()
    })
    .await;
    for n in 0..3 {
        assert_eq!(
            shop.log_in_from(address(1), &format!("a{n}@example.com"), PASSWORD)
                .await
                .status,
            401
        );
    }
    assert_eq!(
        shop.log_in_from(address(1), "a9@example.com", PASSWORD)
            .await
            .status,
        429
    );
    assert_eq!(
        shop.log_in_from(address(2), "a9@example.com", PASSWORD)
            .await
            .status,
        401
    );
    // One customer of an IPv6 provider owns a /64.
    for n in 0..3_u16 {
        let mine = format!("2001:db8::{n}").parse().unwrap();
        assert_eq!(
            shop.log_in_from(mine, &format!("b{n}@example.com"), PASSWORD)
                .await
                .status,
            401
        );
    }
    assert_eq!(
        shop.log_in_from("2001:db8::ffff".parse().unwrap(), "b9@example.com", PASSWORD)
            .await
            .status,
        429
    );
    assert_eq!(
        shop.log_in_from("2001:db8:0:1::1".parse().unwrap(), "b9@example.com", PASSWORD)
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn sign_ups_and_guests_are_throttled() {
    let rate = Rate {
        burst: 2,
        per_minute: 1,
    };
    let limits = Limits {
        registrations_per_address: rate,
        guests_per_address: rate,
        ..Limits::default()
    };
    let shop = Shop::with(Settings {
        limits,
        ..Settings::default()
    })
    .await;
    for expected in [201, 201, 429] {
        assert_eq!(shop.post("/auth/guest", json!({})).await.status, expected);
        let body = json!({ "email": format!("a{}@example.com", rand_suffix()), "password": PASSWORD });
        assert_eq!(shop.post("/auth/register", body).await.status, expected);
    }
}

fn rand_suffix() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn only_admins_find_accounts_and_give_roles() {
    let shop = Shop::open().await;
    let admin = shop.account("root@example.com", Role::Admin).await;
    let ann = shop.account("ann@example.com", Role::Customer).await;
    let staff = shop.account("staff@example.com", Role::Staff).await;
    let roles = format!("/auth/accounts/{ann}/roles");
    for id in [ann, staff] {
        let token = shop.token(id).await;
        for answer in [
            shop.get_as(&token, "/auth/accounts?email=root@example.com").await,
            shop.post_as(&token, &roles, json!({ "role": "admin" })).await,
        ] {
            assert_eq!((answer.status.as_u16(), answer.slug()), (403, "forbidden"));
        }
    }
    assert_eq!(
        shop.get("/auth/accounts?email=root@example.com").await.status,
        401
    );
    assert_eq!(shop.post(&roles, json!({ "role": "admin" })).await.status, 401);

    let token = shop.token(admin).await;
    let found = shop.get_as(&token, "/auth/accounts?email=ANN@example.com").await;
    assert_eq!(found.body["items"][0]["id"], ann.to_string());
    assert_eq!(
        shop.get_as(&token, "/auth/accounts?email=nobody@example.com")
            .await
            .body["items"],
        json!([])
    );
    let promoted = shop.post_as(&token, &roles, json!({ "role": "staff" })).await;
    assert_eq!(
        (promoted.status.as_u16(), &promoted.body["role"]),
        (200, &json!("staff"))
    );
    let unknown = AccountId::from_uuid(*event_schemas::CustomerId::from(ann).as_uuid());
    assert_eq!(unknown, ann);
    for (path, body, status, slug) in [
        (roles.clone(), json!({ "role": "guest" }), 422, "guest-role"),
        (roles.clone(), json!({ "role": "root" }), 400, "malformed-request"),
        (roles.clone(), json!({}), 400, "malformed-request"),
        (
            format!("/auth/accounts/{admin}/roles"),
            json!({ "role": "staff" }),
            409,
            "last-admin",
        ),
        (
            "/auth/accounts/0190a5da-c967-74bb-8ce0-b302099a8057/roles".into(),
            json!({ "role": "staff" }),
            404,
            "not-found",
        ),
        (
            "/auth/accounts/1/roles".into(),
            json!({ "role": "staff" }),
            400,
            "malformed-request",
        ),
    ] {
        let answer = shop.post_as(&token, &path, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.slug()),
            (status, slug),
            "{path}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn accounts_are_listed_page_by_page() {
    let shop = Shop::open().await;
    let admin = shop.account("root@example.com", Role::Admin).await;
    for n in 0..4 {
        shop.pass(Duration::from_secs(1));
        shop.identity
            .create_account(
                Email::new(&format!("a{n}@example.com")).unwrap(),
                None,
                Role::Customer,
            )
            .await
            .unwrap();
    }
    let token = shop.token(admin).await;
    let (mut path, mut seen) = ("/auth/accounts?limit=2".to_owned(), Vec::new());
    loop {
        let page = shop.get_as(&token, &path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        seen.extend(
            page.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["email"].to_string()),
        );
        let Some(link) = page.headers.get("link") else {
            break;
        };
        link.to_str().unwrap().split_once('>').unwrap().0[1..].clone_into(&mut path);
    }
    assert_eq!(seen.len(), 5);
    for bad in [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=x",
        "page=2",
        "email=x",
        "limit=1&limit=2",
    ] {
        let answer = shop.get_as(&token, &format!("/auth/accounts?{bad}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.slug()),
            (400, "malformed-request"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_import_creates_accounts_that_nobody_can_log_in_to_and_can_be_repeated() {
    let shop = Shop::open().await;
    let ids: Vec<_> = (0..2_500_u128)
        .map(|n| {
            (
                AccountId::from_uuid(uuid::Uuid::from_u128(n << 64 | 8 << 76)),
                Role::Customer,
            )
        })
        .collect();
    assert_eq!(shop.identity.create_bare_accounts(&ids[..2_000]).await, Ok(2_000));
    assert_eq!(shop.identity.create_bare_accounts(&ids).await, Ok(500));
    let account = shop.identity.account(ids[7].0).await.unwrap().unwrap();
    assert_eq!(
        (account.has_password, account.role, account.status),
        (false, Role::Customer, Status::Active)
    );
    assert!(shop.identity.mint_access_token(ids[7].0).await.is_ok());
}

#[tokio::test]
async fn the_last_admin_cannot_be_lost() {
    let shop = Shop::open().await;
    let (one, two) = (
        shop.account("a@example.com", Role::Admin).await,
        shop.account("b@example.com", Role::Admin).await,
    );
    shop.identity.set_status(one, Status::Disabled).await.unwrap();
    assert_eq!(
        shop.identity.set_status(two, Status::Disabled).await,
        Err(AccountError::LastAdmin)
    );
    assert_eq!(
        shop.identity.set_role(two, Role::Customer).await,
        Err(AccountError::LastAdmin)
    );
}

#[tokio::test]
async fn bad_input_gets_the_right_problem_and_never_a_5xx() {
    let shop = Shop::open().await;
    for path in ["/auth/register", "/auth/login", "/auth/refresh", "/auth/logout"] {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "3",
            "\"x\"",
            "{\"email\":3}",
            "{\"refresh_token\":{}}",
            "{}{}",
        ] {
            let request = axum::http::Request::post(path).header("content-type", "application/json");
            let response = tower::ServiceExt::oneshot(
                shop.router.clone(),
                request.body(axum::body::Body::from(body)).unwrap(),
            );
            let response = response.await.unwrap();
            assert_eq!(response.status(), 400, "{path} {body}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        let request = axum::http::Request::post(path).header("content-type", "text/plain");
        let response = tower::ServiceExt::oneshot(
            shop.router.clone(),
            request.body(axum::body::Body::from("{}")).unwrap(),
        );
        assert_eq!(response.await.unwrap().status(), 415, "{path}");
        let long = json!({ "email": "a@b.c", "password": "x".repeat(70_000) });
        assert_eq!(shop.post(path, long).await.status, 413, "{path}");
        let get = shop.get(path).await;
        assert_eq!(
            (get.status.as_u16(), get.slug()),
            (405, "method-not-allowed"),
            "{path}"
        );
    }
    for password in ["short", &"x".repeat(129)] {
        let answer = shop
            .post(
                "/auth/register",
                json!({ "email": "a@b.c", "password": password }),
            )
            .await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["errors"][0]["pointer"]),
            (400, &json!("/password"))
        );
        assert!(!answer.body.to_string().contains(password), "{}", answer.body);
    }
}

#[tokio::test]
async fn every_route_is_described() {
    let shop = Shop::open().await;
    let (_, openapi) = identity::router(shop.identity.clone()).split_for_parts();
    let document = serde_json::to_value(&openapi).unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(paths.len(), 10, "{paths:?}");
    for schema in ["Problem", "TokenResponse", "RegisterRequest"] {
        assert!(!document["components"]["schemas"][schema].is_null(), "{schema}");
    }
}
