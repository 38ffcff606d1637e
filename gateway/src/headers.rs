//! Which headers pass, in both directions. Everything that is not listed is dropped: a service never sees a header
//! that a client invented to look like ours, and a client never sees what a service lets slip.

use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK,
    LOCATION, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const AT_LEAST: HeaderName = HeaderName::from_static("omisys-at-least");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What services get to see.
const REQUEST: [HeaderName; 11] = [
    ACCEPT,
    AUTHORIZATION,
    AT_LEAST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    LAST_EVENT_ID,
    PREFER,
    TRACEPARENT,
];

/// What the payment webhook gets to see besides: how providers sign (Standard Webhooks).
const WEBHOOK_REQUEST: [HeaderName; 3] = [
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-signature"),
    HeaderName::from_static("webhook-timestamp"),
];

/// What clients get to see of a service's answer.
const RESPONSE: [HeaderName; 12] = [
    CACHE_CONTROL,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    ETAG,
    IDEMPOTENT_REPLAYED,
    LINK,
    LOCATION,
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    TRACEPARENT,
    VARY,
    WWW_AUTHENTICATE,
];

/// The headers of `sent` that the service gets.
pub(crate) fn for_service(sent: &HeaderMap, webhook: bool) -> HeaderMap {
    let extra: &[HeaderName] = if webhook { &WEBHOOK_REQUEST } else { &[] };
    pick(sent, REQUEST.iter().chain(extra))
}

/// The headers of `answered` that the client gets.
pub(crate) fn for_client(answered: &HeaderMap) -> HeaderMap {
    pick(answered, RESPONSE.iter())
}

fn pick<'a>(from: &HeaderMap, names: impl Iterator<Item = &'a HeaderName>) -> HeaderMap {
    let mut picked = HeaderMap::with_capacity(from.len().min(16));
    for name in names {
        for value in from.get_all(name) {
            picked.append(name, value.clone());
        }
    }
    picked
}

/// How long and by whom an answer may be kept, where the service has not said. What a token opens is its owner's.
pub(crate) fn complete_caching(headers: &mut HeaderMap, method: &Method, public: bool) {
    if !headers.contains_key(CACHE_CONTROL) {
        let value = match (method == Method::GET || method == Method::HEAD, public) {
            (false, _) => "no-store",
            (true, true) => "public, no-cache",
            (true, false) => "private, no-cache",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
    }
    // The catalogue too: staff see more of it.
    vary(headers, &AUTHORIZATION);
}

fn vary(headers: &mut HeaderMap, on: &HeaderName) {
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .any(|name| name.trim().eq_ignore_ascii_case(on.as_str()))
        })
    };
    if !headers.get_all(VARY).iter().any(listed)
        && let Ok(value) = HeaderValue::from_str(on.as_str())
    {
        headers.append(VARY, value);
    }
}

/// On every answer: browsers take types as they are declared, and send no one our paths.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
}

const ALLOW_ORIGIN: HeaderName = http::header::ACCESS_CONTROL_ALLOW_ORIGIN;

/// The origin that the request comes from, if pages of it may call us.
pub(crate) fn allowed_origin(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let listed = origin
        .to_str()
        .is_ok_and(|origin| allowed.iter().any(|allowed| allowed == origin));
    listed.then(|| origin.clone())
}

/// Whether a browser asks if it may send a request.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets pages of `origin` read the answer. No credentials: tokens are sent by scripts, never by the browser itself.
pub(crate) fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ALLOW_ORIGIN, origin);
    headers.insert(
        http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "etag, idempotent-replayed, link, location, preference-applied, ratelimit, ratelimit-policy, \
             retry-after, traceparent, www-authenticate",
        ),
    );
}

/// What a preflight is answered with.
pub(crate) fn preflight(headers: &mut HeaderMap) {
    for (name, value) in [
        (http::header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
        (
            http::header::ACCESS_CONTROL_ALLOW_HEADERS,
            "accept, authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, \
             omisys-at-least, prefer, traceparent",
        ),
        (http::header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Answers differ by origin once any origin is allowed, so caches have to know.
pub(crate) fn vary_origin(headers: &mut HeaderMap) {
    vary(headers, &ORIGIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_headers_pass_and_repeated_ones_stay_repeated() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer a"),
            ("authorization", "Bearer b"),
            ("x-forwarded-for", "192.0.2.1"),
            ("omisys-caller", "admin"),
            ("webhook-signature", "v1,x"),
            ("cookie", "a=b"),
        ] {
            sent.append(name, HeaderValue::from_static(value));
        }
        let names = |headers: HeaderMap| {
            headers
                .iter()
                .map(|(name, _)| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(for_service(&sent, false)),
            ["authorization", "authorization"]
        );
        assert!(for_service(&sent, true).contains_key("webhook-signature"));
        assert_eq!(names(for_client(&sent)), Vec::<String>::new());
    }

    #[test]
    fn what_a_token_opens_is_private_and_everything_varies_by_it() {
        let caching = |method: Method, public| {
            let mut headers = HeaderMap::new();
            complete_caching(&mut headers, &method, public);
            let text = |name| {
                headers
                    .get(name)
                    .map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
            };
            (text(CACHE_CONTROL).unwrap(), text(VARY))
        };
        let vary = Some("authorization".to_owned());
        assert_eq!(
            caching(Method::GET, true),
            ("public, no-cache".to_owned(), vary.clone())
        );
        assert_eq!(
            caching(Method::GET, false),
            ("private, no-cache".to_owned(), vary.clone())
        );
        assert_eq!(caching(Method::POST, false), ("no-store".to_owned(), vary));
    }

    #[test]
    fn an_origin_is_allowed_by_its_exact_name() {
        let allowed = ["https://shop.example".to_owned()];
        let from = |origin| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            allowed_origin(&headers, &allowed).is_some()
        };
        assert!(from("https://shop.example"));
        for origin in [
            "https://shop.example.evil.example",
            "http://shop.example",
            "https://SHOP.example",
            "null",
        ] {
            assert!(!from(origin), "{origin}");
        }
    }
}
