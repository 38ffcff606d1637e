//! What is counted of requests, under the same names for every service. Nothing that a client makes up is a label:
//! routes are templates, and what matches none is one value.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Gauge, SharedString, counter, gauge, histogram};

/// The label `route` of requests that match none.
pub const UNKNOWN_ROUTE: &str = "unknown";

/// Counts every request of `service` by route and status, how long its answer took to begin, and how many are being
/// answered: `omisys_http_requests_total`, `omisys_http_request_duration_seconds`, `omisys_http_requests_in_flight`.
///
/// Use with `axum::middleware::from_fn_with_state(service, observe)`, in `Router::layer`, where the route is known.
pub async fn observe(State(service): State<&'static str>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = InFlight::enter(service);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(SharedString::const_str(UNKNOWN_ROUTE), |path| {
            SharedString::from_owned(path.as_str().to_owned())
        });
    let response = next.run(request).await;
    answered(service, route, response.status(), begun.elapsed());
    response
}

/// Counts one answer, for a service that has no routes of axum's.
pub fn answered(service: &'static str, route: SharedString, status: StatusCode, took: Duration) {
    let code = status.as_str().to_owned();
    counter!("omisys_http_requests_total", "service" => service, "route" => route.clone(), "status" => code)
        .increment(1);
    histogram!("omisys_http_request_duration_seconds", "service" => service, "route" => route)
        .record(took.as_secs_f64());
}

/// A request among those being answered, until it is dropped.
pub struct InFlight(Gauge);

impl InFlight {
    /// One more of `service`.
    pub fn enter(service: &'static str) -> Self {
        let gauge = gauge!("omisys_http_requests_in_flight", "service" => service);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
