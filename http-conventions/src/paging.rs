//! Lists: bounded pages and opaque cursors; no offsets, no counts.

use axum::Json;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

const CURSOR_MAX_LEN: usize = 1024;

/// Where the next page begins: the sort key of the last item, opaque to clients. Not secret, not signed: whoever
/// decodes it checks it like any other input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor after an item with this key. Keys are small and plain; one that cannot be JSON is `None`.
    pub fn encode<K: Serialize>(key: &K) -> Option<Self> {
        serde_json::to_vec(key)
            .ok()
            .map(|json| Self(URL_SAFE_NO_PAD.encode(json)))
    }

    /// The key; 400 when this is no cursor of this list.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, Problem> {
        let malformed = || Problem::malformed("the cursor is none that this list gave out");
        if self.0.len() > CURSOR_MAX_LEN {
            return Err(malformed());
        }
        let json = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| malformed())?;
        serde_json::from_slice(&json).map_err(|_| malformed())
    }

    /// The cursor as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `?limit=`: 1 to 100 items, 20 unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u16")]
#[schema(value_type = u16, minimum = 1, maximum = 100, default = 20)]
pub struct Limit(u16);

impl Limit {
    /// How many items.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(20)
    }
}

impl TryFrom<u16> for Limit {
    type Error = &'static str;

    fn try_from(items: u16) -> Result<Self, Self::Error> {
        if (1..=100).contains(&items) {
            Ok(Self(items))
        } else {
            Err("limit is 1 to 100")
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Pass it as `?cursor=` for the next page; `null` on the last one.
    pub next_cursor: Option<Cursor>,
}

impl<T> Page<T> {
    /// Cuts `items`, of which the caller fetched one more than `limit`, and takes the cursor from the last one kept.
    pub fn cut<K: Serialize>(mut items: Vec<T>, limit: Limit, key: impl FnOnce(&T) -> K) -> Self {
        let more = items.len() > limit.get();
        items.truncate(limit.get());
        let next_cursor = items
            .last()
            .filter(|_| more)
            .and_then(|last| Cursor::encode(&key(last)));
        Self { items, next_cursor }
    }
}

impl<T: Serialize> Page<T> {
    /// The page as an answer to `uri`, with its `Link: <…>; rel="next"` (RFC 8288).
    pub fn answer(self, uri: &Uri) -> Response {
        let link = self.next_cursor.as_ref().and_then(|cursor| {
            let kept = uri.query().unwrap_or("").split('&').filter(|pair| {
                let name = pair.split('=').next().unwrap_or("");
                !pair.is_empty() && name != "cursor"
            });
            let query: String = kept.flat_map(|pair| [pair, "&"]).collect();
            HeaderValue::try_from(format!(
                "<{}?{query}cursor={}>; rel=\"next\"",
                uri.path(),
                cursor.0
            ))
            .ok()
        });
        let mut response = Json(self).into_response();
        if let Some(link) = link {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}
