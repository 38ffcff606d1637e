//! Processes that check tokens without identity's keys: they follow the JWKS.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use event_schemas::Clock;
use identity::verifier::{Role, TokenError, Verifier};
use identity::{Purpose, Settings, Start, Status};
use support::Shop;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use upstreams::{HttpPool, PoolOptions};

/// Identity on a port of its own; a URL where nobody listens comes before it.
async fn serve(shop: &Shop) -> (HttpPool, JoinHandle<()>) {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let router = shop.router.clone();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let urls = vec![format!("http://{nobody}"), format!("http://{here}/")];
    let pool = HttpPool::start(PoolOptions::new("identity", urls)).await;
    (pool.unwrap(), server)
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn clock(shop: &Shop) -> Clock {
    shop.clock.clone().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_identity_and_go_with_it() {
    let shop = Shop::open().await;
    let ann = shop.account("ann@example.com", Role::Customer).await;
    let staff = shop.account("staff@example.com", Role::Staff).await;
    let (old, staff) = (shop.token(ann).await, shop.token(staff).await);
    let verifier = Verifier::from_jwks(&Settings::default(), clock(&shop));
    assert_eq!(
        verifier.authenticate(&old).await,
        Err(TokenError::Unchecked),
        "503 and not 401: nobody's token is at fault"
    );
    let (pool, server) = serve(&shop).await;
    tokio::spawn(verifier.clone().follow_jwks(pool, std::future::pending()));
    until("the keys are fetched", async || verifier.has_keys()).await;
    assert_eq!(verifier.authenticate(&old).await.unwrap().account_id, ann);
    assert_eq!(verifier.authenticate(&staff).await.unwrap().role, Role::Staff);
    assert_eq!(verifier.authenticate("a.b.c").await, Err(TokenError::Malformed));

    let leaked = shop.identity.keys()[0].id.clone();
    shop.identity.rotate_key(Purpose::Signing, Start::Now).unwrap();
    shop.identity.retire_key(&leaked).unwrap();
    until("a key that was taken out of use signs no more", async || {
        verifier.authenticate(&old).await == Err(TokenError::UnknownKey)
    })
    .await;
    let new = shop.token(ann).await;
    assert!(verifier.authenticate(&new).await.is_ok());

    server.abort();
    until("identity is away", async || server.is_finished()).await;
    let (unreachable, gone) = (
        verifier.clone(),
        Verifier::from_jwks(&Settings::default(), clock(&shop)),
    );
    assert!(unreachable.authenticate(&new).await.is_ok(), "the last keys stay");
    assert!(!gone.has_keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_revoked_staff_is_noticed() {
    let shop = Shop::open().await;
    let id = shop.account("staff@example.com", Role::Staff).await;
    let token = shop.token(id).await;
    let verifier = Verifier::from_database(&shop.database, &Settings::default(), clock(&shop))
        .await
        .unwrap();
    let (pool, server) = serve(&shop).await;
    tokio::spawn(verifier.clone().follow_jwks(pool, std::future::pending()));
    until("the keys are fetched", async || verifier.has_keys()).await;
    assert!(verifier.authenticate(&token).await.is_ok());
    shop.identity.set_status(id, Status::Disabled).await.unwrap();
    shop.pass(Duration::from_millis(10_001));
    assert_eq!(verifier.authenticate(&token).await, Err(TokenError::Revoked));
    server.abort();
}
