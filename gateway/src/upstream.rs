//! The services behind the gateway.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;

/// Where a service is. In this profile all of them live in our own process.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// The service's router, called directly.
    InProcess(Router),
}

impl Upstream {
    pub(crate) async fn call(&self, request: Request) -> Response {
        match self {
            Self::InProcess(router) => {
                let answered: Result<Response, Infallible> = router.clone().oneshot(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
        }
    }
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
}

/// All services that the gateway stands before.
#[derive(Clone)]
pub struct Services {
    pub command: Service,
    pub query: Service,
    pub identity: Service,
}
