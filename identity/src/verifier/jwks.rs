//! The keys of another process: fetched from identity over HTTP, before and beside the requests, never within one.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use upstreams::HttpPool;

use super::{PublicKey, PublicKeys, Verifier};
use crate::jws;

const PATH: &str = "/.well-known/jwks.json";

/// How often the keys are asked for: the longest that a key which was taken out of use is still trusted.
const FETCH_EVERY: Duration = Duration::from_secs(2);
/// The same while there are none.
const FIRST_FETCH_EVERY: Duration = Duration::from_millis(500);
/// For one answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Ours has a few hundred bytes per key.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// Others than ours lack some of these, and are passed over.
#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    x: String,
}

impl Verifier {
    /// Keeps the keys up to date from the JWKS of `identity`, until `shutdown` resolves. While it does not answer the
    /// last keys stay: its tokens end within ten minutes.
    pub async fn follow_jwks(self, identity: HttpPool, shutdown: impl Future<Output = ()>) {
        let mut last = Vec::new();
        tokio::pin!(shutdown);
        loop {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(&identity)).await;
            match fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(document) if document == last => {}
                Ok(document) => {
                    if let Some(keys) = parse(&document) {
                        self.set_keys(keys);
                        last = document;
                    } else {
                        tracing::warn!("identity lists no key of ours; the last ones stay");
                    }
                }
                Err(error) => tracing::warn!(%error, "the keys of access tokens could not be fetched"),
            }
            let pause = if self.has_keys() {
                FETCH_EVERY
            } else {
                FIRST_FETCH_EVERY
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

async fn fetch(identity: &HttpPool) -> Result<Vec<u8>, String> {
    let request = Request::get(PATH).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = identity
        .request(None, request)
        .await
        .map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let body = to_bytes(answer.into_body(), MAX_BYTES).await;
    Ok(body.map_err(|error| error.to_string())?.to_vec())
}

/// Our kind of keys; none if there is none.
fn parse(document: &[u8]) -> Option<PublicKeys> {
    let jwks: Jwks = serde_json::from_slice(document).ok()?;
    let ours = jwks.keys.into_iter().filter_map(|jwk| {
        if jwk.kty != "OKP" || jwk.crv != "Ed25519" || jwk.kid.is_empty() {
            return None;
        }
        let point: [u8; 32] = URL_SAFE_NO_PAD.decode(&jwk.x).ok()?.try_into().ok()?;
        let key = PublicKey {
            key: jws::decoding_key(&point),
            // A key whose last token has ended is not listed any more.
            until: None,
        };
        Some((jwk.kid, key))
    });
    let keys = PublicKeys::of(ours);
    keys.is_known().then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_are_passed_over_and_nothing_is_no_set() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let ours = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}","use":"sig"}}"#);
        let foreign = r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"r"}"#;
        let keys = parse(format!(r#"{{"keys":[{foreign},{ours}]}}"#).as_bytes()).unwrap();
        assert!(keys.get("k").is_some() && keys.get("r").is_none());
        for none in [
            format!(r#"{{"keys":[{foreign}]}}"#),
            r#"{"keys":[]}"#.to_owned(),
            ours.replace(&x, "AAAA"),
            "<html>".to_owned(),
        ] {
            assert!(parse(none.as_bytes()).is_none(), "{none}");
        }
    }
}
