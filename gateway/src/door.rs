//! A request's way through the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRef, FromRequestParts as _, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use http_conventions::{ClientAddress, InFlight, Problem, TraceContext, UNKNOWN_ROUTE, answered};
use identity::verifier::{Caller, MaybeCaller, Permission, Verifier};
use limits::Limits;
use metrics::{SharedString, gauge};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::client_address;
use crate::body::{Capped, Streaming, is_stream};
use crate::config::{ConfigError, GatewayConfig};
use crate::headers;
use crate::health::{self, Component, MetricsSource, ReadinessProbe, Status};
use crate::keys::command_key;
use crate::limited::{Policy, Standing, write_headers};
use crate::openapi::{self, DuplicateOperation};
use crate::routes::{Miss, Own, PathConflict, Routes, Target, fills_a_cart, is_public};
use crate::upstream::{Services, Upstream, no_answer};

/// Our name in metrics.
const SERVICE: &str = "gateway";

/// Why a gateway cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Path(#[from] PathConflict),
    #[error(transparent)]
    Operation(#[from] DuplicateOperation),
}

/// The gateway. Cloning is cheap and shares limits and counters.
///
/// A request's way: client address → route (404, 405) → limit per address (429) → place among those in flight (503) →
/// token (401) → limit per account (429) → size (413) → the service, with headers from an allow-list and within the
/// total time → the answer's headers from an allow-list.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<GatewayConfig>,
    routes: Routes,
    command: Upstream,
    query: Upstream,
    identity: Upstream,
    verifier: Verifier,
    openapi: Bytes,
    limits: Limits,
    per_address: Policy<IpAddr>,
    per_caller: Policy<uuid::Uuid>,
    in_flight: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    readiness: ReadinessProbe,
    metrics: MetricsSource,
    stopping: CancellationToken,
}

impl FromRef<Gateway> for Verifier {
    fn from_ref(gateway: &Gateway) -> Self {
        gateway.inner.verifier.clone()
    }
}

impl Gateway {
    /// A gateway before `services` that counts limits by itself. `readiness` says how the parts of this process are
    /// doing, `metrics` what it counts. Services elsewhere and shared limits are added to the readiness.
    pub fn new(
        config: GatewayConfig,
        services: Services,
        verifier: Verifier,
        readiness: ReadinessProbe,
        metrics: MetricsSource,
    ) -> Result<Self, GatewayError> {
        Self::with_limits(config, services, verifier, readiness, metrics, Limits::InProcess)
    }

    /// A gateway as above whose limits are counted where `limits` says.
    pub fn with_limits(
        config: GatewayConfig,
        services: Services,
        verifier: Verifier,
        readiness: ReadinessProbe,
        metrics: MetricsSource,
        limits: Limits,
    ) -> Result<Self, GatewayError> {
        config.validate()?;
        let Services {
            command,
            query,
            identity,
        } = services;
        let mut routes = Routes::own()?;
        let all = [
            (Target::Command, &command),
            (Target::Query, &query),
            (Target::Identity, &identity),
        ];
        for (target, service) in all {
            // A document is strings, numbers and maps with string keys: it always serialises.
            routes.add_document(
                &serde_json::to_value(&service.openapi).unwrap_or_default(),
                target,
            )?;
        }
        let document = openapi::merge(&all.map(|(target, service)| (target.name(), &service.openapi)))?;
        Ok(Self {
            inner: Arc::new(Inner {
                routes,
                command: command.upstream,
                query: query.upstream,
                identity: identity.upstream,
                verifier,
                openapi: document.to_string().into(),
                per_address: Policy::new(&limits, "address", config.per_address, config.limit_keys_max),
                per_caller: Policy::new(&limits, "caller", config.per_caller, config.limit_keys_max),
                limits,
                in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
                streams: Arc::new(Semaphore::new(config.streams_max)),
                readiness,
                metrics,
                stopping: CancellationToken::new(),
                config: Arc::new(config),
            }),
        })
    }

    /// The gateway as a router: all but the listener's part. The peer's address is `ConnectInfo<SocketAddr>`.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(pass)
            .with_state(self.clone())
            .layer(from_fn(http_conventions::finish))
            .layer(from_fn_with_state(self.clone(), around))
    }

    /// The public OpenAPI document, as JSON text.
    pub fn openapi_text(&self) -> Bytes {
        self.inner.openapi.clone()
    }

    pub(crate) fn config(&self) -> Arc<GatewayConfig> {
        self.inner.config.clone()
    }

    /// Cancelled when shutdown begins.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    /// How everything is that this process depends on.
    pub(crate) fn components(&self) -> Vec<Component> {
        let inner = &*self.inner;
        let upstreams = [&inner.command, &inner.query, &inner.identity];
        let mut upstreams: Vec<Component> = upstreams.into_iter().filter_map(Upstream::component).collect();
        // A service that is away takes its own routes with it, not the others': then we are not down.
        if upstreams.iter().any(|upstream| upstream.status != Status::Down) {
            for upstream in &mut upstreams {
                upstream.status = upstream.status.min(Status::Degraded);
            }
        }
        let limits = inner.limits.is_degraded().then(|| Component {
            name: "limits".to_owned(),
            status: Status::Degraded,
            detail: Some("Redis is away: each gateway counts for itself".to_owned()),
        });
        let mut components = (inner.readiness)();
        components.extend(upstreams);
        components.extend(limits);
        components
    }

    pub(crate) fn render_metrics(&self) -> String {
        let Inner { config, streams, .. } = &*self.inner;
        let open = config.streams_max - streams.available_permits();
        gauge!("omisys_http_streams", "service" => SERVICE).set(open as f64);
        let mut text = String::new();
        (self.inner.metrics)(&mut text);
        text
    }

    fn upstream(&self, target: Target) -> Result<&Upstream, Own> {
        match target {
            Target::Command => Ok(&self.inner.command),
            Target::Query => Ok(&self.inner.query),
            Target::Identity => Ok(&self.inner.identity),
            Target::Own(own) => Err(own),
        }
    }

    async fn answer(
        &self,
        request: Request,
        standings: &mut Vec<Standing>,
    ) -> (Option<Arc<str>>, Result<Response, Problem>) {
        let (parts, body) = request.into_parts();
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(peer)| peer.ip());
        let trusted = &self.inner.config.trusted_proxies;
        let address = ClientAddress(peer.map(|peer| client_address(peer, &parts.headers, trusted)));
        let route = self.inner.routes.find(&parts.method, parts.uri.path());
        let target = route.as_ref().ok().map(|(target, _)| *target);
        let template = route.as_ref().ok().map(|(_, template)| Arc::clone(template));
        tracing::Span::current().record("route", template.as_deref().unwrap_or(UNKNOWN_ROUTE));
        // Whoever watches us must not be limited like whoever uses us.
        if !matches!(target, Some(Target::Own(Own::Livez | Own::Readyz)))
            && let Err(problem) = counted(standings, self.inner.per_address.check(&address.bucket()).await)
        {
            return (template, Err(problem));
        }
        let answer = match route {
            Ok((target, template)) => {
                let route = Route {
                    target,
                    public: is_public(target, &parts.method, template),
                    fills_a_cart: fills_a_cart(target, &parts.method, template),
                    template,
                };
                self.pass(route, address, parts, body, standings).await
            }
            Err(Miss::NotFound) => Err(Problem::not_found()),
            Err(Miss::Method(allow)) => {
                let problem = Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    "Method not allowed",
                );
                // Method names are tokens, which are valid in headers.
                Err(problem.header(
                    ALLOW,
                    HeaderValue::try_from(allow).unwrap_or(HeaderValue::from_static("")),
                ))
            }
        };
        (template, answer)
    }

    async fn pass(
        &self,
        route: Route<'_>,
        address: ClientAddress,
        mut parts: http::request::Parts,
        body: Body,
        standings: &mut Vec<Standing>,
    ) -> Result<Response, Problem> {
        // Half of the places are left to those whose cart is full: to refuse them at the till wastes what filling it cost.
        let in_flight = &self.inner.in_flight;
        let crowded = || in_flight.available_permits() <= self.inner.config.in_flight_max / 2;
        let Some(permit) = (!(route.fills_a_cart && crowded()))
            .then(|| Arc::clone(in_flight).try_acquire_owned().ok())
            .flatten()
        else {
            return Err(overloaded("too many requests at once"));
        };
        let caller = self.caller(&route, &mut parts).await?;
        if let Some(caller) = caller {
            counted(
                standings,
                self.inner.per_caller.check(caller.account_id.as_uuid()).await,
            )?;
        }
        let upstream = match self.upstream(route.target) {
            Ok(upstream) => upstream,
            Err(own) => return health::answer(self, own, caller),
        };

        let bytes_max = self.body_bytes_max(&route, &parts.method, caller);
        if declared_length(&parts).is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large(bytes_max));
        }
        let (body, fate) = Capped::new(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
        let method = parts.method.clone();
        let request = for_service(parts, Body::new(body), address, route.is_webhook());
        let timeout = self.inner.config.request_timeout();
        // Only commands have a mailbox that is warm somewhere.
        let key = |request: &Request| {
            (route.target == Target::Command)
                .then(|| {
                    let account = caller.map(|caller| caller.account_id);
                    command_key(route.template, request.uri().path(), account, request.headers())
                })
                .flatten()
        };
        let answered = tokio::time::timeout(timeout, upstream.call(request, key)).await;
        if fate.exceeded.load(Ordering::Relaxed) {
            return Err(too_large(bytes_max));
        }
        let Ok(response) = answered else {
            return Err(timed_out(fate.complete.load(Ordering::Relaxed)));
        };
        let response = response?;
        let response = for_client(response, &method, route.public && caller.is_none())?;
        drop(permit);
        self.hold_stream(response)
    }

    /// Who calls, where the route asks for a token or got one. Identity looks at tokens itself: one that has expired
    /// is what brings clients to `/auth/refresh`. Probes too are answered whatever token they carry.
    async fn caller(
        &self,
        route: &Route<'_>,
        parts: &mut http::request::Parts,
    ) -> Result<Option<Caller>, Problem> {
        let MaybeCaller(caller) = match MaybeCaller::from_request_parts(parts, self).await {
            Ok(caller) => caller,
            Err(_) if route.target != Target::Command && route.target != Target::Query => MaybeCaller(None),
            Err(_) if route.is_webhook() => MaybeCaller(None),
            Err(problem) => return Err(problem),
        };
        if caller.is_none() && !route.public {
            return Err(Problem::unauthorized(None));
        }
        Ok(caller)
    }

    fn body_bytes_max(&self, route: &Route<'_>, method: &Method, caller: Option<Caller>) -> u64 {
        let staff_order = method == Method::POST
            && route.template == "/v1/orders"
            && caller.is_some_and(|caller| caller.may(Permission::OrderPriceOverride));
        if staff_order {
            self.inner.config.staff_order_body_bytes_max
        } else {
            self.inner.config.body_bytes_max
        }
    }

    /// A stream leaves the requests in flight and joins the streams.
    fn hold_stream(&self, response: Response) -> Result<Response, Problem> {
        if !is_stream(&response) {
            return Ok(response);
        }
        let Ok(permit) = self.inner.streams.clone().try_acquire_owned() else {
            return Err(overloaded("too many streams at once"));
        };
        Ok(response.map(|body| Body::new(Streaming::new(body, &self.inner.stopping, Some(permit)))))
    }
}

/// What was found for a request.
struct Route<'a> {
    target: Target,
    template: &'a str,
    public: bool,
    /// See [`fills_a_cart`].
    fills_a_cart: bool,
}

impl Route<'_> {
    fn is_webhook(&self) -> bool {
        self.target == Target::Command && self.public
    }
}

/// The middleware around everything: browsers, numbers, and what stands on every answer.
async fn around(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = InFlight::enter(SERVICE);
    let origins = &gateway.inner.config.cors_origins;
    let origin = headers::allowed_origin(request.headers(), origins);
    let mut response = if origin.is_some() && headers::is_preflight(request.method(), request.headers()) {
        let mut response = StatusCode::NO_CONTENT.into_response();
        headers::preflight(response.headers_mut());
        response
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        headers::allow_origin(response.headers_mut(), origin);
    }
    if !origins.is_empty() {
        headers::vary_origin(response.headers_mut());
    }
    headers::harden(response.headers_mut());
    let route = response
        .extensions_mut()
        .remove::<Answered>()
        .and_then(|Answered(template)| template)
        .map_or(SharedString::const_str(UNKNOWN_ROUTE), SharedString::from_shared);
    answered(SERVICE, route, response.status(), begun.elapsed());
    response
}

/// Left in an answer's extensions: the route that it is the answer of.
#[derive(Clone)]
struct Answered(Option<Arc<str>>);

async fn pass(State(gateway): State<Gateway>, request: Request) -> Response {
    let mut standings = Vec::with_capacity(2);
    let (template, answer) = gateway.answer(request, &mut standings).await;
    let mut response = answer.unwrap_or_else(Problem::into_response);
    write_headers(&standings, response.headers_mut());
    response.extensions_mut().insert(Answered(template));
    response
}

fn counted(standings: &mut Vec<Standing>, standing: Standing) -> Result<(), Problem> {
    standings.push(standing);
    match standing.refused_for() {
        Some(wait) => Err(Problem::too_many_requests(wait)),
        None => Ok(()),
    }
}

fn declared_length(parts: &http::request::Parts) -> Option<u64> {
    parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The request as a service gets it: method, path and query, allow-listed headers, and what we vouch for.
fn for_service(parts: http::request::Parts, body: Body, address: ClientAddress, webhook: bool) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    let path = parts.uri.into_parts().path_and_query;
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    *request.headers_mut() = headers::for_service(&parts.headers, webhook);
    request.extensions_mut().insert(address);
    if let Some(context) = parts.extensions.get::<TraceContext>() {
        request.extensions_mut().insert(*context);
    }
    request
}

/// A service's answer as the client gets it. An error that is no problem is a bug of the service, and said as one.
fn for_client(response: Response, method: &Method, public: bool) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let problem = parts.extensions.get::<Problem>().cloned();
    let failed = parts.status.is_client_error() || parts.status.is_server_error();
    let is_problem = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if failed && !is_problem {
        return Err(match parts.status {
            StatusCode::NOT_FOUND => Problem::not_found(),
            status if status.is_client_error() => Problem::new(status, "refused", "Request refused"),
            status => Problem::internal(format_args!("a service answered {status} without a problem")),
        });
    }
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers::for_client(&parts.headers);
    headers::complete_caching(answer.headers_mut(), method, public);
    if let Some(problem) = problem {
        answer.extensions_mut().insert(problem);
    }
    Ok(answer)
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large")
        .with("max_bytes", bytes_max)
}

fn overloaded(detail: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded")
        .detail(detail)
        .retry_after(Duration::from_secs(1))
}

/// Whose fault it was that time ran out: the client's while its body was still on the way, else ours.
fn timed_out(body_complete: bool) -> Problem {
    if body_complete {
        no_answer()
    } else {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "Request timed out",
        )
        .detail("the request's body took too long to arrive")
    }
}
