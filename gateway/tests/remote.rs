//! The same promises with services on sockets of their own, and what only then can happen.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "door.rs"]
mod door;

use std::time::Duration;

use door::support::{self, soon, start};
use gateway::GatewayConfig;
use identity::verifier::Role;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_service_that_is_down_is_503_at_once_and_its_routes_only() {
    let shop = start(GatewayConfig::default()).await;
    let staff = format!("authorization: Bearer {}", shop.token(Role::Staff, 1).await);
    let lines = [staff.as_str()];
    assert_eq!(shop.post("/v1/orders", &lines, b"{}").await.status, 200);

    shop.services["command-api"].cancel();
    let begun = tokio::time::Instant::now();
    // While the connection that was kept breaks, the answer may differ in detail only.
    for _ in 0..5 {
        let reply = shop.post("/v1/orders", &lines, b"{}").await;
        reply.expect_problem(503, "unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it hung");
    assert_eq!(shop.get("/v1/products", &[]).await.status, 200);

    // Degraded: the other routes work. Down: none does.
    let away = async |status: &str| loop {
        let ready = shop.get("/readyz", &lines).await.json();
        if ready["status"] == status {
            break ready;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    soon("it is seen", async {
        loop {
            let ready = away("degraded").await;
            let components = ready["components"].as_array().unwrap();
            let command = components
                .iter()
                .find(|component| component["name"] == "upstreams/command-api")
                .unwrap();
            if command["status"] == "degraded" {
                assert!(command["detail"].as_str().unwrap().starts_with("all are away"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    shop.services["query-api"].cancel();
    shop.services["identity"].cancel();
    let ready = soon("all are seen", away("down")).await;
    assert_eq!(ready["components"][1]["name"], "projections/orders");
}

#[tokio::test]
async fn a_service_shows_how_it_is_and_believes_only_services() {
    let shop = start(GatewayConfig::default()).await;
    let service = shop.service_address("query-api");
    let ask = async |path: &str, lines: &[&str]| support::ask(service, path, lines).await;
    assert_eq!(ask("/livez", &[]).await.json()["status"], "alive");
    let ready = ask("/readyz", &[]).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")));
    assert_eq!(ready.json()["components"][0]["name"], "log");

    // Past the gateway: the address is the peer's, whatever one says.
    let forged = "omisys-client-address: 192.0.2.1";
    let said = ask("/v1/products", &[forged]).await.json();
    assert!(said["address"].is_null(), "{said}");
    let problem = ask("/nothing", &[]).await.expect_problem(404, "not-found");
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);

    let text = String::from_utf8(ask("/metrics", &[]).await.body).unwrap();
    for line in [
        "omisys_http_requests_total{service=\"query-api\",route=\"/v1/products\",status=\"200\"} ",
        "omisys_http_requests_total{service=\"query-api\",route=\"unknown\",status=\"404\"} ",
        "omisys_http_connections{service=\"query-api\"} ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let shop = start(GatewayConfig::default()).await;
    for _ in 0..3 {
        let reply = shop.send(&["HEAD /v1/products HTTP/1.1"], b"").await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn streams_end_when_their_service_stops_and_do_not_hold_it_up() {
    let shop = start(GatewayConfig::default()).await;
    let token = format!("authorization: Bearer {}", shop.token(Role::Customer, 1).await);
    let mut stream = shop.connect().await;
    let request =
        format!("GET /v1/orders/7/stream HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|window| window == b"data: 1") {
        assert_ne!(
            soon("the first event", stream.read_buf(&mut seen)).await.unwrap(),
            0
        );
    }
    // Softly: what is in flight may finish, and a stream would never.
    shop.softly["query-api"].cancel();
    soon("the stream ends", stream.read_to_end(&mut seen))
        .await
        .unwrap();
    let service = shop.service_address("query-api");
    soon("the service stops", async {
        while tokio::net::TcpStream::connect(service).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
