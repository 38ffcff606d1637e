//! A client of the command API in this process: the real routes, the real checks, no socket.

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tower::ServiceExt;

const MAX_REPLY_BYTES: usize = 1 << 20;

/// Calls routes with one token.
#[derive(Clone)]
pub struct Local {
    router: Router,
    authorization: String,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The route answered with a problem.
    #[error("{path} answered {status}: {detail}")]
    Refused { path: String, status: StatusCode, detail: String },
    #[error("the request could not be built: {0}")]
    Request(#[from] http::Error),
    #[error("the reply could not be read: {0}")]
    Reply(String),
}

impl Local {
    /// A client of `router` that bears `token`.
    pub fn new(router: Router, token: &str) -> Self {
        Self { router, authorization: format!("Bearer {token}") }
    }

    /// Posts `body` under an idempotency key; answers what the route answered with `2xx`.
    pub async fn post(&self, path: &str, key: &str, prefer: Option<&str>, body: &Value) -> Result<Value, LocalError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        let request = request.body(Body::from(body.to_string()))?;
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await;
        let body = body.map_err(|error| LocalError::Reply(error.to_string()))?.to_bytes();
        let reply: Value = serde_json::from_slice(&body).map_err(|error| LocalError::Reply(error.to_string()))?;
        if status.is_success() {
            return Ok(reply);
        }
        let detail = reply["detail"].as_str().or(reply["title"].as_str()).unwrap_or_default().to_owned();
        Err(LocalError::Refused { path: path.to_owned(), status, detail })
    }
}
