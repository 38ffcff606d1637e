//! Replicas on real sockets that say who they are, and some that misbehave.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use upstreams::{HttpPool, PoolOptions, ReplicaState, UpstreamError};

/// Far longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A well-behaved replica. It answers with its address, or holds the answer back.
pub struct Replica {
    pub address: SocketAddr,
    pub told: Arc<Told>,
    served: JoinHandle<()>,
}

pub struct Told {
    pub address: SocketAddr,
    /// Requests that reached it, checks apart.
    pub requests: AtomicUsize,
    pub ready: AtomicBool,
    /// Whether answers are held back until `release`.
    pub holds: AtomicBool,
    pub release: Notify,
}

impl Replica {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        Self::with(address, |router| router).await
    }

    /// With further routes.
    pub async fn with(
        address: SocketAddr,
        more: impl FnOnce(Router<Arc<Told>>) -> Router<Arc<Told>>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Told {
            address,
            requests: AtomicUsize::new(0),
            ready: AtomicBool::new(true),
            holds: AtomicBool::new(false),
            release: Notify::new(),
        });
        let router = more(Router::new())
            .route("/readyz", get(readyz))
            .fallback(echo)
            .with_state(told.clone());
        let served = tokio::spawn(serve(listener, router));
        Self {
            address,
            told,
            served,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.told.requests.load(Ordering::SeqCst)
    }

    /// As a process that is killed: its connections break, and it listens no more.
    pub async fn stop(&mut self) {
        self.served.abort();
        let _ = (&mut self.served).await;
    }
}

/// Serves until it is aborted, with all its connections.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn readyz(State(told): State<Arc<Told>>) -> StatusCode {
    if told.ready.load(Ordering::SeqCst) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn echo(State(told): State<Arc<Told>>, request: Request) -> Response {
    told.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if told.holds.load(Ordering::SeqCst) {
        told.release.notified().await;
    }
    let mut text = format!("{} {} {}\n", told.address, parts.uri, body.len());
    for (name, value) in &parts.headers {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    text.into_response()
}

/// What a replica that misbehaves does after it has read a whole request.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Closes the connection.
    HangsUp,
    /// Answers less than it promised, and closes the connection.
    CutsTheBody,
    /// Answers less than it promised, and nothing more.
    Stalls,
}

/// A replica that misbehaves; its checks are fine.
pub struct Rogue {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    served: JoinHandle<()>,
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Rogue {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let served = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(misbehave(stream, manner, counted.clone()));
            }
        });
        Self {
            address,
            requests,
            served,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn misbehave(mut stream: TcpStream, manner: Manner, requests: Arc<AtomicUsize>) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if bytes.starts_with(b"GET /readyz") {
        let fine = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(fine).await;
        return;
    }
    requests.fetch_add(1, Ordering::SeqCst);
    if let Manner::CutsTheBody | Manner::Stalls = manner {
        let part = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.";
        let _ = stream.write_all(part).await;
    }
    if let Manner::Stalls = manner {
        std::future::pending::<()>().await;
    }
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub fn options(urls: &[String]) -> PoolOptions {
    PoolOptions {
        check_every: Duration::from_millis(50),
        check_timeout: Duration::from_secs(5),
        ..PoolOptions::new("test-api", urls.to_vec())
    }
}

pub async fn pool(urls: &[String]) -> HttpPool {
    HttpPool::start(options(urls)).await.unwrap()
}

pub fn request(method: Method, path: &str, body: impl Into<Body>) -> Request {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body.into())
        .unwrap()
}

/// The whole text of an answer.
pub async fn text(answer: Result<Response, UpstreamError>) -> String {
    let bytes = to_bytes(answer.unwrap().into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Which replica answers a POST under this key.
pub async fn who(pool: &HttpPool, key: Option<&str>) -> SocketAddr {
    let answer = pool.request(key, request(Method::POST, "/", "body")).await;
    let said = soon("an answer", text(answer)).await;
    said.split(' ').next().unwrap().parse().unwrap()
}

pub fn state(pool: &HttpPool, address: SocketAddr) -> ReplicaState {
    let states = pool.states();
    *states.iter().find(|state| state.address == address).unwrap()
}
