//! What a process that is no gateway shows to the others: its routes, if it has any, and how it is.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http_conventions::{Problem, ServiceToken, believe_services, finish, observe};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::body::{Streaming, is_stream};
use crate::config::GatewayConfig;
use crate::health::{self, METRICS_TEXT, MetricsSource, ReadinessProbe};
use crate::listener::{Listening, listen};

/// One process of the cluster.
pub struct ServiceServer {
    /// Its name in metrics: `command-api`.
    pub name: &'static str,
    /// Its routes; none for a projector.
    pub router: Router,
    /// How its parts are; asked on every `/readyz`, so it answers from memory.
    pub readiness: ReadinessProbe,
    /// What it counts; asked on every `/metrics`.
    pub metrics: MetricsSource,
    /// Who shows it is a service of ours; without one nobody is.
    pub token: Option<ServiceToken>,
}

/// Serves a process of the cluster until `soft` is cancelled, then as [`crate::serve`] does.
///
/// **Not for the public**: there are no limits, no allow-lists, and anyone who can connect may read `/livez`, `/readyz`
/// (with every component) and `/metrics`. Listen on a network that only the other services reach. The routes verify
/// access tokens themselves all the same, and believe an address only beside the service token.
pub async fn serve_service(
    listener: TcpListener,
    service: ServiceServer,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let defaults = GatewayConfig::default();
    let config = Arc::new(GatewayConfig {
        // The peers are few: gateways, and whoever watches.
        connections_per_address_max: defaults.connections_max,
        ..defaults
    });
    let stopping = CancellationToken::new();
    let listening = Listening {
        service: service.name,
        router: router(service, stopping.clone()),
        config,
        stopping,
    };
    listen(listener, listening, soft, hard).await;
}

fn router(service: ServiceServer, stopping: CancellationToken) -> Router {
    let ServiceServer {
        name,
        router,
        readiness,
        metrics,
        token,
    } = service;
    let stop = stopping.clone();
    let end_streams = move |request: Request, next: Next| {
        let stop = stop.clone();
        async move {
            let response = next.run(request).await;
            if is_stream(&response) {
                response.map(|body| Body::new(Streaming::new(body, &stop, None)))
            } else {
                response
            }
        }
    };
    let readyz = move || async move { health::readiness(readiness(), stopping.is_cancelled(), true) };
    let numbers = move || async move {
        let mut text = String::new();
        metrics(&mut text);
        ([(CONTENT_TYPE, METRICS_TEXT)], text)
    };
    router
        .layer(from_fn(contain_panics))
        .layer(from_fn(end_streams))
        .layer(from_fn_with_state(token, believe_services))
        .layer(from_fn_with_state(name, observe))
        .layer(from_fn(finish))
        // Not counted, and without spans: they are asked for all the time.
        .route("/livez", get(|| async { health::alive() }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(numbers))
}

/// A handler that panics is a bug of that one request: the others go on.
async fn contain_panics(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| Problem::internal("a handler panicked").into_response())
}
