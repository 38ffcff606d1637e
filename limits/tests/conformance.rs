//! What every way of counting does; both adapters run it. Redis needs the feature `cluster` and a server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use limits::{Limits, Quota, Standing};

const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than any test takes.
const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(1_200);

async fn a_key_has_its_burst_and_others_have_theirs(limits: &Limits) {
    let limiter = limits.limiter("burst", Quota::new(3, LONG), 100);
    let mut remaining = Vec::new();
    for used in 1..=3_u32 {
        let standing = limiter.check(&"ann").await;
        assert!(!standing.refused);
        let whole_in = LONG * used;
        assert!(
            standing.reset <= whole_in && standing.reset + MINUTE > whole_in,
            "{standing:?}"
        );
        remaining.push(standing.remaining);
    }
    assert_eq!(remaining, [2, 1, 0]);
    let refused = limiter.check(&"ann").await;
    assert!(refused.refused && refused.remaining == 0, "{refused:?}");
    assert!(
        refused.reset <= LONG && refused.reset + MINUTE > LONG,
        "{refused:?}"
    );
    assert!(!limiter.check(&"bob").await.refused);
}

async fn a_refusal_costs_nothing_and_a_place_comes_back_in_time(limits: &Limits) {
    let interval = Duration::from_millis(400);
    let limiter = limits.limiter("returns", Quota::new(1, interval), 100);
    let begun = tokio::time::Instant::now();
    assert!(!limiter.check(&1).await.refused);
    let mut refused = 0_u32;
    while let Standing {
        refused: true, reset, ..
    } = limiter.check(&1).await
    {
        assert!(reset <= interval);
        assert!(begun.elapsed() < DEADLINE, "no place came back");
        refused += 1;
        // Not only at the end: every refused attempt would push it further away if it counted.
        tokio::time::sleep(reset / 4).await;
    }
    assert!(refused > 0 && begun.elapsed() + Duration::from_millis(5) >= interval);
}

async fn exactly_the_burst_passes_at_once(limits: &Limits) {
    let limiter = limits.limiter("at once", Quota::new(10, LONG), 100);
    let checks = (0..100).map(|_| limiter.check(&"ann"));
    let standings = futures_util::future::join_all(checks).await;
    assert_eq!(standings.iter().filter(|standing| !standing.refused).count(), 10);
}

async fn who_has_proved_themselves_begin_anew(limits: &Limits) {
    let limiter = limits.limiter("forgiven", Quota::new(1, LONG), 100);
    assert!(!limiter.check(&"ann").await.refused);
    assert!(limiter.check(&"ann").await.refused);
    limiter.forgive(&"ann").await;
    assert!(!limiter.check(&"ann").await.refused);
}

async fn names_do_not_share(limits: &Limits) {
    let one = limits.limiter("one", Quota::new(1, LONG), 100);
    let other = limits.limiter("other", Quota::new(1, LONG), 100);
    assert!(!one.check(&"ann").await.refused);
    assert!(!other.check(&"ann").await.refused);
}

async fn the_extremes_are_lenient_not_broken(limits: &Limits) {
    let unlimited = limits.limiter(
        "unlimited",
        Quota::per_window(u32::MAX, Duration::from_secs(1)),
        100,
    );
    for _ in 0..100 {
        assert!(!unlimited.check(&"ann").await.refused);
    }
    let none = limits.limiter("none", Quota::new(0, Duration::ZERO), 100);
    assert!(!none.check(&"ann").await.refused);
}

async fn conformance(limits: &Limits) {
    a_key_has_its_burst_and_others_have_theirs(limits).await;
    a_refusal_costs_nothing_and_a_place_comes_back_in_time(limits).await;
    exactly_the_burst_passes_at_once(limits).await;
    who_has_proved_themselves_begin_anew(limits).await;
    names_do_not_share(limits).await;
    the_extremes_are_lenient_not_broken(limits).await;
    assert!(!limits.is_degraded());
}

#[tokio::test]
async fn in_process() {
    conformance(&Limits::InProcess).await;
}

#[cfg(feature = "cluster")]
mod redis {
    use std::sync::atomic::{AtomicU32, Ordering};

    use limits::{Redis, RedisOptions};

    use super::*;

    /// The server, or none where none is asked for.
    fn url() -> Option<String> {
        let required = ["OMISYS_TEST_CLUSTER", "CI"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|value| value == "1" || value == "true"));
        match std::env::var("OMISYS_TEST_REDIS_URL") {
            Ok(url) if required => Some(url),
            _ if required => panic!("OMISYS_TEST_REDIS_URL is not set: run `scripts/infra up`"),
            _ => {
                eprintln!("not run: needs Redis; set OMISYS_TEST_CLUSTER=1 and OMISYS_TEST_REDIS_URL");
                None
            }
        }
    }

    /// Keys that nobody else uses; they run out by themselves.
    fn prefix() -> String {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        format!("test:{now}:{}:{test}", std::process::id())
    }

    async fn raw(url: &str) -> ::redis::aio::MultiplexedConnection {
        let client = ::redis::Client::open(url).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The keys of a test, which it takes away at its end.
    async fn clean(url: &str, prefix: &str) -> Vec<String> {
        let mut connection = raw(url).await;
        let keys: Vec<String> = ::redis::cmd("KEYS")
            .arg(format!("{prefix}:*"))
            .query_async(&mut connection)
            .await
            .unwrap();
        for key in &keys {
            let (): () = ::redis::cmd("DEL")
                .arg(key)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
        keys
    }

    fn open(url: &str, prefix: &str) -> Limits {
        let mut options = RedisOptions::new(url, prefix);
        // The machine is busy while tests run; what is slow here is not what is tested.
        options.timeout = Duration::from_secs(5);
        Limits::Redis(Redis::open(options).unwrap())
    }

    #[tokio::test]
    async fn conforms() {
        let Some(url) = url() else { return };
        let prefix = prefix();
        conformance(&open(&url, &prefix)).await;
        clean(&url, &prefix).await;
    }

    #[tokio::test]
    async fn processes_count_together_and_keys_are_not_to_be_read() {
        let Some(url) = url() else { return };
        let prefix = prefix();
        let quota = Quota::new(2, LONG);
        let (one, other) = (open(&url, &prefix), open(&url, &prefix));
        let (one, other) = (
            one.limiter("logins", quota, 100),
            other.limiter("logins", quota, 100),
        );
        assert!(!one.check(&"ann@example.com").await.refused);
        assert!(!other.check(&"ann@example.com").await.refused);
        assert!(one.check(&"ann@example.com").await.refused);
        other.forgive(&"ann@example.com").await;
        assert!(!one.check(&"ann@example.com").await.refused);
        let mut connection = raw(&url).await;
        let keys = clean(&url, &prefix).await;
        assert_eq!(keys.len(), 1);
        assert!(!keys[0].contains("ann"), "{keys:?}");
        // Lost, as by FLUSHALL: everyone has their quota again.
        let exists: bool = ::redis::cmd("EXISTS")
            .arg(&keys[0])
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(!exists);
        assert!(!other.check(&"ann@example.com").await.refused);
        clean(&url, &prefix).await;
    }

    #[tokio::test]
    async fn without_redis_each_process_counts_for_itself_and_says_so() {
        // Nobody listens there: bound, and closed again.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let limits = open(&format!("redis://{address}"), "none");
        let limiter = limits.limiter("away", Quota::new(2, LONG), 100);
        let refused: Vec<bool> = [
            limiter.check(&"ann").await,
            limiter.check(&"ann").await,
            limiter.check(&"ann").await,
        ]
        .map(|standing| standing.refused)
        .into();
        assert_eq!(refused, [false, false, true]);
        assert!(limits.is_degraded());
        limiter.forgive(&"ann").await;
        assert!(!limiter.check(&"ann").await.refused);
    }

    #[tokio::test]
    async fn a_redis_that_does_not_answer_costs_one_wait_a_pause() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = RedisOptions::new(format!("redis://{}", silent.local_addr().unwrap()), "silent");
        options.timeout = Duration::from_millis(300);
        options.pause = Duration::from_secs(3_600);
        let limits = Limits::Redis(Redis::open(options).unwrap());
        let limiter = limits.limiter("silent", Quota::new(1_000_000, LONG), 100);
        limiter.check(&1).await;
        assert!(limits.is_degraded());
        let begun = tokio::time::Instant::now();
        for _ in 0..1_000 {
            assert!(!limiter.check(&1).await.refused);
        }
        // A thousand waits would be five minutes.
        assert!(begun.elapsed() < DEADLINE);
    }

    #[tokio::test]
    async fn once_redis_is_back_it_counts_again() {
        let Some(url) = url() else { return };
        let prefix = prefix();
        let server: std::net::SocketAddr = url
            .trim_start_matches("redis://")
            .trim_end_matches('/')
            .parse()
            .expect("a plain address in OMISYS_TEST_REDIS_URL");
        // A door to the server that is shut at first.
        let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = door.local_addr().unwrap();
        drop(door);
        let mut options = RedisOptions::new(format!("redis://{address}"), &prefix);
        options.timeout = Duration::from_secs(5);
        options.pause = Duration::from_millis(20);
        let limits = Limits::Redis(Redis::open(options).unwrap());
        let limiter = limits.limiter("back", Quota::new(1_000, LONG), 100);
        limiter.check(&1).await;
        assert!(limits.is_degraded());
        let door = tokio::net::TcpListener::bind(address).await.unwrap();
        let door = tokio::spawn(async move {
            loop {
                let (mut client, _) = door.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        let begun = tokio::time::Instant::now();
        // Without anybody being counted: readiness has to come back by itself.
        while limits.is_degraded() {
            assert!(begun.elapsed() < DEADLINE, "Redis was not asked again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!limiter.check(&1).await.refused);
        assert_eq!(clean(&url, &prefix).await.len(), 1);
        door.abort();
    }
}
