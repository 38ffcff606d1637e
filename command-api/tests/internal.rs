//! Commands of the sagas that come from other processes.

#![cfg(feature = "cluster")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

mod support;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn_with_state;
use event_schemas::Clock;
use http_body_util::BodyExt as _;
use http_conventions::{ServiceToken, believe_services};
use identity::verifier::Role;
use sagas::commands::{COMMANDS_PATH, CommandSender, MAX_COMMANDS, RemoteCommands};
use sagas::fault::Faults;
use sagas::provider::{Provider, SandboxOptions, SandboxProvider, token};
use sagas::{SagaStream, Sagas, SagasConfig, SagasDeps};
use serde_json::{Value, json};
use support::{Shop, paying, until};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use upstreams::{HttpPool, PoolOptions};

fn service_token(secret: &str) -> ServiceToken {
    ServiceToken::new(&secret.repeat(32)).unwrap()
}

fn internal(shop: &Shop) -> Router {
    command_api::internal_router(shop.executors.clone())
        .route("/readyz", axum::routing::get(|| async {}))
        .layer(from_fn_with_state(Some(service_token("s")), believe_services))
}

async fn serve(shop: &Shop) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = internal(shop);
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), server)
}

async fn post(shop: &Shop, token: Option<&str>, body: Value) -> (StatusCode, Value) {
    let mut request = Request::post(COMMANDS_PATH)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    if let Some(token) = token {
        service_token(token).show(request.headers_mut());
    }
    let answer = internal(shop).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn only_services_get_in_and_nobody_is_told_of_it() {
    let shop = Shop::open().await;
    let none = json!({ "commands": [] });
    assert_eq!(post(&shop, None, none.clone()).await.0, 403);
    assert_eq!(post(&shop, Some("x"), none.clone()).await.0, 403);
    assert_eq!(post(&shop, Some("s"), none).await.0, 200);
    let many = json!({ "commands": vec![json!({}); MAX_COMMANDS + 1] });
    assert_eq!(post(&shop, Some("s"), many).await.0, 400);
    assert!(!shop.openapi.to_string().contains("internal"));
    let document = serde_json::to_value(command_api::openapi()).unwrap();
    assert_eq!(document["paths"], shop.openapi["paths"]);
    let user = shop.user(Role::Admin).await;
    let answer = user.post(COMMANDS_PATH, json!({ "commands": [] })).await;
    assert_eq!(answer.status, 404, "the public router has no such route");
}

#[tokio::test]
async fn what_is_not_understood_is_tried_again_and_holds_nobody_up() {
    let shop = Shop::open().await;
    let newer = json!({ "command_id": "?", "command": { "Warehouse": {} } });
    let (status, answer) = post(&shop, Some("s"), json!({ "commands": [newer] })).await;
    assert_eq!(status, 200);
    assert_eq!(answer["outcomes"][0]["outcome"], "retry", "{answer}");
}

/// Sagas without executors of their own, which send to the replicas at `urls`.
async fn remote_sagas(shop: &Shop, urls: Vec<String>) -> Sagas {
    let options = PoolOptions {
        service_token: Some(service_token("s")),
        ..PoolOptions::new("command-api", urls)
    };
    let pool = HttpPool::start(options).await.unwrap();
    let clock = Clock::from(shop.clock.clone());
    let sandbox = SandboxProvider::open(
        shop.dir.path().join("sandbox.db"),
        clock.clone(),
        SandboxOptions::default(),
    );
    let deps = SagasDeps {
        log: shop.log.clone(),
        commands: CommandSender::Remote(RemoteCommands::start(pool)),
        stream: SagaStream::Log,
        database: shop.database.clone(),
        provider: Some(Provider::Sandbox(sandbox.await.unwrap())),
        clock,
        config: SagasConfig::default(),
        faults: Faults::default(),
    };
    Sagas::start(deps).await.unwrap()
}

async fn settle(sagas: &Sagas) {
    let idle = tokio::time::timeout(Duration::from_secs(30), sagas.idle());
    idle.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_without_executors_bring_orders_to_their_end() {
    let shop = Shop::open().await;
    shop.sell("A", 100, Some(3)).await;
    shop.sell("B", 100, Some(1)).await;
    let (url, _server) = serve(&shop).await;
    let sagas = remote_sagas(&shop, vec![url]).await;

    for (sku, token) in [
        ("A", token::OK),
        ("A", token::DECLINED),
        ("B", token::OK),
        // Out of stock: a refusal and its branch.
        ("B", token::OK),
    ] {
        let user = shop.user(Role::Customer).await;
        user.add(sku, 1).await.expect(200);
        let answer = user.post_as("/v1/carts/mine/checkout", "k", paying(token)).await;
        answer.expect(201);
    }
    settle(&sagas).await;
    assert_eq!(shop.count("OrderPaid").await, 2);
    assert_eq!(shop.count("PaymentDeclined").await, 1);
    assert_eq!(shop.count("ReservationRejected").await, 1);
    assert_eq!(shop.count("OrderCancelled").await, 1);
    assert_eq!(sagas.dead_letters().await.unwrap(), []);
    sagas.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_goes_away_loses_no_command() {
    let shop = Shop::open().await;
    shop.sell("GIFT", 100, None).await;
    let (one, first) = serve(&shop).await;
    let (two, _second) = serve(&shop).await;
    let sagas = remote_sagas(&shop, vec![one, two]).await;
    for n in 0..12 {
        if n == 4 {
            first.abort();
        }
        let user = shop.user(Role::Guest).await;
        user.buy("GIFT").await.expect(201);
    }
    settle(&sagas).await;
    until("all are paid", || async { shop.count("OrderPaid").await == 12 }).await;
    assert_eq!(sagas.dead_letters().await.unwrap(), []);
    sagas.stop().await;
}
