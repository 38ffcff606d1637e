//! What every HTTP surface of OMISYS says the same way, so that it is written once: errors as RFC 9457 problems,
//! strict JSON bodies, idempotency keys and preconditions, consistency tokens, cursors and pages, trace context, what is
//! counted of requests, and how our services know each other.
//!
//! Extractors answer with a [`Problem`], never with axum's plain text. [`finish`] is the one middleware to put around
//! a service: it opens the request's span, settles its [`TraceContext`] and completes problems. [`observe`] counts.

mod client;
mod consistency;
mod extract;
mod json;
mod layer;
mod observe;
mod paging;
mod preconditions;
mod problem;
mod service_token;
mod trace;

pub use client::ClientAddress;
pub use consistency::{AtLeast, ConsistencyToken, ParseTokenError};
pub use extract::{Path, Query};
pub use json::{BODY_LIMIT_BYTES, JSON_DEPTH_LIMIT, RawJson, StrictJson};
pub use layer::{finish, method_not_allowed, not_found};
pub use observe::{InFlight, UNKNOWN_ROUTE, answered, observe};
pub use paging::{Cursor, Limit, Page};
pub use preconditions::{ETag, IdempotencyKey, IfMatch, IfNoneMatch, MAX_WAIT, Prefer};
pub use problem::{FieldError, Problem};
pub use service_token::{CLIENT_ADDRESS, FromService, ServiceToken, ServiceTokenError, believe_services};
pub use trace::{TraceBackend, TraceContext};
