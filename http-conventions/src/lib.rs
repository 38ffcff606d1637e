//! What every HTTP surface of OMISYS says the same way, so that it is written once: errors as RFC 9457 problems,
//! strict JSON bodies, idempotency keys and preconditions, consistency tokens, cursors and pages, trace context.
//!
//! Extractors answer with a [`Problem`], never with axum's plain text. [`finish`] is the one middleware to put around
//! a service: it settles the request's [`TraceContext`] and completes problems with `instance` and `trace_id`.

mod client;
mod consistency;
mod extract;
mod json;
mod layer;
mod paging;
mod preconditions;
mod problem;
mod trace;

pub use client::ClientAddress;
pub use consistency::{AtLeast, ConsistencyToken, ParseTokenError};
pub use extract::{Path, Query};
pub use json::{BODY_LIMIT_BYTES, JSON_DEPTH_LIMIT, RawJson, StrictJson};
pub use layer::{finish, method_not_allowed, not_found};
pub use paging::{Cursor, Limit, Page};
pub use preconditions::{ETag, IdempotencyKey, IfMatch, IfNoneMatch, MAX_WAIT, Prefer};
pub use problem::{FieldError, Problem};
pub use trace::TraceContext;
