//! The replicas of one service, and a request's way to one of them.

use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, request};
use http_conventions::{CLIENT_ADDRESS, ClientAddress, TraceContext};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use metrics::counter;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::body::{Loan, Returned};
use crate::replica::{Attempt, PoolHealth, Refusal, Replica, ReplicaState};
use crate::{PoolOptions, PoolOptionsError, hash, watch};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No replica could be reached, or all are left alone after failures: the request took no effect.
    #[error("no replica can be reached")]
    Unavailable,
    /// Every replica has as many requests of ours as it may: the request took no effect.
    #[error("every replica has too many requests in flight")]
    Overloaded,
    /// A replica took the request and did not answer in time: it may still take effect.
    #[error("no answer in time")]
    NoAnswer,
    /// The connection was lost before the answer: the request may have taken effect.
    #[error("the connection was lost before the answer")]
    Broken,
    /// The request's own body failed on its way to us.
    #[error("the request's body failed")]
    RequestBody,
}

impl UpstreamError {
    /// Whether the same request can be sent again without asking whether it took effect.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Overloaded)
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::NoAnswer => "no-answer",
            Self::Broken => "broken",
            Self::RequestBody => "request-body",
        }
    }
}

/// Runs connections on Tokio, outside of the span of the request that opened them: they outlive it, and a span that
/// they held would not end before they do.
#[derive(Clone)]
struct Detached;

impl<F> Executor<F> for Detached
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        tokio::spawn(connection);
    }
}

/// The replicas of one service. Cloning is cheap; the last clone ends the watch over them.
#[derive(Clone)]
pub struct HttpPool {
    shared: Arc<Shared>,
    _watch: Arc<DropGuard>,
}

impl fmt::Debug for HttpPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPool")
            .field("name", &self.shared.options.name)
            .field("replicas", &self.states())
            .finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub(crate) options: PoolOptions,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) client: Client<HttpConnector, Body>,
    replicas: RwLock<Arc<[Arc<Replica>]>>,
    /// Where the search for the least loaded begins, so that equals take turns.
    turn: AtomicUsize,
}

impl HttpPool {
    /// Resolves the URLs once and watches over what they resolve to. That nothing is there yet is no error: the pool
    /// goes on looking.
    pub async fn start(options: PoolOptions) -> Result<Self, PoolOptionsError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(options.connect_timeout));
        let client = Client::builder(Detached)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.idle_max)
            .build(connector);
        let shared = Arc::new(Shared {
            authorities: options.authorities()?,
            options,
            client,
            replicas: RwLock::new(Arc::new([])),
            turn: AtomicUsize::new(0),
        });
        watch::resolve(&shared).await;
        let stopping = CancellationToken::new();
        tokio::spawn(watch::run(shared.clone(), stopping.clone()));
        Ok(Self {
            shared,
            _watch: Arc::new(stopping.drop_guard()),
        })
    }

    /// The answer of one replica to `request`, of which method, path, query, headers and body are sent as they are.
    /// Besides go the context of its span, the [`ClientAddress`] in its extensions, and the service token.
    ///
    /// `key` is the aggregate that the request is about, as `StreamId` is written; without one the least loaded replica
    /// answers. See the crate for what is sent twice.
    pub async fn request(
        &self,
        key: Option<&str>,
        request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        let options = &self.shared.options;
        let answered = timeout(options.timeout, self.shared.send(key, request)).await;
        let answer = answered.unwrap_or(Err(UpstreamError::NoAnswer));
        if let Err(error) = &answer {
            counter!("omisys_upstream_failures_total", "upstream" => options.name, "reason" => error.reason())
                .increment(1);
        }
        answer
    }

    /// Where a request with this key would go now; none if no replica is known. Whoever sends many can group them by it
    /// and send each group under one of its keys.
    pub fn owner(&self, key: &str) -> Option<SocketAddr> {
        self.shared
            .order(Some(key))
            .first()
            .map(|replica| replica.address)
    }

    /// What is known of each replica.
    pub fn states(&self) -> Vec<ReplicaState> {
        let replicas = self.shared.replicas();
        replicas.iter().map(|replica| replica.state()).collect()
    }

    /// How the service is, seen from here.
    pub fn health(&self) -> PoolHealth {
        let states = self.states();
        let away: Vec<String> = states
            .iter()
            .filter(|state| !(state.ready && state.closed))
            .map(|state| state.address.to_string())
            .collect();
        match (states.len(), away.len()) {
            (0, _) => PoolHealth::Down("its name resolves to nothing".to_owned()),
            (_, 0) => PoolHealth::Up,
            (all, some) if some < all => PoolHealth::Degraded(format!("away: {}", away.join(", "))),
            _ => PoolHealth::Down(format!("all are away: {}", away.join(", "))),
        }
    }

    /// The service's name, as the options gave it.
    pub fn name(&self) -> &'static str {
        self.shared.options.name
    }
}

impl Shared {
    pub(crate) fn replicas(&self) -> Arc<[Arc<Replica>]> {
        self.replicas
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn replace(&self, replicas: Vec<Arc<Replica>>) {
        *self.replicas.write().unwrap_or_else(PoisonError::into_inner) = replicas.into();
    }

    /// The replicas in the order in which a request tries them: those that are ready first.
    fn order(&self, key: Option<&str>) -> Vec<Arc<Replica>> {
        let mut order = self.replicas().to_vec();
        if let Some(key) = key {
            let key = hash::of_text(key);
            order.sort_by_key(|replica| Reverse(replica.score(key)));
        } else if !order.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(turn);
            order.sort_by_key(|replica| replica.in_flight());
        }
        // Both sorts are stable. Those that are not ready come last instead of never: if none is, their own answer says
        // more than ours.
        order.sort_by_key(|replica| !replica.is_ready());
        order
    }

    async fn send(&self, key: Option<&str>, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let (mut head, body) = request.into_parts();
        self.add_headers(&mut head);
        let safe = head.method == Method::GET || head.method == Method::HEAD;
        let loan = Loan::new(body);
        let (mut attempts, mut problem) = (0, UpstreamError::Unavailable);
        for replica in self.order(key) {
            if attempts == self.options.attempts_max.max(1) {
                break;
            }
            let attempt = match replica.admit() {
                Ok(attempt) => attempt,
                Err(Refusal::Open) => continue,
                Err(Refusal::Full) => {
                    if attempts == 0 {
                        problem = UpstreamError::Overloaded;
                    }
                    continue;
                }
            };
            attempts += 1;
            match self.attempt(&replica, attempt, &head, &loan).await {
                Ok(answer) => return Ok(answer),
                Err(error) => problem = error,
            }
            let never_arrived = problem == UpstreamError::Unavailable;
            if !(loan.is_whole() && (never_arrived || safe && problem != UpstreamError::RequestBody)) {
                break;
            }
            tracing::debug!(upstream = self.options.name, replica = %replica.address, %problem, "trying another");
        }
        Err(problem)
    }

    fn add_headers(&self, head: &mut request::Parts) {
        if let Some(context) = head.extensions.get::<TraceContext>()
            && let Ok(value) = HeaderValue::try_from(context.outgoing().to_string())
        {
            head.headers.insert(TRACEPARENT, value);
        }
        if let Some(ClientAddress(Some(address))) = head.extensions.get()
            && let Ok(value) = HeaderValue::try_from(address.to_string())
        {
            head.headers.insert(CLIENT_ADDRESS, value);
        }
        if let Some(token) = &self.options.service_token {
            token.show(&mut head.headers);
        }
    }

    async fn attempt(
        &self,
        replica: &Replica,
        attempt: Attempt,
        head: &request::Parts,
        loan: &Loan,
    ) -> Result<Response<Body>, UpstreamError> {
        let mut request = Request::new(loan.lend());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri(replica, head.uri.path_and_query())?;
        *request.headers_mut() = head.headers.clone();
        request.headers_mut().insert(HOST, replica.host.clone());

        let mut call = pin!(self.client.request(request));
        // A client may take its time over its body: that is not the replica's.
        let answered = tokio::select! {
            biased;
            answered = &mut call => Ok(answered),
            () = loan.sent() => timeout(self.options.first_byte_timeout, call).await,
        };
        let error = match answered {
            Ok(Ok(answer)) => return Ok(self.answer(answer, attempt)),
            Ok(Err(error)) if error.is_connect() => UpstreamError::Unavailable,
            // Says nothing about the replica.
            Ok(Err(_)) if loan.has_failed() => return Err(UpstreamError::RequestBody),
            Ok(Err(_)) => UpstreamError::Broken,
            // A replica that is slow is busy, and one that hangs is found out by its checks. To leave a busy one alone
            // would refuse what it could still do.
            Err(_) => return Err(UpstreamError::NoAnswer),
        };
        attempt.failed();
        Err(error)
    }

    fn answer(&self, answer: Response<Incoming>, attempt: Attempt) -> Response<Body> {
        let held = attempt.succeeded();
        let is_stream = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let bytes_max = (!is_stream).then_some(self.options.response_bytes_max);
        answer.map(|body| Body::new(Returned::new(body, self.options.stall_timeout, bytes_max, held)))
    }
}

/// Where a request to `replica` goes.
pub(crate) fn uri(replica: &Replica, path: Option<&PathAndQuery>) -> Result<Uri, UpstreamError> {
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(replica.authority.clone())
        .path_and_query(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        // An authority and a path that were parsed make a URI.
        .map_err(|_| UpstreamError::Unavailable)
}
