//! W3C Trace Context: what a request brings, what its span makes of it, and what goes out with calls to others.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

pub(crate) const TRACEPARENT: &str = "traceparent";

/// The trace a request belongs to, and the span that sent it; written as the header `traceparent`
/// (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

/// The text is no `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct ParseTraceError;

impl TraceContext {
    /// The context of `random` bytes, for a request that brought none. Not sampled: we record no spans for it.
    pub fn new(random: [u8; 24]) -> Self {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&random[..16]);
        span_id.copy_from_slice(&random[16..]);
        // All zeroes is invalid in both places.
        trace_id[0] |= 1;
        span_id[0] |= 1;
        Self {
            trace_id,
            span_id,
            sampled: false,
        }
    }

    /// The context of these ids, as a tracing backend gave them; none if one is all zeroes, which is no id.
    pub fn from_ids(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            sampled,
        })
    }

    /// What a request brought, if it is valid.
    pub(crate) fn received(headers: &HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all(TRACEPARENT).iter();
        match (sent.next(), sent.next()) {
            (Some(value), None) => value.to_str().ok()?.parse().ok(),
            _ => None,
        }
    }

    /// A new one.
    pub(crate) fn random() -> Self {
        let mut random = [0; 24];
        // A trace id that repeats is an inconvenience, not a fault.
        let _ = getrandom::fill(&mut random);
        Self::new(random)
    }

    /// The context of a request whose span is `span`: the span's own where a backend records spans, else what the
    /// request brought, else a new one. Before the span is entered.
    pub(crate) fn settle(received: Option<Self>, span: &tracing::Span) -> Self {
        let recorded = BACKEND.get().and_then(|backend| (backend.adopt)(span, received));
        recorded.or(received).unwrap_or_else(Self::random)
    }

    /// What a call to another process carries: the current span's context where a backend records spans, else a span
    /// of its own within this trace.
    #[must_use]
    pub fn outgoing(self) -> Self {
        if let Some(context) = BACKEND.get().and_then(|backend| (backend.current)()) {
            return context;
        }
        let fresh = Self::random();
        Self {
            span_id: fresh.span_id,
            ..self
        }
    }

    /// The trace's id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    /// The trace's id.
    pub const fn trace_id_bytes(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span that sent the request, or, with a backend, of the span that answers it.
    pub const fn span_id_bytes(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether spans of this trace are recorded.
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }
}

/// How spans and trace contexts belong together where a backend records spans (such as `tracing-opentelemetry`, which
/// only the binary knows).
#[derive(Clone, Copy, Debug)]
pub struct TraceBackend {
    /// Makes what a request brought (none: it is the first of its trace) the parent of its span, which has not been
    /// entered, and answers the span's own context; none if it is not recorded.
    pub adopt: fn(&tracing::Span, Option<TraceContext>) -> Option<TraceContext>,
    /// The context of the current span; none if it is not recorded.
    pub current: fn() -> Option<TraceContext>,
}

static BACKEND: OnceLock<TraceBackend> = OnceLock::new();

impl TraceBackend {
    /// From here on spans are recorded. Once for a process, before it serves; false if it was done before.
    pub fn install(self) -> bool {
        BACKEND.set(self).is_ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N], ParseTraceError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(ParseTraceError);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| if b <= b'9' { b - b'0' } else { b - b'a' + 10 };
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Ok(bytes)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            hex(&self.trace_id),
            hex(&self.span_id),
            u8::from(self.sampled)
        )
    }
}

impl FromStr for TraceContext {
    type Err = ParseTraceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(ParseTraceError);
        let (version, trace_id, span_id, flags) = (next()?, next()?, next()?, next()?);
        if version != "00" || parts.next().is_some() {
            return Err(ParseTraceError);
        }
        let (trace_id, span_id) = (unhex(trace_id)?, unhex(span_id)?);
        let [flags] = unhex(flags)?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(ParseTraceError);
        }
        Ok(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

impl<S: Sync> FromRequestParts<S> for TraceContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if let Some(context) = parts.extensions.get() {
            return Ok(*context);
        }
        let context = Self::received(&parts.headers).unwrap_or_else(Self::random);
        parts.extensions.insert(context);
        Ok(context)
    }
}
