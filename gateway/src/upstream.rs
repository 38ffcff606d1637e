//! The services behind the gateway.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt as _;
use http::StatusCode;
use http_conventions::Problem;
use tower::ServiceExt as _;
use upstreams::{HttpPool, PoolHealth, UpstreamError};
use utoipa::openapi::OpenApi;

use crate::health::{Component, Status};

/// Where a service is.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// In this process: its router, called directly.
    InProcess(Router),
    /// Elsewhere, in any number of replicas.
    Http(HttpPool),
}

impl Upstream {
    /// The service's answer. `key` is asked for if there are replicas to choose from. A handler that panics is a bug of
    /// that one request: the others go on.
    pub(crate) async fn call(
        &self,
        request: Request,
        key: impl FnOnce(&Request) -> Option<String>,
    ) -> Result<Response, CallError> {
        match self {
            Self::InProcess(router) => {
                let call = AssertUnwindSafe(router.clone().oneshot(request)).catch_unwind();
                let answered: Result<Response, Infallible> = call.await.map_err(|_| CallError::Panicked)?;
                Ok(answered.unwrap_or_else(|never| match never {}))
            }
            Self::Http(pool) => {
                let key = key(&request);
                Ok(pool.request(key.as_deref(), request).await?)
            }
        }
    }

    /// What readiness says of it; nothing of one in this process, whose parts speak for themselves.
    pub(crate) fn component(&self) -> Option<Component> {
        let Self::Http(pool) = self else { return None };
        let (status, detail) = match pool.health() {
            PoolHealth::Up => (Status::Up, None),
            PoolHealth::Degraded(detail) => (Status::Degraded, Some(detail)),
            PoolHealth::Down(detail) => (Status::Down, Some(detail)),
        };
        Some(Component {
            name: format!("upstreams/{}", pool.name()),
            status,
            detail,
        })
    }
}

/// Why a service gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It broke off; what it said is on stderr.
    #[error("a handler panicked")]
    Panicked,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What repeating costs a client that was told to: little.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Panicked => Self::internal(error),
            CallError::Upstream(UpstreamError::Unavailable | UpstreamError::Overloaded) => {
                Self::unavailable(error, RETRY_AFTER)
            }
            CallError::Upstream(UpstreamError::NoAnswer) => no_answer(),
            CallError::Upstream(UpstreamError::Broken) => Self::unavailable(error, RETRY_AFTER).detail(
                "a service was lost on the way; the request may have taken effect: repeat it with the same \
                 Idempotency-Key",
            ),
            CallError::Upstream(UpstreamError::RequestBody) => {
                Self::malformed("the request's body did not arrive whole")
            }
        }
    }
}

/// 503: the service has the request and takes too long.
pub(crate) fn no_answer() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Timed out")
        .detail(
            "the answer took too long; the request may still take effect: repeat it with the same Idempotency-Key",
        )
        .retry_after(RETRY_AFTER)
}

/// A service and what it documents. What it does not document cannot be reached.
#[derive(Clone)]
pub struct Service {
    pub upstream: Upstream,
    pub openapi: OpenApi,
}

impl Service {
    /// A service in this process, as `OpenApiRouter::split_for_parts` gives it.
    pub fn in_process((router, openapi): (Router, OpenApi)) -> Self {
        Self {
            upstream: Upstream::InProcess(router),
            openapi,
        }
    }

    /// A service elsewhere. Its document comes from its code, not from its replicas.
    pub fn http(pool: HttpPool, openapi: OpenApi) -> Self {
        Self {
            upstream: Upstream::Http(pool),
            openapi,
        }
    }
}

/// All services that the gateway stands before.
#[derive(Clone)]
pub struct Services {
    pub command: Service,
    pub query: Service,
    pub identity: Service,
}
