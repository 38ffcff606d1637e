//! What a connection may do, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use gateway::GatewayConfig;
use identity::verifier::Role;
use support::{Reply, soon, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    bytes
}

/// Reads one answer with a declared length off a connection that stays open.
async fn one_answer(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(
            soon("an answer", stream.read_buf(&mut bytes)).await.unwrap(),
            0,
            "closed early"
        );
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let reply = Reply::parse(&bytes);
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        if bytes.len() == end + 4 + length {
            return reply;
        }
    }
}

const GET: &[u8] = b"GET /v1/products HTTP/1.1\r\nhost: shop\r\n\r\n";

#[tokio::test]
async fn slow_headers_are_a_request_that_timed_out() {
    let shop = start(GatewayConfig {
        header_timeout_ms: 200,
        ..GatewayConfig::default()
    })
    .await;
    let mut stream = shop.connect().await;
    stream
        .write_all(b"GET /v1/products HTTP/1.1\r\nhost: sh")
        .await
        .unwrap();
    Reply::parse(&rest_of(&mut stream).await).expect_problem(408, "request-timeout");
}

#[tokio::test]
async fn dripping_headers_do_not_extend_the_time() {
    let shop = start(GatewayConfig {
        header_timeout_ms: 300,
        ..GatewayConfig::default()
    })
    .await;
    let (mut reading, mut writing) = shop.connect().await.into_split();
    writing.write_all(b"GET /v1/products HTTP/1.1\r\n").await.unwrap();
    let drip = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            if writing.write_all(b"x: y\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut bytes = [0; 12];
    let answer = async { reading.read_exact(&mut bytes).await.map(|_| ()) };
    soon("an answer", async {
        tokio::select! { () = drip => {}, answered = answer => answered.unwrap() }
    })
    .await;
    assert_eq!(&bytes, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let shop = start(GatewayConfig {
        first_byte_timeout_ms: 200,
        ..GatewayConfig::default()
    })
    .await;
    assert_eq!(rest_of(&mut shop.connect().await).await, b"");
}

#[tokio::test]
async fn a_connection_rests_between_requests_for_so_long() {
    let config = GatewayConfig {
        header_timeout_ms: 100,
        idle_timeout_ms: 600,
        ..GatewayConfig::default()
    };
    let shop = start(config).await;
    let mut stream = shop.connect().await;
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        assert_eq!(one_answer(&mut stream).await.status, 200);
    }
    // Longer than headers may take: resting is no dawdling.
    let began = std::time::Instant::now();
    assert_eq!(rest_of(&mut stream).await, b"");
    assert!(began.elapsed().as_millis() >= 500);
}

#[tokio::test]
async fn oversized_heads_are_told_so() {
    let shop = start(GatewayConfig::default()).await;
    let long = format!("x-long: {}", "a".repeat(16 * 1024));
    shop.get("/v1/products", &[&long])
        .await
        .expect_problem(431, "headers-too-large");
    let far_too_long = format!("x-long: {}", "a".repeat(1 << 20));
    shop.get("/v1/products", &[&far_too_long])
        .await
        .expect_problem(431, "headers-too-large");
    let many = vec!["x: y"; 200];
    shop.get("/v1/products", &many)
        .await
        .expect_problem(431, "headers-too-large");
    let path = format!("/v1/products?q={}", "a".repeat(20_000));
    shop.get(&path, &[])
        .await
        .expect_problem(431, "headers-too-large");
}

#[tokio::test]
async fn what_is_no_http_is_malformed() {
    let shop = start(GatewayConfig::default()).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"hello\r\n\r\n",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = shop.connect().await;
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        Reply::parse(&rest_of(&mut stream).await).expect_problem(400, "malformed-request");
    }
    // After a good request on the same connection, too.
    let mut stream = shop.connect().await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(one_answer(&mut stream).await.status, 200);
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    Reply::parse(&rest_of(&mut stream).await).expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_turn() {
    let shop = start(GatewayConfig::default()).await;
    let mut stream = shop.connect().await;
    let missing = b"GET /v1/nothing HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    stream.write_all(&[GET, GET, missing].concat()).await.unwrap();
    let text = String::from_utf8(rest_of(&mut stream).await).unwrap();
    let statuses: Vec<&str> = text
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "404"]);
}

#[tokio::test]
async fn more_connections_than_allowed_are_told_to_come_back() {
    let shop = start(GatewayConfig {
        connections_per_address_max: 1,
        ..GatewayConfig::default()
    })
    .await;
    let mut first = shop.connect().await;
    first.write_all(GET).await.unwrap();
    assert_eq!(one_answer(&mut first).await.status, 200);
    let reply = Reply::parse(&rest_of(&mut shop.connect().await).await);
    reply.expect_problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    drop(first);
    // The place is free once the server has seen the first one go.
    soon("a free place", async {
        loop {
            let mut stream = shop.connect().await;
            let _ = stream.write_all(GET).await;
            let mut start = [0; 12];
            if stream.read_exact(&mut start).await.is_ok() && &start == b"HTTP/1.1 200" {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_soft_shutdown_finishes_what_is_in_flight_and_takes_nothing_new() {
    let shop = start(GatewayConfig::default()).await;
    let token = shop.token(Role::Customer, 1).await;
    let mut idle = shop.connect().await;
    idle.write_all(GET).await.unwrap();
    assert_eq!(one_answer(&mut idle).await.status, 200);
    let mut fresh = shop.connect().await;
    let mut busy = shop.connect().await;
    let request = format!(
        "POST /v1/orders/7/hold HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    soon("the request is held", shop.holding.notified()).await;
    let mut streaming = shop.connect().await;
    let request =
        format!("GET /v1/orders/7/stream HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {token}\r\n\r\n");
    streaming.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|window| window == b"data: 1") {
        assert_ne!(
            soon("the first event", streaming.read_buf(&mut seen))
                .await
                .unwrap(),
            0
        );
    }

    shop.soft.cancel();
    assert_eq!(rest_of(&mut idle).await, b"");
    assert_eq!(rest_of(&mut fresh).await, b"");
    // The stream ends in order: its last chunk is there.
    assert!(rest_of(&mut streaming).await.ends_with(b"0\r\n\r\n"));
    assert!(
        TcpStream::connect(shop.address).await.is_err(),
        "nothing listens any more"
    );
    assert!(!shop.served.is_finished());
    shop.release.notify_one();
    let reply = Reply::parse(&rest_of(&mut busy).await);
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"released".as_slice())
    );
    soon("the end of serve", shop.served).await.unwrap();
}

#[tokio::test]
async fn a_hard_shutdown_waits_for_nobody() {
    let shop = start(GatewayConfig::default()).await;
    let token = shop.token(Role::Customer, 1).await;
    let mut busy = shop.connect().await;
    let request = format!(
        "POST /v1/orders/7/hold HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    soon("the request is held", shop.holding.notified()).await;
    shop.soft.cancel();
    shop.hard.cancel();
    soon("the end of serve", shop.served).await.unwrap();
    let mut bytes = Vec::new();
    // Closed or reset, as the system likes it.
    let _ = soon("the end of the connection", busy.read_to_end(&mut bytes)).await;
    assert_eq!(bytes, b"");
}

#[tokio::test]
async fn the_drain_time_ends_what_does_not_end() {
    let shop = start(GatewayConfig {
        drain_timeout_ms: 200,
        ..GatewayConfig::default()
    })
    .await;
    let token = shop.token(Role::Customer, 1).await;
    let mut busy = shop.connect().await;
    let request = format!(
        "POST /v1/orders/7/hold HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    soon("the request is held", shop.holding.notified()).await;
    shop.soft.cancel();
    soon("the end of serve", shop.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let shop = start(GatewayConfig {
        write_stall_timeout_ms: 300,
        ..GatewayConfig::default()
    })
    .await;
    let mut stream = shop.connect().await;
    // Many answers, none read: the buffers of both sides fill up, then the writes stall.
    let requests = b"GET /docs HTTP/1.1\r\nhost: s\r\n\r\n".repeat(2_000);
    let outcome = soon("the connection is given up", async {
        loop {
            if let Err(error) = stream.write_all(&requests).await {
                return error;
            }
        }
    });
    outcome.await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_sending_is_answered_and_not_cut_off() {
    let shop = start(GatewayConfig::default()).await;
    let token = shop.token(Role::Customer, 1).await;
    let mut stream = shop.connect().await;
    let body = vec![b' '; 3 << 20];
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: s\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The answer is here already; most clients send on before they look.
    soon("the answer", stream.peek(&mut [0; 12])).await.unwrap();
    for piece in body.chunks(64 * 1024) {
        soon("the body is taken", stream.write_all(piece)).await.unwrap();
    }
    Reply::parse(&rest_of(&mut stream).await).expect_problem(413, "body-too-large");
}
