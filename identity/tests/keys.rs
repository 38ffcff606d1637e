//! The key file, rotation, and what a rotation must not break.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::time::Duration;

use event_schemas::Clock;
use identity::verifier::{Role, TokenError};
use identity::{Identity, KeyError, KeySource, Purpose, Settings, Start};
use serde_json::Value;
use support::{PASSWORD, Shop};

fn kid(token: &str) -> String {
    let header = jsonwebtoken::decode_header(token).unwrap();
    header.kid.unwrap()
}

async fn published(shop: &Shop) -> Vec<String> {
    let answer = shop.get("/.well-known/jwks.json").await;
    answer.body["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_key_file_is_private_and_survives_a_restart() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    let token = shop.token(id).await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(shop.keys_path()).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(
        shop.other_process()
            .await
            .verifier()
            .authenticate(&token)
            .await
            .is_ok()
    );
}

#[cfg(unix)]
#[tokio::test]
async fn keys_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let shop = Shop::open().await;
    std::fs::set_permissions(shop.keys_path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let source = KeySource::Directory(shop.dir.path().join("keys"));
    let refused = Identity::open(shop.database.clone(), source, Settings::default(), Clock::System).await;
    assert!(refused.unwrap_err().to_string().contains("chmod 600"));
}

#[tokio::test]
async fn the_environment_is_an_alternative_that_cannot_be_rotated_from_here() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    let token = shop.token(id).await;
    let json = std::fs::read_to_string(shop.keys_path()).unwrap();
    let open = |text: String| {
        let clock = Clock::from(shop.clock.clone());
        Identity::open(
            shop.database.clone(),
            KeySource::Inline(text.into()),
            Settings::default(),
            clock,
        )
    };
    let identity = open(json.clone()).await.unwrap();
    assert!(identity.verifier().authenticate(&token).await.is_ok());
    let refused = identity.rotate_key(Purpose::Signing, Start::Now).unwrap_err();
    assert!(matches!(refused, KeyError::ReadOnly));

    let secret = serde_json::from_str::<Value>(&json).unwrap()["keys"][0]["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    for broken in [
        json.replace(&secret, &secret[1..]),
        json.replacen("\"purpose\"", "\"porpoise\"", 1),
        "{}".into(),
    ] {
        let message = open(broken).await.unwrap_err().to_string();
        assert!(!message.contains(&secret[1..]), "{message}");
    }
}

#[tokio::test]
async fn a_new_signing_key_is_published_first_signs_later_and_the_old_one_stays_a_token_s_life() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    let verifier = shop.identity.verifier();
    let old = kid(&shop.token(id).await);
    let new = shop
        .identity
        .rotate_key(Purpose::Signing, Start::WhenPublished)
        .unwrap();

    assert_eq!(published(&shop).await, [old.clone(), new.to_string()]);
    shop.pass(Duration::from_secs(299));
    let last = shop.token(id).await;
    assert_eq!(kid(&last), old, "not before everybody knows the new one");
    shop.pass(Duration::from_secs(1));
    let first = shop.token(id).await;
    assert_eq!(kid(&first), *new);

    assert!(verifier.authenticate(&last).await.is_ok());
    shop.pass(Duration::from_secs(598));
    assert!(verifier.authenticate(&last).await.is_ok(), "to its end");
    assert_eq!(published(&shop).await, [old, new.to_string()]);
    shop.pass(Duration::from_secs(60));
    assert_eq!(published(&shop).await, [new.to_string()]);
}

#[tokio::test]
async fn a_retired_signing_key_ends_its_tokens_at_once_also_those_seen_before() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    let verifier = shop.identity.verifier();
    let token = shop.token(id).await;
    assert!(verifier.authenticate(&token).await.is_ok());

    let refused = shop.identity.retire_key(&kid(&token)).unwrap_err();
    assert!(matches!(refused, KeyError::NoSuccessor), "nobody could sign");
    shop.identity
        .rotate_key(Purpose::Signing, Start::WhenPublished)
        .unwrap();
    assert!(
        matches!(shop.identity.retire_key(&kid(&token)), Err(KeyError::NoSuccessor)),
        "not yet, either"
    );
    shop.identity.rotate_key(Purpose::Signing, Start::Now).unwrap();
    shop.identity.retire_key(&kid(&token)).unwrap();

    assert_eq!(verifier.authenticate(&token).await, Err(TokenError::UnknownKey));
    assert!(!published(&shop).await.contains(&kid(&token)));
    assert!(verifier.authenticate(&shop.token(id).await).await.is_ok());
    assert!(matches!(
        shop.identity.retire_key("signing-0-00000000"),
        Err(KeyError::UnknownKey)
    ));
}

#[tokio::test]
async fn a_running_server_takes_over_what_the_command_line_changed() {
    let shop = Shop::open().await;
    let id = shop.account("ann@example.com", Role::Customer).await;
    let token = shop.token(id).await;
    let cli = shop.other_process().await;
    cli.rotate_key(Purpose::Signing, Start::Now).unwrap();
    cli.retire_key(&kid(&token)).unwrap();
    assert!(shop.identity.verifier().authenticate(&token).await.is_ok());
    shop.identity.maintain().await.unwrap();
    assert_eq!(
        shop.identity.verifier().authenticate(&token).await,
        Err(TokenError::UnknownKey)
    );
    assert_eq!(shop.identity.keys(), cli.keys());
}

#[tokio::test]
async fn fingerprints_made_under_a_retired_key_can_still_be_compared() {
    let shop = Shop::open().await;
    let fingerprinter = shop.identity.fingerprinter();
    let before = fingerprinter.macs(b"{}");
    assert_eq!(before.len(), 1);
    let old = before[0].key_id.clone();
    shop.identity
        .rotate_key(Purpose::Fingerprint, Start::WhenPublished)
        .unwrap();
    assert!(matches!(
        shop.identity.retire_key("nonsense"),
        Err(KeyError::UnknownKey)
    ));
    shop.identity.retire_key(&old).unwrap();
    shop.pass(Duration::from_secs(400 * 86_400));
    shop.identity
        .rotate_key(Purpose::Fingerprint, Start::WhenPublished)
        .unwrap();
    let after = fingerprinter.macs(b"{}");
    assert_eq!(after.len(), 3);
    assert_ne!(after[0].key_id, old, "new receipts get the new key");
    assert!(after.contains(&before[0]), "old receipts keep theirs");
    assert!(!fingerprinter.macs(b"[]").contains(&before[0]));
}

#[tokio::test]
async fn the_published_key_is_the_one_that_signs() {
    let shop = Shop::open().await;
    shop.account("ann@example.com", Role::Customer).await;
    let token = shop
        .log_in("ann@example.com", PASSWORD)
        .await
        .text("/access_token");
    let answer = shop.get("/.well-known/jwks.json").await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let jwk = &answer.body["keys"][0];
    assert_eq!(jwk["kty"], "OKP");
    assert_eq!(jwk["crv"], "Ed25519");
    assert_eq!(jwk["alg"], "EdDSA");
    assert!(jwk.get("d").is_none());
    let point = jsonwebtoken::DecodingKey::from_ed_components(jwk["x"].as_str().unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_audience(&["omisys"]);
    validation.validate_exp = false;
    assert!(jsonwebtoken::decode::<Value>(&token, &point, &validation).is_ok());
}
