//! Which work is told of in spans.

use tracing::Level;

/// The trace that work goes on with: `traceparent`, if that trace is recorded, by somebody and by this process. A span
/// with it in a field of this name becomes part of the trace, whichever process or day began it.
///
/// <https://www.w3.org/TR/trace-context/#trace-flags>
pub fn traced(traceparent: Option<&str>) -> Option<&str> {
    traceparent.filter(|text| tracing::level_enabled!(Level::INFO) && text.ends_with("-01"))
}
