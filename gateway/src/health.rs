//! What the gateway answers itself: is it alive, is it ready, its numbers, and its documentation.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use http_conventions::Problem;
use identity::verifier::{Caller, Permission};
use serde::Serialize;

use crate::Gateway;
use crate::routes::Own;

/// How a part of the system is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Up,
    /// Works, but slower or with less than it should.
    Degraded,
    /// Does not work: requests that need it fail.
    Down,
}

/// A part of the system that readiness depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Such as `log` or `projections/orders`.
    pub name: String,
    pub status: Status,
    /// What is wrong with it, for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Says how every part is doing; asked on every `/readyz`, so it answers from memory.
pub type ReadinessProbe = Arc<dyn Fn() -> Vec<Component> + Send + Sync>;

/// The type of [`MetricsSource`]'s text.
pub(crate) const METRICS_TEXT: &str = "text/plain; version=0.0.4";

/// Writes the process's metrics in Prometheus' text format; asked on every `/metrics`. All of them, what the gateway
/// counts too: that goes to the recorder of the `metrics` crate, which the binary installs.
pub type MetricsSource = Arc<dyn Fn(&mut String) + Send + Sync>;

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Vec<Component>>,
}

const DOCS_PAGE: &str = include_str!("docs.html");

/// The page may run what it brings, read our own document, and nothing else.
const DOCS_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers one of our own routes. `caller` is none without a token.
pub(crate) fn answer(gateway: &Gateway, own: Own, caller: Option<Caller>) -> Result<Response, Problem> {
    let sees_operations = caller.is_some_and(|caller| caller.may(Permission::OpsRead));
    match own {
        Own::Root => Ok((StatusCode::SEE_OTHER, [(LOCATION, "/docs")]).into_response()),
        Own::Livez => Ok(alive()),
        Own::Readyz => Ok(readiness(
            gateway.components(),
            gateway.stopping().is_cancelled(),
            sees_operations,
        )),
        Own::Metrics if sees_operations => {
            Ok(([(CONTENT_TYPE, METRICS_TEXT)], gateway.render_metrics()).into_response())
        }
        Own::Metrics if caller.is_none() => Err(Problem::unauthorized(None)),
        Own::Metrics => Err(Problem::forbidden(Permission::OpsRead.as_str())),
        Own::OpenApi => Ok(public(gateway.openapi_text().into(), "application/json")),
        Own::Docs => {
            let mut page = public(DOCS_PAGE.into(), "text/html; charset=utf-8");
            page.headers_mut()
                .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_POLICY));
            Ok(page)
        }
    }
}

fn public(body: Body, content_type: &'static str) -> Response {
    (
        [
            (CONTENT_TYPE, content_type),
            (CACHE_CONTROL, "public, max-age=300"),
        ],
        body,
    )
        .into_response()
}

/// The process runs.
pub(crate) fn alive() -> Response {
    Json(Readiness {
        status: "alive",
        components: None,
    })
    .into_response()
}

/// Whether the process can serve.
pub(crate) fn readiness(components: Vec<Component>, stopping: bool, with_components: bool) -> Response {
    let worst = components
        .iter()
        .map(|component| component.status)
        .max()
        .unwrap_or(Status::Up);
    let (code, status) = match worst {
        _ if stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        Status::Up => (StatusCode::OK, "ready"),
        Status::Degraded => (StatusCode::OK, "degraded"),
        Status::Down => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    };
    let components = with_components.then_some(components);
    (
        code,
        [(CACHE_CONTROL, "no-store")],
        Json(Readiness { status, components }),
    )
        .into_response()
}
