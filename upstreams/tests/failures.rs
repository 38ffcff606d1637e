//! What happens when a replica is down, slow or broken: what is sent again, what is not, and that nothing hangs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::Method;
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use http_conventions::{ClientAddress, ServiceToken, TraceContext};
use support::{Manner, Replica, Rogue, nobody, options, request, soon, state, text, until, who};
use upstreams::{HttpPool, UpstreamError};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn what_never_reached_a_replica_is_sent_to_another_posts_too() {
    let (replica, away) = (Replica::start().await, nobody().await);
    let mut options = options(&[format!("http://{away}"), replica.url()]);
    // Only requests find out.
    options.check_every = Duration::from_secs(3_600);
    let pool = HttpPool::start(options).await.unwrap();
    for number in 0..30 {
        let body = Body::from_stream(stream::iter(["one ", "two"].map(Ok::<_, Infallible>)));
        let key = format!("order/{number}");
        let said = text(pool.request(Some(&key), request(Method::POST, "/", body)).await).await;
        assert!(said.starts_with(&format!("{} / 7\n", replica.address)), "{said}");
    }
    assert_eq!(replica.requests(), 30, "each arrived once");
}

#[tokio::test]
async fn a_post_whose_bytes_were_sent_is_not_sent_again_and_a_get_is_within_bounds() {
    let rogues = [
        Rogue::start(Manner::HangsUp).await,
        Rogue::start(Manner::HangsUp).await,
        Rogue::start(Manner::HangsUp).await,
        Rogue::start(Manner::HangsUp).await,
    ];
    let mut options = options(&rogues.each_ref().map(Rogue::url));
    // What is counted here is not when a replica is left alone.
    options.failures_max = 100;
    let pool = HttpPool::start(options).await.unwrap();
    let arrived = || rogues.iter().map(Rogue::requests).sum::<usize>();
    for body in ["", "a body"] {
        let before = arrived();
        let answer = pool
            .request(Some("order/1"), request(Method::POST, "/", body))
            .await;
        assert_eq!(answer.unwrap_err(), UpstreamError::Broken);
        assert_eq!(arrived() - before, 1, "sent again with {body:?}");
    }
    assert!(!UpstreamError::Broken.retryable() && !UpstreamError::NoAnswer.retryable());

    let before = arrived();
    let answer = pool.request(Some("order/2"), request(Method::GET, "/", "")).await;
    assert_eq!(answer.unwrap_err(), UpstreamError::Broken);
    assert_eq!(arrived() - before, 3, "attempts_max");

    // Safe, but there is nothing left to send again.
    let before = arrived();
    let answer = pool
        .request(Some("order/2"), request(Method::GET, "/", "read once"))
        .await;
    assert_eq!(answer.unwrap_err(), UpstreamError::Broken);
    assert_eq!(arrived() - before, 1);
}

#[tokio::test]
async fn no_answer_in_time_ends_a_post_and_moves_a_get() {
    let (slow, quick) = (Replica::start().await, Replica::start().await);
    slow.told.holds.store(true, Ordering::SeqCst);
    let mut options = options(&[slow.url(), quick.url()]);
    options.first_byte_timeout = Duration::from_secs(1);
    options.failures_max = 100;
    let pool = HttpPool::start(options).await.unwrap();
    let (mut ended, mut answered) = (0, 0);
    for number in 0..64 {
        if ended > 0 && answered > 0 {
            break;
        }
        let key = format!("order/{number}");
        let before = quick.requests();
        match pool.request(Some(&key), request(Method::POST, "/", "x")).await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(error, UpstreamError::NoAnswer);
                assert_eq!(quick.requests(), before, "sent again");
                ended += 1;
            }
        }
        let said = text(pool.request(Some(&key), request(Method::GET, "/", "")).await).await;
        assert!(said.starts_with(&quick.address.to_string()));
    }
    assert!(ended > 0 && answered > 0, "{ended} {answered}");
}

#[tokio::test]
async fn a_client_that_is_slow_or_breaks_off_is_not_held_against_the_replica() {
    let replica = Replica::start().await;
    let mut options = options(&[replica.url()]);
    options.first_byte_timeout = SHORT;
    options.failures_max = 1;
    let pool = HttpPool::start(options).await.unwrap();
    let slow = stream::iter(0..4).then(|_| async {
        tokio::time::sleep(SHORT / 2).await;
        Ok::<_, Infallible>("part")
    });
    let answer = pool
        .request(None, request(Method::POST, "/", Body::from_stream(slow)))
        .await;
    assert!(text(answer).await.contains(" / 16\n"));

    let broken = stream::iter([Ok(Bytes::from("part")), Err(io::Error::other("the client left"))]);
    let answer = pool
        .request(None, request(Method::POST, "/", Body::from_stream(broken)))
        .await;
    assert_eq!(answer.unwrap_err(), UpstreamError::RequestBody);
    assert!(state(&pool, replica.address).closed);
}

#[tokio::test]
async fn a_cut_body_is_an_error_and_not_an_end_and_a_stalled_one_ends() {
    for manner in [Manner::CutsTheBody, Manner::Stalls] {
        let rogue = Rogue::start(manner).await;
        let mut options = options(&[rogue.url()]);
        options.stall_timeout = SHORT;
        let pool = HttpPool::start(options).await.unwrap();
        let answer = pool.request(None, request(Method::GET, "/", "")).await.unwrap();
        let body = soon("the body ends", to_bytes(answer.into_body(), usize::MAX)).await;
        assert!(body.is_err());
        assert_eq!(state(&pool, rogue.address).in_flight, 0);
    }
}

#[tokio::test]
async fn an_answer_is_no_longer_than_allowed() {
    let replica = Replica::start().await;
    let mut options = options(&[replica.url()]);
    options.response_bytes_max = 10;
    let pool = HttpPool::start(options).await.unwrap();
    let answer = pool.request(None, request(Method::GET, "/", "")).await.unwrap();
    assert!(to_bytes(answer.into_body(), usize::MAX).await.is_err());
}

#[tokio::test]
async fn failures_in_a_row_open_the_circuit_and_a_probe_closes_it() {
    let address = nobody().await;
    let mut options = options(&[format!("http://{address}")]);
    options.check_every = Duration::from_secs(3_600);
    (options.open_min, options.open_max) = (SHORT, SHORT);
    let pool = HttpPool::start(options).await.unwrap();
    let get = async || pool.request(None, request(Method::GET, "/", "")).await;
    for failures in 1..=3 {
        assert_eq!(get().await.unwrap_err(), UpstreamError::Unavailable);
        assert_eq!(state(&pool, address).closed, failures < 3);
    }
    // Somebody listens again, and is left alone for a while.
    let replica = Replica::start_at(address).await;
    replica.told.holds.store(true, Ordering::SeqCst);
    // Then one request is let through, and only one until it is answered.
    let probe = async {
        loop {
            match get().await {
                Ok(answer) => break text(Ok(answer)).await,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let meanwhile = async {
        until("the probe arrives", || replica.requests() == 1).await;
        assert_eq!(get().await.unwrap_err(), UpstreamError::Unavailable);
        assert_eq!(replica.requests(), 1);
        assert!(!state(&pool, address).closed);
        replica.told.holds.store(false, Ordering::SeqCst);
        replica.told.release.notify_one();
    };
    soon("the circuit closes", async { tokio::join!(probe, meanwhile) }).await;
    assert!(state(&pool, address).closed);
    who(&pool, None).await;
}

#[tokio::test]
async fn a_check_that_finds_a_replica_back_lets_the_next_request_probe_at_once() {
    let address = nobody().await;
    let mut options = options(&[format!("http://{address}")]);
    (options.open_min, options.open_max) = (Duration::from_secs(3_600), Duration::from_secs(3_600));
    let pool = HttpPool::start(options).await.unwrap();
    for _ in 0..3 {
        let _ = pool.request(None, request(Method::GET, "/", "")).await;
    }
    until("it is seen to be away", || !state(&pool, address).ready).await;
    assert!(!state(&pool, address).closed);
    let _replica = Replica::start_at(address).await;
    until("it is seen to be back", || state(&pool, address).ready).await;
    who(&pool, None).await;
}

#[tokio::test]
async fn the_whole_time_is_bounded_whatever_else_is_allowed() {
    let replica = Replica::start().await;
    replica.told.holds.store(true, Ordering::SeqCst);
    let mut options = options(&[replica.url()]);
    options.timeout = SHORT;
    let pool = HttpPool::start(options).await.unwrap();
    let answer = pool.request(None, request(Method::GET, "/", "")).await;
    assert_eq!(answer.unwrap_err(), UpstreamError::NoAnswer);
    assert_eq!(state(&pool, replica.address).in_flight, 0);
}

#[tokio::test]
async fn an_event_stream_passes_as_it_comes_and_outlives_the_time_of_a_request() {
    let events = || async {
        let first = stream::once(async { Ok::<_, Infallible>("data: 1\n\n") });
        let later = stream::once(async {
            tokio::time::sleep(SHORT * 2).await;
            Ok("data: 2\n\n")
        });
        let body = Body::from_stream(first.chain(later).chain(stream::pending()));
        ([("content-type", "text/event-stream")], body)
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let replica = Replica::with(any, |router| router.route("/stream", get(events))).await;
    let mut options = options(&[replica.url()]);
    options.timeout = SHORT;
    options.response_bytes_max = 10;
    let pool = HttpPool::start(options).await.unwrap();
    let answer = pool
        .request(None, request(Method::GET, "/stream", ""))
        .await
        .unwrap();
    let mut body = answer.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let frame = soon("an event", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    assert_eq!(state(&pool, replica.address).in_flight, 1);
    drop(body);
    assert_eq!(state(&pool, replica.address).in_flight, 0);
}

#[tokio::test]
async fn what_we_vouch_for_goes_with_the_request() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let replica = Replica::start().await;
    let mut options = options(&[replica.url()]);
    options.service_token = Some(ServiceToken::new(SECRET).unwrap());
    let pool = HttpPool::start(options).await.unwrap();
    let mut request = request(Method::POST, "/", "body");
    request
        .extensions_mut()
        .insert(ClientAddress(Some("192.0.2.7".parse().unwrap())));
    request
        .extensions_mut()
        .insert::<TraceContext>(CONTEXT.parse().unwrap());
    let said = text(pool.request(None, request).await).await;
    assert!(said.contains(&format!("omisys-service-token: {SECRET}\n")));
    assert!(said.contains("omisys-client-address: 192.0.2.7\n"));
    assert!(said.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert!(!said.contains(CONTEXT), "a span of its own");
}
