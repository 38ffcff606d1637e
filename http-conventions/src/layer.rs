//! The middleware that completes requests and responses.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use tracing::field::{Empty, display};

use crate::trace::TRACEPARENT;
use crate::{Problem, TraceContext};

/// Opens the request's span (`method`, `route`, `status`, `trace_id`), settles its [`TraceContext`] (extension and
/// header), returns it as `traceparent`, and completes every [`Problem`] with `instance` and `trace_id`. Bare error
/// answers of axum itself become problems. Harmless when nested: the outermost has the span.
///
/// Use with `axum::middleware::from_fn`. A router that has no routes of its own records `route` in the current span.
pub async fn finish(request: Request, next: Next) -> Response {
    if let Some(context) = request.extensions().get().copied() {
        return complete(context, request, next).await;
    }
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        method = %request.method(),
        route = Empty,
        status = Empty,
        trace_id = Empty,
    );
    let context = TraceContext::settle(TraceContext::received(request.headers()), &span);
    if !span.is_disabled() {
        span.record("trace_id", context.trace_id());
        if let Some(path) = request.extensions().get::<MatchedPath>() {
            span.record("route", path.as_str());
        }
    }
    let response = complete(context, request, next).instrument(span.clone()).await;
    span.record("status", display(response.status().as_u16()));
    response
}

async fn complete(context: TraceContext, mut request: Request, next: Next) -> Response {
    let traceparent = HeaderValue::try_from(context.to_string()).ok();
    request.extensions_mut().insert(context);
    if let Some(value) = &traceparent {
        request.headers_mut().insert(TRACEPARENT, value.clone());
    }
    let instance = request.uri().path().to_owned();

    let mut response = as_problem(next.run(request).await);
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        problem.instance.get_or_insert(instance);
        problem.trace_id.get_or_insert_with(|| context.trace_id());
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(problem.body());
        response.extensions_mut().insert(problem);
    }
    if let Some(value) = traceparent {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}

/// axum answers some requests (no such method on this path) without a body; say it as everything else is said.
fn as_problem(response: Response) -> Response {
    if response.extensions().get::<Problem>().is_some() || response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Problem::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => no_such_method(),
        _ => return response,
    };
    let (mut bare, _) = response.into_parts();
    let mut answer = problem.into_response();
    // `Allow` and whatever else was there.
    for (name, value) in bare.headers.drain() {
        if let Some(name) = name
            && name != CONTENT_LENGTH
        {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// The fallback of a router.
pub async fn not_found() -> Problem {
    Problem::not_found()
}

/// The fallback of a router for a known path.
pub async fn method_not_allowed() -> Problem {
    no_such_method()
}

fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
    )
}
