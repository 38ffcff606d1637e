//! What happens to a request between the socket and the service, and to the answer on its way back.

pub(crate) mod support;

use gateway::{GatewayConfig, Rate};
use identity::verifier::Role;
use support::{Harness, soon, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_with_their_trace() {
    let shop = start(GatewayConfig::default()).await;
    let problem = shop
        .get("/v1/nothing", &[])
        .await
        .expect_problem(404, "not-found");
    assert_eq!(problem["instance"], "/v1/nothing");
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);

    let reply = shop.get("/v1/orders/7/cancel", &[]).await;
    reply.expect_problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("POST"));
    let reply = shop.send(&["DELETE /v1/products HTTP/1.1"], b"").await;
    reply.expect_problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    // The service has it; its document does not.
    shop.post("/v1/internal", &[], b"{}")
        .await
        .expect_problem(404, "not-found");
}

#[tokio::test]
async fn services_see_only_listed_headers_and_clients_too() {
    let shop = start(GatewayConfig::default()).await;
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let reply = shop
        .get(
            "/v1/products?q=mug",
            &[
                "x-caller: admin",
                "x-forwarded-for: 192.0.2.9",
                "cookie: a=b",
                "if-none-match: \"1.1\"",
                trace,
            ],
        )
        .await;
    assert_eq!(reply.status, 200);
    let said = reply.json();
    assert_eq!(said["uri"], "/v1/products?q=mug");
    // Not what the client claims to be.
    assert_eq!(said["address"], "127.0.0.1");
    let names: Vec<&str> = said["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| pair[0].as_str().unwrap())
        // Where the service is on a socket of its own.
        .filter(|name| *name != "host")
        .collect();
    assert_eq!(names, ["if-none-match", "traceparent"]);
    for leaked in ["x-internal", "server", "set-cookie"] {
        assert_eq!(reply.header(leaked), None);
    }
    assert_eq!(reply.header("etag"), Some("\"1.1\""));
    assert_eq!(
        reply.header("traceparent").unwrap(),
        trace.split_once(": ").unwrap().1
    );
    assert_eq!(reply.header("cache-control"), Some("public, no-cache"));
    assert_eq!(reply.header("vary"), Some("authorization"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn a_route_that_needs_a_token_is_shut_without_a_good_one() {
    let shop = start(GatewayConfig::default()).await;
    let reply = shop.get("/v1/orders", &[]).await;
    reply.expect_problem(401, "unauthorized");
    assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
    let forged = "authorization: Bearer eyJhbGciOiJub25lIn0.e30.";
    shop.get("/v1/orders", &[forged])
        .await
        .expect_problem(401, "unauthorized");
    // A bad token is refused even where none is needed, but never keeps anyone from renewing it.
    shop.get("/v1/products", &[forged])
        .await
        .expect_problem(401, "unauthorized");
    assert_eq!(shop.post("/auth/refresh", &[forged], b"{}").await.status, 200);
    assert_eq!(
        shop.post("/v1/payments/webhooks/sandbox", &[], b"{}")
            .await
            .status,
        200
    );

    let token = shop.token(Role::Customer, 1).await;
    let reply = shop.get("/v1/orders", &[&bearer(&token)]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    // The service gets the token too, and checks it itself.
    assert!(reply.json()["headers"].to_string().contains(&token));
}

#[tokio::test]
async fn an_account_is_limited_wherever_it_calls_from_and_told_so() {
    let per_caller = Rate {
        requests: 2,
        window_seconds: 3_600,
    };
    let shop = start(GatewayConfig {
        per_caller,
        ..GatewayConfig::default()
    })
    .await;
    let (ann, bob) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Customer, 2).await,
    );
    let reply = shop.get("/v1/orders", &[&bearer(&ann)]).await;
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"address\";q=3000;w=60, \"caller\";q=2;w=3600")
    );
    assert!(
        reply
            .header("ratelimit")
            .unwrap()
            .contains("\"caller\";r=1;t=1800"),
        "{reply:?}"
    );
    assert_eq!(shop.get("/v1/orders", &[&bearer(&ann)]).await.status, 200);

    let reply = shop.get("/v1/orders", &[&bearer(&ann)]).await;
    reply.expect_problem(429, "too-many-requests");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1_700..=1_800).contains(&wait), "{wait}");
    assert!(reply.header("ratelimit").unwrap().contains("\"caller\";r=0"));
    assert_eq!(shop.get("/v1/orders", &[&bearer(&bob)]).await.status, 200);
}

#[tokio::test]
async fn an_address_is_limited_and_a_header_does_not_make_another_one() {
    let per_address = Rate {
        requests: 2,
        window_seconds: 3_600,
    };
    let shop = start(GatewayConfig {
        per_address,
        ..GatewayConfig::default()
    })
    .await;
    assert_eq!(
        shop.get("/v1/products", &["x-forwarded-for: 192.0.2.1"])
            .await
            .status,
        200
    );
    assert_eq!(
        shop.get("/v1/nothing", &["x-forwarded-for: 192.0.2.2"])
            .await
            .status,
        404
    );
    shop.get("/v1/products", &["x-forwarded-for: 192.0.2.3"])
        .await
        .expect_problem(429, "too-many-requests");
    // Whoever watches us is not limited.
    assert_eq!(shop.get("/livez", &[]).await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_addresses_are_the_clients_and_ipv6_counts_by_network() {
    let config = GatewayConfig {
        per_address: Rate {
            requests: 1,
            window_seconds: 3_600,
        },
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..GatewayConfig::default()
    };
    let shop = start(config).await;
    let from = async |address: &str| {
        shop.get("/v1/products", &[&format!("x-forwarded-for: {address}")])
            .await
    };
    let reply = from("198.51.100.7, 192.0.2.1").await;
    assert_eq!(reply.json()["address"], "192.0.2.1");
    assert_eq!(from("192.0.2.1").await.status, 429);
    assert_eq!(from("192.0.2.2").await.status, 200);
    assert_eq!(from("2001:db8:1:2::1").await.status, 200);
    assert_eq!(from("2001:db8:1:2:3::4").await.status, 429);
    assert_eq!(from("2001:db8:1:3::1").await.status, 200);
}

#[tokio::test]
async fn bodies_are_capped_declared_or_streamed_read_or_not() {
    let shop = start(GatewayConfig::default()).await;
    let token = bearer(&shop.token(Role::Customer, 1).await);
    let large = vec![b' '; 64 * 1024 + 1];
    assert_eq!(shop.post("/v1/orders", &[&token], &large[1..]).await.status, 200);
    let problem = shop
        .post("/v1/orders", &[&token], &large)
        .await
        .expect_problem(413, "body-too-large");
    assert_eq!(problem["max_bytes"], 65_536);

    let chunked = |bytes: &[u8]| {
        let mut body = Vec::new();
        for chunk in bytes.chunks(10_000) {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    };
    let head = [
        "POST /v1/orders HTTP/1.1",
        "transfer-encoding: chunked",
        token.as_str(),
    ];
    assert_eq!(
        shop.send(&head, &chunked(&large[1..])).await.json()["body_bytes"],
        65_536
    );
    shop.send(&head, &chunked(&large))
        .await
        .expect_problem(413, "body-too-large");
    // A service that answers without reading leaves a megabyte unread: the client still gets its answer.
    let head = [
        "POST /v1/orders/7/cancel HTTP/1.1",
        "transfer-encoding: chunked",
        token.as_str(),
    ];
    let status = shop.send(&head, &chunked(&vec![b' '; 1 << 20])).await.status;
    // On a socket the body is on its way to the service before that answers, and may be found too long.
    assert!(status == 200 || status == 413, "{status}");
}

#[tokio::test]
async fn staff_may_send_large_orders_and_nothing_else_large() {
    let shop = start(GatewayConfig::default()).await;
    let (staff, customer) = (
        shop.token(Role::Staff, 1).await,
        shop.token(Role::Customer, 2).await,
    );
    let large = vec![b' '; 1 << 20];
    assert_eq!(
        shop.post("/v1/orders", &[&bearer(&staff)], &large).await.json()["body_bytes"],
        1 << 20
    );
    let beyond = vec![b' '; (1 << 20) + 1];
    shop.post("/v1/orders", &[&bearer(&staff)], &beyond)
        .await
        .expect_problem(413, "body-too-large");
    shop.post("/v1/orders/7/cancel", &[&bearer(&staff)], &large)
        .await
        .expect_problem(413, "body-too-large");
    shop.post("/v1/orders", &[&bearer(&customer)], &large)
        .await
        .expect_problem(413, "body-too-large");
}

/// Does `meanwhile` while one request is held, and so has its place.
async fn while_one_is_held(shop: &Harness, lines: &[&str], meanwhile: impl Future<Output = ()>) {
    let meanwhile = async {
        soon("the request is held", shop.holding.notified()).await;
        meanwhile.await;
        shop.release.notify_one();
    };
    let (held, ()) = tokio::join!(shop.post("/v1/orders/7/hold", lines, b""), meanwhile);
    assert_eq!((held.status, held.body.as_slice()), (200, b"released".as_slice()));
}

#[tokio::test]
async fn too_many_at_once_are_shed_and_the_place_is_free_again_later() {
    let shop = start(GatewayConfig {
        in_flight_max: 1,
        ..GatewayConfig::default()
    })
    .await;
    let token = bearer(&shop.token(Role::Customer, 1).await);
    while_one_is_held(&shop, &[&token], async {
        let reply = shop.get("/v1/products", &[]).await;
        reply.expect_problem(503, "overloaded");
        assert_eq!(reply.header("retry-after"), Some("1"));
    })
    .await;
    assert_eq!(shop.get("/v1/products", &[]).await.status, 200);
}

#[tokio::test]
async fn when_it_is_crowded_a_full_cart_gets_to_the_till_and_none_is_filled() {
    let shop = start(GatewayConfig {
        in_flight_max: 2,
        ..GatewayConfig::default()
    })
    .await;
    let token = bearer(&shop.token(Role::Customer, 1).await);
    let lines = [token.as_str()];
    while_one_is_held(&shop, &lines, async {
        let reply = shop.post("/v1/carts/mine/items", &lines, b"{}").await;
        reply.expect_problem(503, "overloaded");
        let reply = shop.post("/v1/carts/mine/checkout", &lines, b"{}").await;
        assert_eq!(reply.status, 200);
        assert_eq!(shop.get("/v1/products", &[]).await.status, 200);
    })
    .await;
    let reply = shop.post("/v1/carts/mine/items", &lines, b"{}").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn time_runs_out_for_the_service_and_for_a_slow_body() {
    let shop = start(GatewayConfig {
        request_timeout_ms: 300,
        ..GatewayConfig::default()
    })
    .await;
    let token = bearer(&shop.token(Role::Customer, 1).await);
    let reply = shop.get("/v1/orders/7", &[&token]).await;
    reply.expect_problem(503, "timeout");
    assert!(reply.header("retry-after").is_some());
    // Ten bytes are promised, one comes.
    let head = ["POST /v1/orders HTTP/1.1", "content-length: 10", token.as_str()];
    shop.send(&head, b"{")
        .await
        .expect_problem(408, "request-timeout");
}

#[tokio::test]
async fn a_services_failure_tells_nothing_about_it() {
    let shop = start(GatewayConfig::default()).await;
    let staff = bearer(&shop.token(Role::Staff, 1).await);
    let reply = shop.get("/v1/reports/sales", &[&staff]).await;
    reply.expect_problem(500, "internal");
    assert!(!String::from_utf8_lossy(&reply.body).contains("SELECT"));
    shop.post("/v1/orders/7/complete", &[&staff], b"")
        .await
        .expect_problem(500, "internal");
    // A problem of the service passes, completed.
    let problem = shop
        .get("/v1/products/7", &[])
        .await
        .expect_problem(404, "not-found");
    assert_eq!(problem["instance"], "/v1/products/7");
}

#[tokio::test]
async fn browsers_are_kept_out_unless_their_origin_is_listed() {
    let closed = start(GatewayConfig::default()).await;
    let origin = "origin: https://shop.example";
    let preflight = [
        "OPTIONS /v1/orders HTTP/1.1",
        origin,
        "access-control-request-method: POST",
    ];
    let reply = closed.send(&preflight, b"").await;
    reply.expect_problem(405, "method-not-allowed");
    assert_eq!(reply.header("access-control-allow-origin"), None);

    let cors_origins = vec!["https://shop.example".to_owned()];
    let open = start(GatewayConfig {
        cors_origins,
        ..GatewayConfig::default()
    })
    .await;
    let reply = open.send(&preflight, b"").await;
    assert_eq!(reply.status, 204);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert!(
        reply
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
    let reply = open.get("/v1/products", &[origin]).await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let reply = open.get("/v1/products", &["origin: https://evil.example"]).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["authorization", "origin"]);
}

#[tokio::test]
async fn readiness_and_metrics_tell_details_to_operators_only() {
    let shop = start(GatewayConfig::default()).await;
    let (customer, staff) = (
        shop.token(Role::Customer, 1).await,
        shop.token(Role::Staff, 2).await,
    );
    assert_eq!(shop.get("/livez", &[]).await.json()["status"], "alive");
    let ready = shop.get("/readyz", &[&bearer(&customer)]).await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, serde_json::json!({"status": "degraded"}))
    );
    let ready = shop.get("/readyz", &[&bearer(&staff)]).await.json();
    assert_eq!(ready["components"][1]["name"], "projections/orders");

    shop.get("/metrics", &[])
        .await
        .expect_problem(401, "unauthorized");
    shop.get("/metrics", &[&bearer(&customer)])
        .await
        .expect_problem(403, "forbidden");
    let text = String::from_utf8(shop.get("/metrics", &[&bearer(&staff)]).await.body).unwrap();
    for line in [
        "omisys_http_requests_total{service=\"gateway\",route=\"/livez\",status=\"200\"} ",
        "omisys_http_requests_total{service=\"gateway\",route=\"/metrics\",status=\"401\"} ",
        "omisys_http_request_duration_seconds_count{service=\"gateway\",route=\"/livez\"} ",
        "omisys_http_connections{service=\"gateway\"} ",
        "omisys_http_streams{service=\"gateway\"} ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn the_documentation_is_served_offline() {
    let shop = start(GatewayConfig::default()).await;
    let document = shop.get("/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, method) in [
        ("/v1/orders", "get"),
        ("/v1/orders", "post"),
        ("/auth/refresh", "post"),
        ("/readyz", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    let page = shop.get("/docs", &[]).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let html = String::from_utf8(page.body).unwrap();
    assert!(
        !html.contains("https://") && !html.contains("http://"),
        "the page fetches nothing from elsewhere"
    );
    assert_eq!(shop.get("/", &[]).await.header("location"), Some("/docs"));
}

#[tokio::test]
async fn a_stream_does_not_count_as_in_flight_but_among_the_streams() {
    let shop = start(GatewayConfig {
        in_flight_max: 1,
        streams_max: 1,
        ..GatewayConfig::default()
    })
    .await;
    let token = bearer(&shop.token(Role::Customer, 1).await);
    let mut stream = shop.connect().await;
    let request = format!("GET /v1/orders/7/stream HTTP/1.1\r\nhost: shop\r\n{token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|window| window == b"data: 1") {
        assert_ne!(
            soon("the first event", stream.read_buf(&mut seen)).await.unwrap(),
            0
        );
    }
    assert_eq!(shop.get("/v1/products", &[]).await.status, 200);
    shop.get("/v1/orders/7/stream", &[&token])
        .await
        .expect_problem(503, "overloaded");
}
