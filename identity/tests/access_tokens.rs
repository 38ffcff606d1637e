//! Which access tokens pass, and that no other does.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use event_schemas::{AccountId, Clock};
use hmac::Mac as _;
use identity::verifier::{Caller, Permission, Role, TokenError};
use identity::{ACCESS_TOKEN_LIFE, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::Shop;

/// A good token of a customer, its parts, and the key that signed it.
struct Bench {
    shop: Shop,
    id: AccountId,
    token: String,
    header: Value,
    claims: Value,
    key: SigningKey,
}

impl Bench {
    async fn of(role: Role) -> Self {
        let shop = Shop::open().await;
        let id = shop.account("ann@example.com", role).await;
        let token = shop.token(id).await;
        let part = |n: usize| -> Value {
            serde_json::from_slice(&BASE64.decode(token.split('.').nth(n).unwrap()).unwrap()).unwrap()
        };
        let (header, claims) = (part(0), part(1));
        let keys: Value = serde_json::from_str(&std::fs::read_to_string(shop.keys_path()).unwrap()).unwrap();
        let stored = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["id"] == header["kid"])
            .unwrap();
        let seed = BASE64.decode(stored["secret"].as_str().unwrap()).unwrap();
        let key = SigningKey::from_bytes(&seed.try_into().unwrap());
        Self {
            shop,
            id,
            token,
            header,
            claims,
            key,
        }
    }

    fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        let now = Clock::from(self.shop.clock.clone()).now();
        self.shop.identity.verifier().verify(token, now)
    }

    /// The token with other parts, properly signed.
    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature.to_bytes()))
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        self.signed(&header, &self.claims)
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.signed(&self.header, &claims)
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims.to_string())
    )
}

#[tokio::test]
async fn a_token_says_what_rfc_9068_asks_for() {
    let bench = Bench::of(Role::Customer).await;
    assert_eq!(bench.header["typ"], "at+jwt");
    assert_eq!(bench.header["alg"], "EdDSA");
    for claim in [
        "iss",
        "aud",
        "sub",
        "exp",
        "iat",
        "jti",
        "client_id",
        "scope",
        "roles",
    ] {
        assert!(!bench.claims[claim].is_null(), "{claim}");
    }
    let life = bench.claims["exp"].as_i64().unwrap() - bench.claims["iat"].as_i64().unwrap();
    assert_eq!(u64::try_from(life).unwrap(), ACCESS_TOKEN_LIFE.as_secs());
    assert!(!bench.claims.to_string().contains("ann@"), "no e-mail in tokens");

    let caller = bench.verify(&bench.token).unwrap();
    assert_eq!((caller.account_id, caller.role), (bench.id, Role::Customer));
    assert!(caller.may(Permission::OrderPlace) && !caller.may(Permission::ProductWrite));
    assert_eq!(
        bench.verify(&bench.signed(&bench.header, &bench.claims)),
        Ok(caller),
        "the bench signs as we do"
    );
}

#[tokio::test]
async fn forged_headers_are_refused_though_properly_signed() {
    let bench = Bench::of(Role::Customer).await;
    let public = BASE64.encode(bench.key.verifying_key().to_bytes());
    let own_key = json!({"kty": "OKP", "crv": "Ed25519", "x": public});
    for (name, value, expected) in [
        ("alg", json!("none"), TokenError::Header),
        ("alg", json!("None"), TokenError::Header),
        ("alg", json!("HS256"), TokenError::Header),
        ("alg", json!("ES256"), TokenError::Header),
        ("alg", json!("RS256"), TokenError::Header),
        ("alg", json!(null), TokenError::Header),
        ("typ", json!("JWT"), TokenError::Header),
        ("typ", json!("id+jwt"), TokenError::Header),
        ("typ", json!(null), TokenError::Header),
        ("jku", json!("https://evil.example/jwks.json"), TokenError::Header),
        ("jwk", own_key, TokenError::Header),
        ("x5u", json!("https://evil.example/chain.pem"), TokenError::Header),
        ("x5c", json!([public]), TokenError::Header),
        ("x5t", json!("abc"), TokenError::Header),
        ("crit", json!(["exp"]), TokenError::Header),
        ("crit", json!([]), TokenError::Header),
        ("b64", json!(false), TokenError::Header),
        ("zip", json!("DEF"), TokenError::Header),
        ("cty", json!("JWT"), TokenError::Header),
        ("anything", json!(1), TokenError::Header),
        ("kid", json!("../../dev/null"), TokenError::UnknownKey),
        ("kid", json!(null), TokenError::UnknownKey),
        ("kid", json!(3), TokenError::Header),
    ] {
        assert_eq!(
            bench.verify(&bench.with_header(name, value.clone())),
            Err(expected),
            "{name}: {value}"
        );
    }
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret_and_no_signature_is_none() {
    let bench = Bench::of(Role::Customer).await;
    for alg in ["HS256", "HS384", "HS512"] {
        let mut header = bench.header.clone();
        header["alg"] = json!(alg);
        let message = message(&header, &bench.claims);
        let secret = bench.key.verifying_key().to_bytes();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.update(message.as_bytes());
        let token = format!("{message}.{}", BASE64.encode(mac.finalize().into_bytes()));
        assert_eq!(bench.verify(&token), Err(TokenError::Header), "{alg}");
    }
    let message = message(&bench.header, &bench.claims);
    for signature in [
        String::new(),
        BASE64.encode([0; 64]),
        BASE64.encode([0; 63]),
        "!".into(),
    ] {
        let refused = bench.verify(&format!("{message}.{signature}")).unwrap_err();
        assert!(
            matches!(refused, TokenError::Signature | TokenError::Malformed),
            "{signature}: {refused}"
        );
    }
    for junk in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &message,
        &format!("{}.x", bench.token),
        &"a".repeat(5000),
    ] {
        let refused = bench.verify(junk).unwrap_err();
        assert!(
            matches!(refused, TokenError::Malformed | TokenError::Header),
            "{junk}: {refused}"
        );
    }
    let stranger = SigningKey::from_bytes(&[7; 32]).sign(message.as_bytes());
    let token = format!("{message}.{}", BASE64.encode(stranger.to_bytes()));
    assert_eq!(bench.verify(&token), Err(TokenError::Signature));
}

#[tokio::test]
async fn claims_are_required_and_checked() {
    let bench = Bench::of(Role::Customer).await;
    let iat = bench.claims["iat"].as_i64().unwrap();
    for (name, value, expected) in [
        ("iss", json!("https://evil.example"), TokenError::Issuer),
        ("aud", json!("another-service"), TokenError::Audience),
        ("exp", json!(iat - 3600), TokenError::Expired),
        ("exp", json!(i64::MAX), TokenError::Claims),
        ("exp", json!("tomorrow"), TokenError::Claims),
        ("iat", json!(iat + 60), TokenError::NotYetValid),
        ("sub", json!("root"), TokenError::Claims),
        ("roles", json!(["customer", "admin"]), TokenError::Claims),
        ("roles", json!([]), TokenError::Claims),
        ("roles", json!(["superuser"]), TokenError::Claims),
    ] {
        assert_eq!(
            bench.verify(&bench.with_claim(name, value.clone())),
            Err(expected),
            "{name}: {value}"
        );
    }
    for name in [
        "iss", "aud", "sub", "exp", "iat", "jti", "scope", "roles", "epoch",
    ] {
        let mut claims = bench.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            bench.verify(&bench.signed(&bench.header, &claims)),
            Err(TokenError::Claims),
            "without {name}"
        );
    }
}

#[tokio::test]
async fn scope_narrows_what_the_role_grants_and_never_widens_it() {
    let bench = Bench::of(Role::Customer).await;
    let caller = bench
        .verify(&bench.with_claim("scope", json!("cart.use ops.write admin")))
        .unwrap();
    assert_eq!(
        caller.permissions.iter().collect::<Vec<_>>(),
        [Permission::CartUse]
    );
}

#[tokio::test]
async fn a_token_ends_five_seconds_after_it_says_so_at_the_latest() {
    let bench = Bench::of(Role::Customer).await;
    let verifier = bench.shop.identity.verifier();
    // Half a second of the token's life had passed when it was made.
    bench.shop.pass(ACCESS_TOKEN_LIFE + Duration::from_millis(4_499));
    assert!(verifier.authenticate(&bench.token).await.is_ok());
    bench.shop.pass(Duration::from_millis(1));
    assert_eq!(
        verifier.authenticate(&bench.token).await,
        Err(TokenError::Expired),
        "known before"
    );
    let unseen = bench.with_claim("jti", json!("0190a5da-c967-74bb-8ce0-b302099a8057"));
    assert_eq!(
        verifier.authenticate(&unseen).await,
        Err(TokenError::Expired),
        "never seen"
    );
}

#[tokio::test]
async fn the_cache_never_speaks_for_another_token() {
    let bench = Bench::of(Role::Customer).await;
    assert!(bench.verify(&bench.token).is_ok());
    let (message, signature) = bench.token.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let mut claims = bench.claims.clone();
    claims["roles"] = json!(["admin"]);
    let forged = format!("{header}.{}.{signature}", BASE64.encode(claims.to_string()));
    assert_eq!(bench.verify(&forged), Err(TokenError::Signature));
}

#[tokio::test]
async fn another_shop_s_tokens_do_not_pass() {
    let bench = Bench::of(Role::Customer).await;
    let other = Shop::with(Settings {
        issuer: "other".into(),
        ..Settings::default()
    })
    .await;
    let refused = other.identity.verifier().authenticate(&bench.token).await;
    assert_eq!(refused, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn the_header_is_the_only_way_to_show_a_token() {
    let bench = Bench::of(Role::Customer).await;
    let get = |name: &'static str, value: String| {
        let request = axum::http::Request::get("/auth/me").header(name, value);
        bench.shop.send(request, None)
    };
    assert_eq!(
        get("authorization", format!("bearer {}", bench.token))
            .await
            .status,
        200
    );
    for (name, value) in [
        ("authorization", bench.token.clone()),
        ("authorization", format!("Basic {}", bench.token)),
        ("authorization", "Bearer ".into()),
        ("x-access-token", bench.token.clone()),
        ("x-user-id", bench.id.to_string()),
    ] {
        let answer = get(name, value).await;
        assert_eq!(
            (answer.status.as_u16(), answer.slug()),
            (401, "unauthorized"),
            "{name}"
        );
        assert!(
            answer.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer")
        );
    }
    let twice = axum::http::Request::get("/auth/me")
        .header("authorization", format!("Bearer {}", bench.token))
        .header("authorization", format!("Bearer {}", bench.token));
    assert_eq!(bench.shop.send(twice, None).await.status, 401);
}

thread_local! {
    static BENCH: Bench = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Bench::of(Role::Customer))
    };
}

proptest! {
    /// Any change of any character of a good token makes it a bad one.
    #[test]
    fn no_mutation_passes(at in 0_usize..2_000, to in prop::char::range('!', '~')) {
        let refused = BENCH.with(|bench| {
            let mut token: Vec<char> = bench.token.chars().collect();
            let at = at % token.len();
            if token[at] == to {
                return true;
            }
            token[at] = to;
            bench.verify(&token.into_iter().collect::<String>()).is_err()
        });
        prop_assert!(refused);
    }

    #[test]
    fn no_text_makes_the_verifier_stumble(text in ".{0,300}") {
        prop_assert!(BENCH.with(|bench| bench.verify(&text)).is_err());
    }
}
