//! What the processes of a cluster say about themselves: one trace from the gateway to the read models, and metrics.
#![cfg(feature = "cluster")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use common::Demo;
use http::{HeaderName, Method};
use serde_json::json;
use testkit::{Client, DEADLINE, Service, cluster_is_to_be_tested, until};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What the processes have sent, each an OTLP request of one process.
type Sent = Arc<Mutex<Vec<Bytes>>>;

/// An OTLP collector that keeps what it gets; answers its address too.
async fn collector() -> (String, Sent) {
    let sent = Sent::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let keep = |State(sent): State<Sent>, body: Bytes| async move { sent.lock().unwrap().push(body) };
    let router = Router::new()
        .route("/v1/traces", post(keep))
        .with_state(Arc::clone(&sent));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, sent)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// (process, span) of every span of `trace`.
///
/// An OTLP span begins with its trace's id (field 1, 16 bytes) and its own (field 2, 8 bytes); its name is field 5. See
/// <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>.
fn told(sent: &Sent, trace: [u8; 16]) -> BTreeSet<(&'static str, &'static str)> {
    let beginning = [&[0x0a, 16][..], &trace, &[0x12, 8]].concat();
    let any_trace = [0x0a, 16];
    let mut told = BTreeSet::new();
    for body in sent.lock().unwrap().iter() {
        let process = Service::ALL
            .map(Service::name)
            .into_iter()
            .find(|process| contains(body, format!("omisys-{process}").as_bytes()));
        for start in 0..body.len().saturating_sub(beginning.len()) {
            if body[start..].starts_with(&beginning) {
                let rest = &body[start + 2..];
                let end = rest
                    .windows(2)
                    .position(|pair| pair == any_trace)
                    .unwrap_or(rest.len());
                let span = &rest[..end];
                for name in ["request", "command", "relay", "policy", "project"] {
                    let field = [&[0x2a, name.len() as u8], name.as_bytes()].concat();
                    if contains(span, &field) {
                        told.extend(process.map(|process| (process, name)));
                    }
                }
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_the_gateway_to_the_read_models() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let (address, sent) = collector().await;
    let demo = Demo::start_cluster(1, &[("OMISYS_TELEMETRY__OTLP_ENDPOINT", &address)]).await;
    let guest = demo.shop.guest().await;
    let trace: [u8; 16] = *b"one whole trace!";
    let hex = format!("{:032x}", u128::from_be_bytes(trace));
    let headers = [
        (
            HeaderName::from_static("traceparent"),
            format!("00-{hex}-00f067aa0ba902b7-01"),
        ),
        (HeaderName::from_static("prefer"), "wait=10".to_owned()),
    ];
    let order = json!({
        "lines": [{ "sku": "MUG-1", "quantity": 1 }],
        "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB",
    });
    let reply = guest
        .try_request(Method::POST, "/v1/orders", Some("traced"), &headers, Some(&order))
        .await
        .unwrap()
        .expect(201);
    assert_eq!(reply.json()["order"]["status"], "paid", "{}", reply.json());
    assert!(reply.header("traceparent").unwrap().contains(&hex));
    let expected = BTreeSet::from([
        ("gateway", "request"),
        ("command-api", "request"),
        ("command-api", "command"),
        ("relay", "relay"),
        ("sagas", "policy"),
        ("projector", "project"),
    ]);
    let deadline = Instant::now() + DEADLINE;
    while !told(&sent, trace).is_superset(&expected) {
        assert!(
            Instant::now() < deadline,
            "only {:?} have told",
            told(&sent, trace)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let strangers: [u8; 16] = *b"nobody's trace!!";
    assert!(
        told(&sent, strangers).is_empty(),
        "the test can tell traces apart"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_counts_what_it_does() {
    if !cluster_is_to_be_tested() {
        return;
    }
    let mut demo = Demo::start_cluster(1, &[]).await;
    let guest = demo.shop.guest().await;
    guest.add_to_cart("MUG-1", 1).await.expect(200);
    let reply = guest.check_out("tok_ok", 10).await.expect(201).json();
    let order = format!("/v1/orders/{}", reply["order"]["id"].as_str().unwrap());
    until("the order is shown", || async {
        (guest.get(&order).await.json()["status"] == "paid").then_some(())
    })
    .await;
    for (service, names) in [
        (
            Service::CommandApi,
            &[
                "omisys_http_requests_total{",
                "omisys_http_request_duration_seconds_bucket{",
                "omisys_commands_total{",
                "omisys_journal_batch_events_bucket{",
                "omisys_journal_commit_seconds_bucket{",
            ][..],
        ),
        (
            Service::QueryApi,
            &["omisys_http_requests_total{", "omisys_view_cache_total{"],
        ),
        (Service::Identity, &["omisys_http_requests_total{"]),
        (
            Service::Relay,
            &["omisys_relay_lag_positions", "omisys_relay_lag_seconds"],
        ),
        (
            Service::Sagas,
            &[
                "omisys_saga_steps_total{",
                "omisys_saga_lag_positions",
                "omisys_effects_total{",
                "omisys_dead_letters{",
            ],
        ),
        (
            Service::Projector,
            &[
                "omisys_projection_lag_positions{",
                "omisys_projection_lag_seconds{",
                "omisys_projection_batch_events_bucket{",
                "omisys_dead_letters{",
            ],
        ),
    ] {
        let client = Client::new(&demo.cluster().address(service.first()));
        let reply = client.send(Method::GET, "/metrics", &[], "").await.unwrap();
        let text = String::from_utf8(reply.expect(200).body.to_vec()).unwrap();
        for name in names {
            let there = text.lines().any(|line| line.starts_with(name));
            assert!(there, "{} counts no {name}: {text}", service.name());
        }
    }
    // On the public port the numbers are for those who may see them.
    assert_eq!(guest.get("/metrics").await.status, 403);
    let text = demo.staff.get("/metrics").await.expect(200);
    assert!(contains(&text.body, b"omisys_http_requests_total{"));
}
