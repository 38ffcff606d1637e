//! What clients can rely on, through a real router.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use event_schemas::{CustomerId, Position, StreamId, Version};
use http_conventions::{
    AtLeast, ClientAddress, ConsistencyToken, Cursor, ETag, IdempotencyKey, IfMatch, IfNoneMatch, Limit,
    Page, Path, Prefer, Problem, Query, RawJson, StrictJson, TraceContext,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[expect(dead_code, reason = "only read from JSON")]
    lines: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[expect(dead_code, reason = "only read from JSON")]
    quantity: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
    at_least: Option<ConsistencyToken>,
}

fn router() -> Router {
    Router::new()
        .route(
            "/strict",
            post(|StrictJson(_): StrictJson<Order>| async { "fine" }),
        )
        .route(
            "/small",
            post(|StrictJson(_): StrictJson<Order, 40>| async { "fine" }),
        )
        .route("/raw", post(|body: RawJson<Value>| async move { body.raw }))
        .route(
            "/optional",
            post(
                |body: Option<StrictJson<Order>>| async move { if body.is_some() { "some" } else { "none" } },
            ),
        )
        .route(
            "/key",
            post(|key: IdempotencyKey| async move { key.as_str().to_owned() }),
        )
        .route(
            "/maybe-key",
            post(|key: Option<IdempotencyKey>| async move {
                key.map_or("-".into(), |key| key.as_str().to_owned())
            }),
        )
        .route(
            "/if-match",
            post(|IfMatch(version): IfMatch| async move { format!("{version:?}") }),
        )
        .route(
            "/if-none-match",
            get(|tags: IfNoneMatch| async move {
                tags.matches(ETag {
                    generation: 1,
                    rev: 7,
                })
                .to_string()
            }),
        )
        .route(
            "/prefer",
            get(|prefer: Prefer| async move { format!("{:?}", prefer.wait) }),
        )
        .route(
            "/at-least",
            get(|AtLeast(token): AtLeast| async move { format!("{token:?}") }),
        )
        .route(
            "/customers/{id}",
            get(|Path(id): Path<CustomerId>| async move { id.to_string() }),
        )
        .route("/list", get(list))
        .route(
            "/problem",
            get(|| async { Problem::refused("out-of-stock", "Out of stock").with("sku", "MUG-1") }),
        )
        .route(
            "/trace",
            get(|trace: TraceContext| async move { trace.to_string() }),
        )
        .fallback(http_conventions::not_found)
        .layer(axum::middleware::from_fn(http_conventions::finish))
}

async fn list(uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let after = query
        .cursor
        .as_ref()
        .map(Cursor::decode::<u32>)
        .transpose()?
        .unwrap_or(0);
    let items = (after + 1..=25).take(query.limit.get() + 1).collect();
    let _ = query.at_least;
    Ok(Page::cut(items, query.limit, |item: &u32| *item).answer(&uri))
}

async fn send(request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (
        parts.status,
        parts.headers,
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

async fn post_json(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into());
    let (status, headers, text) = send(request.unwrap()).await;
    if status.is_success() {
        return (status, json!(text));
    }
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    (status, serde_json::from_str(&text).unwrap())
}

async fn with_header(method: &str, path: &str, name: &str, value: &[u8]) -> (StatusCode, String) {
    let value = HeaderValue::from_bytes(value).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(name, value)
        .body(Body::empty());
    let (status, _, text) = send(request.unwrap()).await;
    (status, text)
}

#[tokio::test]
async fn a_problem_has_all_its_members() {
    let request = Request::get("/problem?secret=1")
        .header("traceparent", TRACEPARENT)
        .body(Body::empty());
    let (status, headers, text) = send(request.unwrap()).await;
    assert_eq!(status, 422);
    assert_eq!(headers["traceparent"], TRACEPARENT);
    let length: usize = headers
        .get("content-length")
        .map_or(text.len(), |v| v.to_str().unwrap().parse().unwrap());
    assert_eq!(length, text.len());
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({
            "type": "/problems/out-of-stock",
            "title": "Out of stock",
            "status": 422,
            "instance": "/problem",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "sku": "MUG-1",
        })
    );
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn what_axum_answers_by_itself_is_a_problem_too() {
    let request = |method: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap()
    };
    for (method, path, status, kind) in [
        ("GET", "/nowhere", 404, "/problems/not-found"),
        ("DELETE", "/problem", 405, "/problems/method-not-allowed"),
    ] {
        let (got, headers, text) = send(request(method, path)).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (got.as_u16(), &body["type"], &body["instance"]),
            (status, &json!(kind), &json!(path))
        );
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
}

#[tokio::test]
async fn a_traceparent_is_kept_if_valid_and_made_if_not() {
    let (_, text) = with_header("GET", "/trace", "traceparent", TRACEPARENT.as_bytes()).await;
    assert_eq!(text, TRACEPARENT);
    for bad in [
        "",
        "00-0-0-00",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ] {
        let (_, text) = with_header("GET", "/trace", "traceparent", bad.as_bytes()).await;
        assert!(
            text.parse::<TraceContext>().is_ok() && text != bad,
            "{bad}: {text}"
        );
    }
}

#[tokio::test]
async fn bodies_are_strict() {
    assert_eq!(post_json("/strict", r#"{"lines":[{"quantity":1}]}"#).await.0, 200);
    for (body, pointer) in [
        (r#"{"lines":[{"quantity":-1}]}"#, "/lines/0/quantity"),
        (
            r#"{"lines":[{"quantity":1},{"quantity":4294967296}]}"#,
            "/lines/1/quantity",
        ),
        (r#"{"lines":[{"quantity":1.5}]}"#, "/lines/0/quantity"),
        (r#"{"lines":[{"quantity":"1"}]}"#, "/lines/0/quantity"),
        (r#"{"lines":[{"quantity":1,"price/~":1}]}"#, "/lines/0/price~1~0"),
        (r#"{"lines":[],"role":"admin"}"#, "/role"),
        (r#"{"lines":[],"lines":[]}"#, ""),
        ("{}", ""),
        ("[]", ""),
        ("{\"lines\":", "/lines"),
    ] {
        let (status, problem) = post_json("/strict", body).await;
        assert_eq!(
            (status.as_u16(), &problem["type"]),
            (400, &json!("/problems/malformed-request")),
            "{body}"
        );
        let fields = problem["errors"].as_array().unwrap();
        assert_eq!(
            (fields.len(), &fields[0]["pointer"]),
            (1, &json!(pointer)),
            "{body}: {problem}"
        );
    }
    for body in [
        "",
        "{\"lines\":[]}x",
        "\u{feff}{}",
        &format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
    ] {
        assert_eq!(post_json("/strict", body.to_owned()).await.0, 400);
    }
    let invalid_utf8: &[u8] = b"{\"lines\":\"\xff\"}";
    assert_eq!(post_json("/strict", invalid_utf8).await.0, 400);
}

#[tokio::test]
async fn bodies_are_bounded_whether_or_not_they_say_how_long_they_are() {
    let fits = format!("{{\"lines\":[]{}}}", " ".repeat(28));
    assert_eq!(fits.len(), 40);
    assert_eq!(post_json("/small", fits.clone()).await.0, 200);
    let over = format!("{fits} ");
    let (status, problem) = post_json("/small", over.clone()).await;
    assert_eq!((status.as_u16(), &problem["max_bytes"]), (413, &json!(40)));
    let chunked = pieces(over.into_bytes().into_iter().map(|byte| Ok(vec![byte])).collect());
    assert_eq!(post_json("/small", chunked).await.0, 413);
    let broken = pieces(vec![Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
    assert_eq!(post_json("/small", broken).await.0, 400);
}

/// A body in pieces, whose length nobody says.
fn pieces(pieces: Vec<Result<Vec<u8>, std::io::Error>>) -> Body {
    Body::from_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn bodies_are_declared_as_json() {
    for (value, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/json; charset=\"utf-8\"", 200),
        ("application/json; charset=latin1", 415),
        ("text/json", 415),
        ("application/merge-patch+json", 415),
        ("application/x-www-form-urlencoded", 415),
    ] {
        let request = Request::post("/strict")
            .header(header::CONTENT_TYPE, value)
            .body(Body::from("{\"lines\":[]}"));
        assert_eq!(send(request.unwrap()).await.0, status, "{value}");
    }
    let undeclared = Request::post("/strict")
        .body(Body::from("{\"lines\":[]}"))
        .unwrap();
    assert_eq!(send(undeclared).await.0, 415);
}

#[tokio::test]
async fn a_body_may_be_optional_and_raw() {
    let nothing = Request::post("/optional").body(Body::empty()).unwrap();
    assert_eq!(send(nothing).await.2, "none");
    let undeclared = Request::post("/optional").body(Body::from("{}")).unwrap();
    assert_eq!(send(undeclared).await.0, 400);
    assert_eq!(post_json("/optional", "{\"lines\":[]}").await.1, "some");
    assert_eq!(post_json("/optional", "{}").await.0, 400);
    assert_eq!(
        post_json("/raw", " { \"a\" : 1 } ").await.1,
        " { \"a\" : 1 } ",
        "byte for byte"
    );
}

#[tokio::test]
async fn idempotency_keys() {
    for (sent, expected) in [("abc-123", "abc-123"), ("\"abc-123\"", "abc-123")] {
        for path in ["/key", "/maybe-key"] {
            let answer = with_header("POST", path, "idempotency-key", sent.as_bytes()).await;
            assert_eq!(answer, (StatusCode::OK, expected.into()));
        }
    }
    let long = "x".repeat(256);
    for bad in ["", "\"\"", "a b", &long] {
        for path in ["/key", "/maybe-key"] {
            assert_eq!(
                with_header("POST", path, "idempotency-key", bad.as_bytes())
                    .await
                    .0,
                400,
                "{bad}"
            );
        }
    }
    assert_eq!(
        with_header("POST", "/key", "idempotency-key", b"\xc3\xa9")
            .await
            .0,
        400
    );
    let (status, problem) = post_json("/key", "").await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (400, &json!("/problems/idempotency-key-required"))
    );
    assert_eq!(post_json("/maybe-key", "").await.1, "-");
    let twice = Request::post("/key")
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    assert_eq!(send(twice.body(Body::empty()).unwrap()).await.0, 400);
}

#[tokio::test]
async fn preconditions_and_preferences() {
    assert_eq!(
        with_header("POST", "/if-match", "if-match", b"\"3\"").await.1,
        "Some(Version(3))"
    );
    assert_eq!(post_json("/if-match", "").await.1, "None");
    for bad in [
        "3",
        "*",
        "W/\"3\"",
        "\"\"",
        "\"+3\"",
        "\"x\"",
        "\"1\", \"2\"",
        "\"99999999999999999999\"",
    ] {
        assert_eq!(
            with_header("POST", "/if-match", "if-match", bad.as_bytes())
                .await
                .0,
            400,
            "{bad}"
        );
    }
    for (sent, matches) in [
        ("\"1.7\"", true),
        ("W/\"1.7\"", true),
        ("\"1.6\", \"1.7\"", true),
        ("*", true),
        ("\"1.70\"", false),
        ("1.7", false),
        ("", false),
    ] {
        let answer = with_header("GET", "/if-none-match", "if-none-match", sent.as_bytes())
            .await
            .1;
        assert_eq!(answer, matches.to_string(), "{sent}");
    }
    for (sent, wait) in [
        ("wait=5", "Some(5s)"),
        ("respond-async, WAIT = \"3\"", "Some(3s)"),
        ("wait=100000", "Some(10s)"),
        ("wait=-1", "None"),
        ("wait", "None"),
    ] {
        assert_eq!(
            with_header("GET", "/prefer", "prefer", sent.as_bytes()).await.1,
            wait,
            "{sent}"
        );
    }
}

#[tokio::test]
async fn paths_and_queries_are_parsed_at_the_edge() {
    let id = "0190a5da-c967-74bb-8ce0-b302099a8057";
    let get = |path: String| send(Request::get(path).body(Body::empty()).unwrap());
    assert_eq!(get(format!("/customers/{id}")).await.2, id);
    for bad in ["1", "x%ff", "0190a5da", "%00"] {
        let (status, _, text) = get(format!("/customers/{bad}")).await;
        assert_eq!(status, 400, "{bad}");
        assert!(!text.contains("CustomerId") && !text.contains("Uuid"), "{text}");
    }
    let token = format!("order/{id}@3.17");
    assert_eq!(get(format!("/list?limit=100&at_least={token}")).await.0, 200);
    for bad in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "unknown=1",
        "limit=1&limit=2",
        "cursor=!",
        "at_least=order",
    ] {
        let (status, _, text) = get(format!("/list?{bad}")).await;
        assert_eq!(status, 400, "{bad}: {text}");
    }
    let (status, text) = with_header("GET", "/at-least", "omisys-at-least", token.as_bytes()).await;
    assert!(status == 200 && text.contains("Version(3)"), "{text}");
    assert_eq!(
        with_header("GET", "/at-least", "omisys-at-least", b"order/1")
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn pages_lead_through_the_whole_list_once() {
    let (mut path, mut seen) = ("/list?cursor=&limit=10".replace("cursor=&", ""), Vec::new());
    loop {
        let (status, headers, text) = send(Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200);
        let page: Value = serde_json::from_str(&text).unwrap();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item.as_u64().unwrap()),
        );
        match headers.get(header::LINK) {
            None => {
                assert_eq!(page["next_cursor"], Value::Null);
                break;
            }
            Some(link) => {
                let (next, rel) = link.to_str().unwrap().split_once('>').unwrap();
                assert_eq!(rel, "; rel=\"next\"");
                assert!(next.ends_with(page["next_cursor"].as_str().unwrap()));
                next[1..].clone_into(&mut path);
            }
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<u64>>());
}

#[test]
fn addresses_are_counted_by_owner() {
    let bucket = |text: &str| ClientAddress(Some(text.parse().unwrap())).bucket().to_string();
    assert_eq!(bucket("203.0.113.7"), "203.0.113.7");
    assert_eq!(bucket("::ffff:203.0.113.7"), "203.0.113.7");
    assert_eq!(bucket("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(ClientAddress(None).bucket().to_string(), "::");
}

#[test]
fn extension_members_and_headers() {
    let problem = Problem::too_many_requests(std::time::Duration::from_millis(1_500));
    let response = axum::response::IntoResponse::into_response(problem);
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    let _: Json<Problem> = Json(Problem::forbidden("stock.write"));
}

proptest! {
    #[test]
    fn consistency_tokens_survive_text(id in "[A-Za-z0-9._@-]{1,64}", version: u64, position: u64) {
        let stream: StreamId = format!("inventory/{id}").parse().unwrap();
        let token = ConsistencyToken { stream, version: Version(version), position: Position(position) };
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn no_text_makes_the_parsers_stumble(text in ".{0,80}") {
        let _ = text.parse::<ConsistencyToken>();
        let _ = text.parse::<TraceContext>();
    }

    #[test]
    fn cursors_survive_text(key: (String, i64)) {
        let cursor = Cursor::encode(&key).unwrap();
        prop_assert!(cursor.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        let decoded: Result<(String, i64), _> = cursor.decode();
        prop_assert_eq!(decoded.ok().filter(|_| cursor.as_str().len() <= 1024), Some(key).filter(|_| cursor.as_str().len() <= 1024));
    }
}
