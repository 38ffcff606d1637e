//! A gateway on a real socket before services that say what they were sent, and clients that speak raw HTTP/1.1.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::HashMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use event_schemas::{AccountId, Clock};
use gateway::{
    Component, Gateway, GatewayConfig, Service, ServiceServer, Services, Status, Upstream, serve_service,
};
use http_conventions::{ClientAddress, Problem, ServiceToken};
use identity::verifier::Role;
use identity::{Identity, KeySource, Settings};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use sqlite_file::SqliteFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use upstreams::{HttpPool, PoolOptions};

/// Far longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub struct Harness {
    pub address: SocketAddr,
    pub soft: CancellationToken,
    pub hard: CancellationToken,
    pub served: JoinHandle<()>,
    /// Told when a request has reached `/v1/orders/{id}/hold`.
    pub holding: Arc<Notify>,
    /// Lets those requests go.
    pub release: Arc<Notify>,
    /// Ends the services, where they are elsewhere, by name.
    pub services: HashMap<&'static str, CancellationToken>,
    /// Lets them finish what is in flight first.
    pub softly: HashMap<&'static str, CancellationToken>,
    service_addresses: HashMap<&'static str, SocketAddr>,
    identity: Identity,
    _dir: tempfile::TempDir,
}

/// A gateway before services in this process; in the test binary `remote` the same before services on sockets of their
/// own, so that both are held to the same promises.
pub async fn start(config: GatewayConfig) -> Harness {
    start_with(config, limits::Limits::InProcess).await
}

const REMOTE: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"remote");

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the binary's exporter is.
fn exporter() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}

/// A component of every process.
fn probe() -> Vec<Component> {
    let component = |name: &str, status| Component {
        name: name.to_owned(),
        status,
        detail: None,
    };
    vec![
        component("log", Status::Up),
        component("projections/orders", Status::Degraded),
    ]
}

/// The service on a socket of its own, as a process of the cluster serves it.
async fn elsewhere(name: &'static str, service: Service) -> (Service, SocketAddr, [CancellationToken; 2]) {
    let Upstream::InProcess(router) = service.upstream else {
        panic!("it is elsewhere already");
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = ServiceToken::new(SECRET).unwrap();
    let server = ServiceServer {
        name,
        router,
        readiness: Arc::new(probe),
        metrics: Arc::new(|text: &mut String| text.push_str(&exporter().render())),
        token: Some(token.clone()),
    };
    let ends = [CancellationToken::new(), CancellationToken::new()];
    let [soft, hard] = ends.clone();
    tokio::spawn(serve_service(listener, server, soft, hard));
    let mut options = PoolOptions::new(name, vec![format!("http://{address}")]);
    options.service_token = Some(token);
    options.check_every = Duration::from_millis(50);
    let pool = HttpPool::start(options).await.unwrap();
    (Service::http(pool, service.openapi), address, ends)
}

pub async fn start_with(config: GatewayConfig, limits: limits::Limits) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(dir.path().join("log.db"), sqlite_file::Options::default()).unwrap();
    let keys = KeySource::Directory(dir.path().to_path_buf());
    let identity = Identity::open(file, keys, Settings::default(), Clock::System)
        .await
        .unwrap();
    let (holding, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut services = Services {
        command: command(holding.clone(), release.clone()),
        query: query(),
        identity: stub_identity(),
    };
    let (mut ends, mut softly, mut addresses) = (HashMap::new(), HashMap::new(), HashMap::new());
    if REMOTE {
        for (name, service) in [
            ("command-api", &mut services.command),
            ("query-api", &mut services.query),
            ("identity", &mut services.identity),
        ] {
            let (remote, address, [soft, hard]) = elsewhere(name, service.clone()).await;
            *service = remote;
            addresses.insert(name, address);
            softly.insert(name, soft);
            ends.insert(name, hard);
        }
    }
    exporter();
    let gateway = Gateway::with_limits(
        config,
        services,
        identity.verifier(),
        Arc::new(probe),
        Arc::new(|text: &mut String| text.push_str(&exporter().render())),
        limits,
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let served = tokio::spawn(gateway::serve(listener, gateway, soft.clone(), hard.clone()));
    Harness {
        address,
        soft,
        hard,
        served,
        holding,
        release,
        services: ends,
        softly,
        service_addresses: addresses,
        identity,
        _dir: dir,
    }
}

impl Harness {
    pub async fn token(&self, role: Role, account: u128) -> String {
        let id = AccountId::from_uuid(uuid::Uuid::from_u128(account));
        self.identity.create_bare_accounts(&[(id, role)]).await.unwrap();
        self.identity.mint_access_token(id).await.unwrap().token
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Where a service is that is elsewhere.
    pub fn service_address(&self, name: &str) -> SocketAddr {
        self.service_addresses[name]
    }

    /// Sends `head` (lines without their ends) and `body` on a connection of its own.
    pub async fn send(&self, head: &[&str], body: &[u8]) -> Reply {
        send_to(self.address, head, body).await
    }

    pub async fn get(&self, path: &str, lines: &[&str]) -> Reply {
        let request = format!("GET {path} HTTP/1.1");
        let head: Vec<&str> = std::iter::once(request.as_str())
            .chain(lines.iter().copied())
            .collect();
        self.send(&head, b"").await
    }

    pub async fn post(&self, path: &str, lines: &[&str], body: &[u8]) -> Reply {
        let (request, length) = (
            format!("POST {path} HTTP/1.1"),
            format!("content-length: {}", body.len()),
        );
        let fixed = [
            request.as_str(),
            length.as_str(),
            "content-type: application/json",
        ];
        let head: Vec<&str> = fixed.into_iter().chain(lines.iter().copied()).collect();
        self.send(&head, body).await
    }
}

/// Sends `head` (lines without their ends) and `body` on a connection of its own.
pub async fn send_to(address: SocketAddr, head: &[&str], body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = format!("{}\r\nhost: shop\r\nconnection: close\r\n", head[0]).into_bytes();
    for line in &head[1..] {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    // The server may answer, and stop reading, before all is written.
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let _ = writing.write_all(&bytes).await;
    };
    let mut answer = Vec::new();
    let read = async {
        reading.read_to_end(&mut answer).await.unwrap();
    };
    soon("an answer", async { tokio::join!(write, read) }).await;
    Reply::parse(&answer)
}

/// A GET to a service itself.
pub async fn ask(address: SocketAddr, path: &str, lines: &[&str]) -> Reply {
    let request = format!("GET {path} HTTP/1.1");
    let head: Vec<&str> = std::iter::once(request.as_str())
        .chain(lines.iter().copied())
        .collect();
    send_to(address, &head, b"").await
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {text:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(
                axum::http::HeaderName::try_from(name).unwrap(),
                value.parse().unwrap(),
            );
        }
        Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks that this is a complete problem of the given kind.
    pub fn expect_problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"));
        assert_eq!(problem["status"], status);
        assert_eq!(self.header("cache-control"), Some("no-store"));
        problem
    }
}

fn document(paths: &Value) -> utoipa::openapi::OpenApi {
    let document = json!({"openapi": "3.1.0", "info": {"title": "", "version": ""}, "paths": paths});
    serde_json::from_value(document).unwrap()
}

fn operation() -> Value {
    json!({"responses": {"200": {"description": ""}}})
}

/// Says what it was sent.
async fn echo(request: Request) -> Response {
    let address: Option<IpAddr> = request
        .extensions()
        .get::<ClientAddress>()
        .and_then(|address| address.0);
    let (parts, body) = request.into_parts();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        // A service that does not know what a body limit is.
        return StatusCode::IM_A_TEAPOT.into_response();
    };
    let said = json!({
        "uri": parts.uri.to_string(), "headers": headers, "address": address, "body_bytes": body.len(),
    });
    let leaks = [
        ("x-internal", "secret"),
        ("server", "stub"),
        ("set-cookie", "a=b"),
        ("etag", "\"1.1\""),
    ];
    (leaks, Json(said)).into_response()
}

fn command(holding: Arc<Notify>, release: Arc<Notify>) -> Service {
    let hold = move || async move {
        holding.notify_one();
        release.notified().await;
        "released"
    };
    let router = Router::new()
        .route("/v1/orders", post(echo))
        .route("/v1/carts/mine/items", post(echo))
        .route("/v1/carts/mine/checkout", post(echo))
        .route(
            "/v1/orders/{id}/cancel",
            post(|| async { "not reading the body" }),
        )
        .route("/v1/orders/{id}/hold", post(hold))
        .route("/v1/payments/webhooks/{provider}", post(echo))
        .route("/v1/orders/{id}/complete", post(|| async { panics() }))
        .route("/v1/internal", post(echo));
    let openapi = document(&json!({
        "/v1/orders": {"post": operation()},
        "/v1/carts/mine/items": {"post": operation()},
        "/v1/carts/mine/checkout": {"post": operation()},
        "/v1/orders/{id}/cancel": {"post": operation()},
        "/v1/orders/{id}/hold": {"post": operation()},
        "/v1/orders/{id}/complete": {"post": operation()},
        "/v1/payments/webhooks/{provider}": {"post": operation()},
    }));
    Service {
        upstream: Upstream::InProcess(router),
        openapi,
    }
}

fn panics() -> &'static str {
    panic!("a handler's bug, planted")
}

fn query() -> Service {
    let never = || async { pending::<()>().await };
    let events = || async {
        let first = futures_util::stream::once(async { Ok::<_, std::io::Error>("data: 1\n\n") });
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        ([("content-type", "text/event-stream")], Body::from_stream(body))
    };
    let router = Router::new()
        .route("/v1/products", get(echo))
        .route(
            "/v1/products/{id}",
            get(|Path(_): Path<String>| async { Problem::not_found() }),
        )
        .route("/v1/orders", get(echo))
        .route("/v1/orders/{id}", get(never))
        .route("/v1/orders/{id}/stream", get(events))
        .route(
            "/v1/reports/sales",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "SELECT * FROM secrets") }),
        );
    let paths = [
        "/v1/products",
        "/v1/products/{id}",
        "/v1/orders",
        "/v1/orders/{id}",
        "/v1/orders/{id}/stream",
        "/v1/reports/sales",
    ];
    let paths: Value = paths
        .into_iter()
        .map(|path| (path.to_owned(), json!({"get": operation()})))
        .collect();
    Service {
        upstream: Upstream::InProcess(router),
        openapi: document(&paths),
    }
}

fn stub_identity() -> Service {
    let router = Router::new().route("/auth/refresh", post(echo));
    let openapi = document(&json!({"/auth/refresh": {"post": operation()}}));
    Service {
        upstream: Upstream::InProcess(router),
        openapi,
    }
}
