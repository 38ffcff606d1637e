//! The services behind the gateway.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt as _;
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;

/// Where a service is. In this profile all of them live in our own process.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// The service's router, called directly.
    InProcess(Router),
}

impl Upstream {
    /// The service's answer. A handler that panics is a bug of that one request: the others go on.
    pub(crate) async fn call(&self, request: Request) -> Result<Response, Panicked> {
        match self {
            Self::InProcess(router) => {
                let call = AssertUnwindSafe(router.clone().oneshot(request)).catch_unwind();
                let answered: Result<Response, Infallible> = call.await.map_err(|_| Panicked)?;
                Ok(answered.unwrap_or_else(|never| match never {}))
            }
        }
    }
}

/// The service broke off; what it said is on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a handler panicked")]
pub(crate) struct Panicked;

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
}

/// All services that the gateway stands before.
#[derive(Clone)]
pub struct Services {
    pub command: Service,
    pub query: Service,
    pub identity: Service,
}
