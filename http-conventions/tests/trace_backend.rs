//! With a backend that records spans, the contexts that handlers see and that go out are the spans'. The backend is one
//! for the process, so this test has a process of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Mutex;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::middleware::from_fn;
use axum::routing::get;
use http_conventions::{TraceBackend, TraceContext, finish};
use tower::ServiceExt as _;

const RECEIVED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static ADOPTED: Mutex<Vec<Option<TraceContext>>> = Mutex::new(Vec::new());

fn of_span(trace_id: [u8; 16], span: u8) -> Option<TraceContext> {
    TraceContext::from_ids(trace_id, [span; 8], true)
}

async fn ask(router: Router, traceparent: Option<&str>) -> (String, String) {
    let mut request = Request::get("/trace");
    if let Some(text) = traceparent {
        request = request.header("traceparent", text);
    }
    let response = router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let answered = response.headers()["traceparent"].to_str().unwrap().to_owned();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (answered, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn contexts_are_the_spans_where_spans_are_recorded() {
    let handler = |context: TraceContext| async move { format!("{context} {}", context.outgoing()) };
    let inner = Router::new().route("/trace", get(handler)).layer(from_fn(finish));
    // As in one process: the service's own layer within the gateway's.
    let router = inner.layer(from_fn(finish));

    // Without a backend: what came in is what handlers see, and what goes out is a span of its own in that trace.
    let (answered, seen) = ask(router.clone(), Some(RECEIVED)).await;
    assert_eq!(answered, RECEIVED);
    let (context, outgoing) = seen.split_once(' ').unwrap();
    assert_eq!(context, RECEIVED);
    assert_eq!(outgoing[..36], RECEIVED[..36]);
    assert_ne!(outgoing, RECEIVED);
    assert!(outgoing.ends_with("-01"));

    let backend = TraceBackend {
        adopt: |_, received| {
            ADOPTED.lock().unwrap().push(received);
            of_span(received.map_or([7; 16], |context| context.trace_id_bytes()), 1)
        },
        current: || of_span([9; 16], 2),
    };
    assert!(backend.install());
    assert!(!backend.install(), "once for a process");
    let (answered, seen) = ask(router.clone(), Some(RECEIVED)).await;
    assert_eq!(
        answered,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0101010101010101-01"
    );
    assert_eq!(
        seen,
        format!("{answered} 00-{}-{}-01", "09".repeat(16), "02".repeat(8))
    );
    // The first of its trace: the backend decides, and is not told of an id that nobody sent.
    let (answered, _) = ask(router, None).await;
    assert_eq!(answered, format!("00-{}-{}-01", "07".repeat(16), "01".repeat(8)));
    // One span for a request, whatever is nested.
    let adopted = ADOPTED.lock().unwrap().clone();
    assert_eq!(adopted, [Some(RECEIVED.parse().unwrap()), None]);
}
