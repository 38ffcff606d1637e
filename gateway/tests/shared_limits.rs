//! Limits that gateways share. Needs the feature `cluster` and Redis.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use gateway::{GatewayConfig, Rate};
use identity::verifier::Role;
use limits::{Limits, Redis, RedisOptions};
use support::{Harness, start_with};

fn config() -> GatewayConfig {
    GatewayConfig {
        per_address: Rate {
            requests: 2,
            window_seconds: 60,
        },
        ..GatewayConfig::default()
    }
}

async fn behind(url: &str, prefix: &str) -> Harness {
    let mut options = RedisOptions::new(url, prefix);
    // The machine is busy while tests run.
    options.timeout = Duration::from_secs(5);
    start_with(config(), Limits::Redis(Redis::open(options).unwrap())).await
}

#[tokio::test]
async fn an_address_has_one_quota_at_all_gateways() {
    let required = ["OMISYS_TEST_CLUSTER", "CI"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| value == "1" || value == "true"));
    let Ok(url) = std::env::var("OMISYS_TEST_REDIS_URL") else {
        assert!(
            !required,
            "OMISYS_TEST_REDIS_URL is not set: run `scripts/infra up`"
        );
        eprintln!("not run: needs Redis; set OMISYS_TEST_CLUSTER=1 and OMISYS_TEST_REDIS_URL");
        return;
    };
    // Nobody else's keys; they run out in a minute.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let prefix = format!("test:{now}:{}", std::process::id());
    let (one, other) = (behind(&url, &prefix).await, behind(&url, &prefix).await);
    let first = one.get("/v1/products", &[]).await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"address\";q=2;w=60"));
    assert!(
        first
            .header("ratelimit")
            .unwrap()
            .starts_with("\"address\";r=1;t=")
    );
    assert_eq!(other.get("/v1/products", &[]).await.status, 200);
    for gateway in [&one, &other] {
        let refused = gateway.get("/v1/products", &[]).await;
        refused.expect_problem(429, "too-many-requests");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn without_redis_the_gateway_is_degraded_and_limits_by_itself() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let shop = behind(&format!("redis://{address}"), "none").await;
    for status in [200, 200, 429] {
        assert_eq!(shop.get("/v1/products", &[]).await.status, status);
    }
    let staff = format!("authorization: Bearer {}", shop.token(Role::Staff, 1).await);
    let ready = shop.get("/readyz", &[&staff]).await.json();
    assert_eq!(ready["status"], "degraded");
    let named = |component: &serde_json::Value| component["name"] == "limits";
    assert!(
        ready["components"].as_array().unwrap().iter().any(named),
        "{ready}"
    );
}
