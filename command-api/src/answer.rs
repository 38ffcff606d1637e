//! What an accepted command answers.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use event_store::Receipt;
use http_conventions::ConsistencyToken;
use serde::Serialize;
use utoipa::ToSchema;

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What became of a command.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct ReceiptBody {
    /// The kind of aggregate.
    #[serde(rename = "type")]
    #[schema(example = "order")]
    kind: &'static str,
    /// The aggregate's id.
    #[schema(example = "0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a")]
    pub id: String,
    /// Its version after the command, for `If-Match`.
    #[schema(example = 3)]
    version: u64,
    /// For `?at_least=` of a query that should reflect the command.
    #[schema(value_type = String, example = "order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a@3.1724")]
    consistency_token: ConsistencyToken,
}

impl From<&Receipt> for ReceiptBody {
    fn from(receipt: &Receipt) -> Self {
        Self {
            kind: receipt.stream.aggregate_type.as_str(),
            id: receipt.stream.aggregate_id.to_string(),
            version: receipt.version.0,
            consistency_token: ConsistencyToken {
                stream: receipt.stream.clone(),
                version: receipt.version,
                position: receipt.position,
            },
        }
    }
}

/// An accepted command: 201 with `Location` if it created something, else 200.
pub(crate) struct Accepted<T = ReceiptBody> {
    pub body: T,
    /// The path of what was created.
    pub created: Option<String>,
    pub replayed: bool,
}

impl Accepted {
    /// Something was changed.
    pub(crate) fn changed(receipt: &Receipt) -> Self {
        Self {
            body: receipt.into(),
            created: None,
            replayed: receipt.replayed,
        }
    }

    /// Something was created; it is to be found at `collection/{id of the aggregate}`.
    pub(crate) fn created(receipt: &Receipt, collection: &str) -> Self {
        let location = format!("{collection}/{}", receipt.stream.aggregate_id);
        Self {
            created: Some(location),
            ..Self::changed(receipt)
        }
    }
}

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        let status = if self.created.is_some() {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Ids and fixed text: always a valid header.
        if let Some(Ok(location)) = self.created.map(HeaderValue::try_from) {
            headers.insert(LOCATION, location);
        }
        if self.replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
