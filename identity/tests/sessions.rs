//! Refresh tokens, log-out, and what ends a session.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use database::{Database, DatabaseError};
use event_schemas::AccountId;
use identity::verifier::{Role, TokenError};
use identity::{Email, NewPassword, Purpose, REFRESH_TOKEN_LIFE, Start, Status};
use serde_json::json;
use support::{PASSWORD, Shop};

const GRACE: Duration = Duration::from_secs(10);

async fn signed_in() -> (Shop, String) {
    let shop = Shop::open().await;
    shop.account("ann@example.com", Role::Customer).await;
    let token = shop
        .log_in("ann@example.com", PASSWORD)
        .await
        .text("/refresh_token");
    (shop, token)
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_successor_after_it() {
    let (shop, mut token) = signed_in().await;
    for _ in 0..3 {
        shop.pass(Duration::from_secs(60));
        let answer = shop.refresh(&token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            shop.get_as(&answer.text("/access_token"), "/auth/me")
                .await
                .status,
            200
        );
        let next = answer.text("/refresh_token");
        assert_ne!(next, token);
        token = next;
    }
}

#[tokio::test]
async fn a_lost_answer_is_not_theft() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    shop.pass(GRACE);
    assert_eq!(
        shop.refresh(&first).await.text("/refresh_token"),
        second,
        "the same successor, to the last moment"
    );
    assert_eq!(shop.refresh(&second).await.status, 200, "and the session goes on");
}

#[tokio::test]
async fn reuse_ends_the_session_of_thief_and_owner() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    shop.pass(GRACE + Duration::from_micros(1));
    let reuse = shop.refresh(&first).await;
    assert_eq!(
        (reuse.status.as_u16(), reuse.slug()),
        (401, "invalid-refresh-token")
    );
    assert_eq!(
        shop.refresh(&second).await.status,
        401,
        "the successor has ended with it"
    );
}

#[tokio::test]
async fn two_steps_back_is_reuse_however_fast() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    let third = shop.refresh(&second).await.text("/refresh_token");
    assert_eq!(shop.refresh(&first).await.status, 401);
    assert_eq!(shop.refresh(&third).await.status, 401);
}

#[tokio::test]
async fn reuse_ends_that_session_only() {
    let (shop, first) = signed_in().await;
    let elsewhere = shop
        .log_in("ann@example.com", PASSWORD)
        .await
        .text("/refresh_token");
    shop.refresh(&first).await;
    shop.pass(GRACE * 2);
    assert_eq!(shop.refresh(&first).await.status, 401);
    assert_eq!(shop.refresh(&elsewhere).await.status, 200);
}

#[tokio::test]
async fn a_made_up_old_token_cannot_end_a_session() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    shop.pass(GRACE * 2);
    let mut forged = first.into_bytes();
    // A character in the middle of the MAC.
    forged[50] = if forged[50] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert_eq!(shop.refresh(&forged).await.status, 401);
    assert_eq!(
        shop.post("/auth/logout", json!({ "refresh_token": forged }))
            .await
            .status,
        204
    );
    assert_eq!(shop.refresh(&second).await.status, 200);
}

#[tokio::test]
async fn at_once_from_many_windows_there_is_one_successor() {
    let (shop, first) = signed_in().await;
    let address = http_conventions::ClientAddress(None);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (identity, token) = (shop.identity.clone(), first.clone());
            tokio::spawn(async move {
                identity
                    .refresh(&token, address)
                    .await
                    .unwrap()
                    .refresh_token()
                    .to_owned()
            })
        })
        .collect();
    let mut successors = std::collections::HashSet::new();
    for task in tasks {
        successors.insert(task.await.unwrap());
    }
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn the_file_holds_no_token() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    if !matches!(shop.database, Database::Sqlite(_)) {
        eprintln!("not tested: PostgreSQL's files are not ours to read");
        return;
    }
    shop.database.close().await.unwrap();
    let bytes = std::fs::read(shop.test.url()).unwrap();
    for token in [first, second] {
        let secret = &token.as_bytes()[30..];
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    assert!(
        !bytes
            .windows(PASSWORD.len())
            .any(|window| window == PASSWORD.as_bytes())
    );
}

#[tokio::test]
async fn an_idle_session_expires_and_its_row_goes() {
    let (shop, token) = signed_in().await;
    shop.pass(REFRESH_TOKEN_LIFE);
    assert_eq!(shop.refresh(&token).await.status, 401);
    shop.pass(Duration::from_secs(1));
    shop.identity.maintain().await.unwrap();
    let rows = shop.database.read(|session| {
        session.query_one("SELECT count(*) FROM refresh_families", &[], |row| {
            row.get::<i64>(0)
        })
    });
    assert_eq!(rows.await, Ok::<_, DatabaseError>(0));
}

#[tokio::test]
async fn a_session_ends_after_ninety_days_however_busy() {
    let (shop, mut token) = signed_in().await;
    for _ in 0..4 {
        shop.pass(Duration::from_secs(20 * 86_400));
        token = shop.refresh(&token).await.text("/refresh_token");
    }
    shop.pass(Duration::from_secs(10 * 86_400));
    assert_eq!(shop.refresh(&token).await.status, 401);
}

#[tokio::test]
async fn log_out_ends_the_session_from_any_of_its_tokens() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    for _ in 0..2 {
        assert_eq!(
            shop.post("/auth/logout", json!({ "refresh_token": first }))
                .await
                .status,
            204
        );
    }
    assert_eq!(shop.refresh(&second).await.status, 401);
    assert_eq!(
        shop.post("/auth/logout", json!({ "refresh_token": "nonsense" }))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn an_account_has_at_most_twenty_sessions() {
    let shop = Shop::open().await;
    shop.account("ann@example.com", Role::Customer).await;
    let mut tokens = Vec::new();
    for _ in 0..21 {
        shop.pass(Duration::from_secs(120));
        tokens.push(
            shop.log_in("ann@example.com", PASSWORD)
                .await
                .text("/refresh_token"),
        );
    }
    assert_eq!(shop.refresh(&tokens[0]).await.status, 401, "the oldest made room");
    assert_eq!(shop.refresh(&tokens[1]).await.status, 200);
    assert_eq!(shop.refresh(&tokens[20]).await.status, 200);
}

#[tokio::test]
async fn rotating_the_refresh_key_interrupts_nobody() {
    let (shop, first) = signed_in().await;
    let second = shop.refresh(&first).await.text("/refresh_token");
    shop.identity
        .rotate_key(Purpose::Refresh, Start::WhenPublished)
        .unwrap();
    assert_eq!(
        shop.refresh(&first).await.text("/refresh_token"),
        second,
        "grace spans the rotation"
    );
    let third = shop.refresh(&second).await.text("/refresh_token");
    shop.pass(GRACE * 2);
    assert_eq!(
        shop.refresh(&second).await.status,
        401,
        "reuse under the old key is still noticed"
    );
    assert_eq!(shop.refresh(&third).await.status, 401);
}

async fn password_of(shop: &Shop, id: AccountId, password: &str) {
    shop.identity
        .reset_password(id, NewPassword::new(password).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_of_password_role_or_status_ends_every_session() {
    for what in ["password", "role", "status"] {
        let shop = Shop::open().await;
        let id = shop.account("ann@example.com", Role::Customer).await;
        let one = shop
            .log_in("ann@example.com", PASSWORD)
            .await
            .text("/refresh_token");
        let two = shop
            .log_in("ann@example.com", PASSWORD)
            .await
            .text("/refresh_token");
        match what {
            "password" => password_of(&shop, id, "another good one").await,
            "role" => drop(shop.identity.set_role(id, Role::Staff).await.unwrap()),
            _ => drop(shop.identity.set_status(id, Status::Disabled).await.unwrap()),
        }
        for token in [one, two] {
            assert_eq!(shop.refresh(&token).await.status, 401, "{what}");
        }
    }
}

#[tokio::test]
async fn changing_one_s_password_needs_the_old_one_and_goes_on_in_a_new_session() {
    let (shop, old) = signed_in().await;
    let access = shop
        .log_in("ann@example.com", PASSWORD)
        .await
        .text("/access_token");
    let change = |current: &'static str| {
        let body = json!({ "current_password": current, "new_password": "another good one" });
        shop.post_as(&access, "/auth/password", body)
    };
    let wrong = change("not the old one").await;
    assert_eq!((wrong.status.as_u16(), wrong.slug()), (401, "bad-credentials"));
    assert_eq!(shop.refresh(&old).await.status, 200, "nothing has happened");
    let answer = change(PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(shop.refresh(&answer.text("/refresh_token")).await.status, 200);
    assert_eq!(shop.log_in("ann@example.com", PASSWORD).await.status, 401);
    assert_eq!(
        shop.log_in("ann@example.com", "another good one").await.status,
        200
    );
}

#[tokio::test]
async fn a_disabled_account_cannot_log_in_and_an_enabled_one_can() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    shop.identity.set_status(id, Status::Disabled).await.unwrap();
    let answer = shop.log_in("ann@example.com", PASSWORD).await;
    assert_eq!((answer.status.as_u16(), answer.slug()), (401, "bad-credentials"));
    assert!(shop.identity.mint_access_token(id).await.is_err());
    shop.identity.set_status(id, Status::Active).await.unwrap();
    assert_eq!(shop.log_in("ann@example.com", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn demotion_takes_hold_at_once_here_and_within_ten_seconds_elsewhere() {
    for what in ["role", "status", "password"] {
        let shop = Shop::open().await;
        shop.account("root@example.com", Role::Admin).await;
        let id = shop.account("eve@example.com", Role::Admin).await;
        let (here, elsewhere) = (shop.identity.verifier(), shop.other_process().await.verifier());
        let token = shop.token(id).await;
        assert!(here.authenticate(&token).await.is_ok());
        assert!(elsewhere.authenticate(&token).await.is_ok());
        match what {
            "role" => drop(shop.identity.set_role(id, Role::Staff).await.unwrap()),
            "status" => drop(shop.identity.set_status(id, Status::Disabled).await.unwrap()),
            _ => password_of(&shop, id, "another good one").await,
        }
        assert_eq!(
            here.authenticate(&token).await,
            Err(TokenError::Revoked),
            "{what}"
        );
        shop.pass(Duration::from_millis(10_001));
        assert_eq!(
            elsewhere.authenticate(&token).await,
            Err(TokenError::Revoked),
            "{what}, elsewhere"
        );
    }
}

#[tokio::test]
async fn without_the_store_staff_is_not_trusted_and_customers_are() {
    let shop = Shop::open().await;
    let staff = shop.account("staff@example.com", Role::Staff).await;
    let customer = shop.account("ann@example.com", Role::Customer).await;
    let (staff, customer) = (shop.token(staff).await, shop.token(customer).await);
    shop.database.close().await.unwrap();
    let verifier = shop.identity.verifier();
    assert!(
        verifier.authenticate(&staff).await.is_ok(),
        "known for up to 10 s"
    );
    shop.pass(Duration::from_millis(10_001));
    assert_eq!(verifier.authenticate(&staff).await, Err(TokenError::Unchecked));
    assert!(verifier.authenticate(&customer).await.is_ok());
    assert_eq!(shop.get_as(&staff, "/auth/me").await.status, 503);
}

#[tokio::test]
async fn staff_made_by_another_process_can_work_right_away() {
    let shop = Shop::open().await;
    let cli = shop.other_process().await;
    let (email, password) = (
        Email::new("new@example.com").unwrap(),
        NewPassword::new(PASSWORD).unwrap(),
    );
    cli.create_account(email, Some(password), Role::Staff)
        .await
        .unwrap();
    let access = shop
        .log_in("new@example.com", PASSWORD)
        .await
        .text("/access_token");
    assert_eq!(shop.get_as(&access, "/auth/me").await.status, 200);
}
