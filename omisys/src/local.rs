//! A client of the command API in this process: the real routes, the real checks, no socket.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use event_schemas::AccountId;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use identity::{Identity, SessionError};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::ServiceExt;

const MAX_REPLY_BYTES: usize = 1 << 20;

/// How long a token is used: well below its life.
const TOKEN_USE: Duration = Duration::from_secs(5 * 60);

/// Calls routes as one account. Cheap to clone.
#[derive(Clone)]
pub struct Local {
    router: Router,
    identity: Identity,
    account: AccountId,
    token: Arc<Mutex<Option<(String, Instant)>>>,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The route answered with a problem.
    #[error("{path} answered {status}: {detail}")]
    Refused {
        path: String,
        status: StatusCode,
        detail: String,
    },
    #[error("no token: {0}")]
    Token(#[from] SessionError),
    #[error("the request could not be built: {0}")]
    Request(#[from] http::Error),
    #[error("the reply could not be read: {0}")]
    Reply(String),
}

impl Local {
    /// A client of `router` that acts as `account`.
    pub fn new(router: Router, identity: Identity, account: AccountId) -> Self {
        Self {
            router,
            identity,
            account,
            token: Arc::default(),
        }
    }

    async fn authorization(&self) -> Result<String, LocalError> {
        let mut token = self.token.lock().await;
        if let Some((text, since)) = &*token
            && since.elapsed() < TOKEN_USE
        {
            return Ok(text.clone());
        }
        let minted = self.identity.mint_access_token(self.account).await?;
        let text = format!("Bearer {}", minted.token);
        *token = Some((text.clone(), Instant::now()));
        Ok(text)
    }

    /// Posts `body` under an idempotency key; answers what the route answered with `2xx`.
    pub async fn post(
        &self,
        path: &str,
        key: &str,
        prefer: Option<&str>,
        body: &Value,
    ) -> Result<Value, LocalError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(AUTHORIZATION, self.authorization().await?)
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
        let body = Limited::new(response.into_body(), MAX_REPLY_BYTES)
            .collect()
            .await;
        let body = body
            .map_err(|error| LocalError::Reply(error.to_string()))?
            .to_bytes();
        let reply: Value =
            serde_json::from_slice(&body).map_err(|error| LocalError::Reply(error.to_string()))?;
        if status.is_success() {
            return Ok(reply);
        }
        let detail = reply["detail"]
            .as_str()
            .or(reply["title"].as_str())
            .unwrap_or_default()
            .to_owned();
        Err(LocalError::Refused {
            path: path.to_owned(),
            status,
            detail,
        })
    }
}
