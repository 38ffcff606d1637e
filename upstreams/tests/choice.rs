//! Which replica a request goes to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use axum::http::Method;
use support::{Replica, nobody, options, pool, request, soon, state, text, until, who};
use upstreams::{HttpPool, PoolHealth, UpstreamError};

async fn owners(pool: &HttpPool) -> HashMap<String, SocketAddr> {
    let mut owners = HashMap::new();
    for number in 0..60 {
        let key = format!("order/{number}");
        let owner = who(pool, Some(&key)).await;
        owners.insert(key, owner);
    }
    owners
}

#[tokio::test]
async fn a_key_stays_with_its_replica_and_only_a_leaving_ones_keys_move() {
    let mut replicas = [
        Replica::start().await,
        Replica::start().await,
        Replica::start().await,
    ];
    let urls = replicas.each_ref().map(Replica::url);
    let (one, other) = (pool(&urls).await, pool(&[&urls[2..], &urls[..2]].concat()).await);
    let before = owners(&one).await;
    assert_eq!(owners(&other).await, before, "another process chooses alike");
    for (key, owner) in &before {
        assert_eq!(one.owner(key), Some(*owner));
    }
    for replica in &replicas {
        assert!(before.values().any(|owner| *owner == replica.address));
    }

    let left = replicas[1].address;
    replicas[1].stop().await;
    let after = owners(&one).await;
    for (key, owner) in &before {
        if *owner == left {
            assert_ne!(after[key], left);
        } else {
            assert_eq!(after[key], *owner, "{key} moved");
        }
    }
    until("it is seen to be away", || !state(&one, left).ready).await;
    assert!(
        matches!(one.health(), PoolHealth::Degraded(_)),
        "{:?}",
        one.health()
    );

    // It comes back to its keys.
    let _back = Replica::start_at(left).await;
    until("it is seen to be back", || state(&one, left).ready).await;
    assert_eq!(owners(&one).await, before);
    assert_eq!(one.health(), PoolHealth::Up);
}

#[tokio::test]
async fn without_a_key_the_least_loaded_answers() {
    let (busy, idle) = (Replica::start().await, Replica::start().await);
    let pool = pool(&[busy.url(), idle.url()]).await;
    // Equals take turns.
    for _ in 0..4 {
        who(&pool, None).await;
    }
    assert_eq!((busy.requests(), idle.requests()), (2, 2));

    busy.told.holds.store(true, Ordering::SeqCst);
    let held = (0..2).map(|_| async { text(pool.request(None, request(Method::GET, "/", "")).await).await });
    let held = futures_util::future::join_all(held);
    let meanwhile = async {
        until("one is held and one is answered", || {
            state(&pool, busy.address).in_flight == 1 && state(&pool, idle.address).in_flight == 0
        })
        .await;
        for _ in 0..6 {
            assert_eq!(who(&pool, None).await, idle.address);
        }
        busy.told.release.notify_one();
    };
    soon("both are answered", async { tokio::join!(held, meanwhile) }).await;
}

#[tokio::test]
async fn a_replica_that_says_it_cannot_serve_is_left_out_unless_all_say_so() {
    let (shut, open) = (Replica::start().await, Replica::start().await);
    let pool = pool(&[shut.url(), open.url()]).await;
    shut.told.ready.store(false, Ordering::SeqCst);
    until("it is seen", || !state(&pool, shut.address).ready).await;
    let before = shut.requests();
    for number in 0..20 {
        assert_eq!(who(&pool, Some(&format!("cart/{number}"))).await, open.address);
    }
    assert_eq!(shut.requests(), before);

    open.told.ready.store(false, Ordering::SeqCst);
    until("none is ready", || matches!(pool.health(), PoolHealth::Down(_))).await;
    // Their own answer says more than ours would.
    let answered = who(&pool, Some("cart/1")).await;
    assert!([shut.address, open.address].contains(&answered));
}

#[tokio::test]
async fn a_name_is_its_addresses_and_one_that_resolves_to_nothing_is_looked_up_again() {
    let replica = Replica::start().await;
    let named = format!("http://localhost:{}", replica.address.port());
    let pool = pool(&[named]).await;
    assert_eq!(pool.states().len(), 1);
    let said = text(pool.request(None, request(Method::GET, "/v1/x?y=1", "")).await).await;
    assert!(
        said.starts_with(&format!("{} /v1/x?y=1 0\n", replica.address)),
        "{said}"
    );
    assert!(said.contains(&format!("host: localhost:{}\n", replica.address.port())));

    let nowhere = support::pool(&["http://nothing.invalid:80".to_owned()]).await;
    assert!(matches!(nowhere.health(), PoolHealth::Down(_)));
    assert_eq!(nowhere.owner("order/1"), None);
    let answer = nowhere.request(None, request(Method::GET, "/", "")).await;
    assert_eq!(answer.unwrap_err(), UpstreamError::Unavailable);
}

#[tokio::test]
async fn what_one_replica_takes_at_once_is_bounded() {
    let replica = Replica::start().await;
    let mut options = options(&[replica.url(), format!("http://{}", nobody().await)]);
    options.in_flight_max = 1;
    let pool = HttpPool::start(options).await.unwrap();
    until("the other is seen to be away", || {
        matches!(pool.health(), PoolHealth::Degraded(_))
    })
    .await;
    replica.told.holds.store(true, Ordering::SeqCst);
    let held = pool.request(None, request(Method::GET, "/", ""));
    let meanwhile = async {
        until("it is held", || state(&pool, replica.address).in_flight == 1).await;
        replica.told.holds.store(false, Ordering::SeqCst);
        let answer = pool.request(None, request(Method::POST, "/", "")).await;
        assert!(answer.unwrap_err().retryable());
        replica.told.release.notify_one();
    };
    let (held, ()) = soon("the first is answered", async { tokio::join!(held, meanwhile) }).await;
    text(held).await;
    assert_eq!(state(&pool, replica.address).in_flight, 0);
    who(&pool, None).await;
}
