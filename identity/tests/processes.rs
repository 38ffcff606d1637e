//! What only several processes at the same moment can get wrong.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use event_schemas::AccountId;
use http_conventions::ClientAddress;
use identity::verifier::Role;
use identity::{AccountError, Email, Identity, NewPassword, Password, SessionError};
use support::{PASSWORD, Shop, address};

const ANN: &str = "ann@example.com";

async fn log_in(process: &Identity) -> Result<String, SessionError> {
    let (email, password) = (Email::new(ANN).unwrap(), Password::new(PASSWORD).unwrap());
    let signed_in = process
        .log_in(email, password, ClientAddress(Some(address(1))))
        .await?;
    Ok(signed_in.refresh_token().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shown_to_two_processes_at_once_has_one_successor() {
    let shop = Shop::open().await;
    shop.account(ANN, Role::Customer).await;
    let other = shop.other_process().await;
    let mut token = log_in(&shop.identity).await.unwrap();
    for _ in 0..10 {
        let one = shop.identity.refresh(&token, ClientAddress(None));
        let two = other.refresh(&token, ClientAddress(None));
        let (one, two) = tokio::join!(one, two);
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.refresh_token(), two.refresh_token());
        one.refresh_token().clone_into(&mut token);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_cannot_both_go_at_once() {
    let shop = Shop::open().await;
    let other = shop.other_process().await;
    let mut left: Option<AccountId> = None;
    for round in 0..10 {
        let one = shop
            .account(&format!("one-{round}@example.com"), Role::Admin)
            .await;
        let two = shop
            .account(&format!("two-{round}@example.com"), Role::Admin)
            .await;
        if let Some(left) = left {
            shop.identity.set_role(left, Role::Staff).await.unwrap();
        }
        let both = tokio::join!(
            shop.identity.set_role(one, Role::Staff),
            other.set_role(two, Role::Staff)
        );
        left = Some(match both {
            (Ok(_), Err(AccountError::LastAdmin)) => two,
            (Err(AccountError::LastAdmin), Ok(_)) => one,
            both => panic!("one of them goes: {both:?}"),
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_survives_a_password_change_that_it_began_beside() {
    let shop = Shop::open().await;
    let id = shop.account(ANN, Role::Customer).await;
    let other = shop.other_process().await;
    for _ in 0..8 {
        let (began, changed) = tokio::join!(
            log_in(&shop.identity),
            other.reset_password(id, NewPassword::new("quite another one").unwrap())
        );
        changed.unwrap();
        // With the old password it began before the change, or not at all.
        match began {
            Ok(token) => assert!(other.refresh(&token, ClientAddress(None)).await.is_err()),
            Err(SessionError::BadCredentials) => {}
            Err(error) => panic!("{error}"),
        }
        let password = NewPassword::new(PASSWORD).unwrap();
        other.reset_password(id, password).await.unwrap();
    }
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_for_all_processes_together() {
    use identity::{KeySource, Settings};
    use limits::{Limits, Redis, RedisOptions};

    if std::env::var_os("OMISYS_TEST_CLUSTER").is_none() && std::env::var_os("CI").is_none() {
        eprintln!("not tested: OMISYS_TEST_CLUSTER is not set, so there is no Redis");
        return;
    }
    let url = std::env::var("OMISYS_TEST_REDIS_URL").unwrap();
    let shop = Shop::open().await;
    let id = shop.account(ANN, Role::Customer).await;
    // As good a name for this test's keys as any: it is new.
    let process = async || {
        let redis = Redis::open(RedisOptions::new(&url, format!("{id}:"))).unwrap();
        Identity::open_counting(
            &shop.database,
            KeySource::Directory(shop.dir.path().join("keys")),
            Settings::default(),
            shop.clock.clone().into(),
            &Limits::Redis(redis),
        )
        .await
        .unwrap()
    };
    let (one, other) = (process().await, process().await);
    let wrong = async |process: &Identity| {
        let (email, password) = (Email::new(ANN).unwrap(), Password::new("not this one").unwrap());
        process.log_in(email, password, ClientAddress(None)).await
    };
    for n in 0..10 {
        let refused = wrong(if n % 2 == 0 { &one } else { &other }).await;
        assert!(matches!(refused, Err(SessionError::BadCredentials)), "{n}");
    }
    for process in [&one, &other] {
        let refused = log_in(process).await;
        assert!(
            matches!(refused, Err(SessionError::Throttled(_))),
            "even with the right one"
        );
    }
}
