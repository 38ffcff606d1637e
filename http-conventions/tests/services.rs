//! What a service has around its routes: whom it believes, and what it counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http_conventions::{
    CLIENT_ADDRESS, ClientAddress, FromService, ServiceToken, ServiceTokenError, believe_services, observe,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::ServiceExt as _;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn token(secret: &str) -> ServiceToken {
    ServiceToken::new(secret).unwrap()
}

async fn seen(ClientAddress(address): ClientAddress, headers: HeaderMap) -> String {
    let named: Vec<&str> = headers
        .keys()
        .map(axum::http::HeaderName::as_str)
        .filter(|name| name.starts_with("omisys-"))
        .collect();
    format!("{address:?} {named:?}")
}

fn router(token: Option<ServiceToken>) -> Router {
    Router::new()
        .route("/seen/{id}", get(seen))
        .route("/internal", get(|_: FromService| async { "for services" }))
        .layer(from_fn_with_state(token, believe_services))
}

async fn ask(router: Router, path: &str, shown: Option<&ServiceToken>) -> (StatusCode, String) {
    let mut request = Request::get(path)
        .header(CLIENT_ADDRESS, "192.0.2.7")
        .body(Body::empty())
        .unwrap();
    if let Some(token) = shown {
        token.show(request.headers_mut());
    }
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn only_who_shows_the_token_is_believed() {
    let ours = router(Some(token(SECRET)));
    let (status, text) = ask(ours.clone(), "/seen/1", Some(&token(SECRET))).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "Some(192.0.2.7) []"));
    assert_eq!(
        ask(ours.clone(), "/internal", Some(&token(SECRET))).await.0,
        StatusCode::OK
    );

    let wrong = SECRET.replace('f', "e");
    let longer = format!("{SECRET}0");
    for (service, shown) in [
        (ours.clone(), None),
        (ours.clone(), Some(token(&wrong))),
        (ours, Some(token(&longer))),
        // Without a token of its own a service believes nobody.
        (router(None), Some(token(SECRET))),
    ] {
        let (_, text) = ask(service.clone(), "/seen/1", shown.as_ref()).await;
        assert_eq!(text, "None []");
        let (status, _) = ask(service, "/internal", shown.as_ref()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}

#[test]
fn a_token_is_long_enough_and_never_printed() {
    assert_eq!(format!("{:?}", token(SECRET)), "ServiceToken");
    for secret in [
        "",
        "short",
        &" ".repeat(32),
        &"x".repeat(257),
        &"\u{fc}".repeat(32),
    ] {
        assert_eq!(
            ServiceToken::new(secret).unwrap_err(),
            ServiceTokenError,
            "{secret}"
        );
    }
}

#[test]
fn requests_are_counted_by_template_and_the_unknown_are_one() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let router = router(None).layer(from_fn_with_state("query-api", observe));
            for path in ["/seen/1", "/seen/2", "/made-up/1", "/made-up/2"] {
                ask(router.clone(), path, None).await;
            }
        });
    });
    let text = handle.render();
    for line in [
        "omisys_http_requests_total{service=\"query-api\",route=\"/seen/{id}\",status=\"200\"} 2",
        "omisys_http_requests_total{service=\"query-api\",route=\"unknown\",status=\"404\"} 2",
        "omisys_http_request_duration_seconds_count{service=\"query-api\",route=\"/seen/{id}\"} 2",
        "omisys_http_requests_in_flight{service=\"query-api\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("made-up"));
}
