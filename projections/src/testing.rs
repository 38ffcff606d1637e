//! What tests of both profiles share: where the servers are, and a way to them that can be cut.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "a test fails by panicking; counts are small"
)]

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::cache::{Redis, RedisOptions};
use crate::store::{Mongo, MongoOptions};

/// The URL in the variable `name`; none, with the reason on stderr, where no cluster is tested.
pub(crate) fn server(name: &str) -> Option<String> {
    let wanted = |variable: &str| std::env::var_os(variable).is_some();
    match std::env::var(name) {
        Ok(url) if wanted("OMISYS_TEST_CLUSTER") || wanted("CI") => Some(url),
        _ if wanted("OMISYS_TEST_CLUSTER") || wanted("CI") => panic!("{name} is not set"),
        _ => {
            eprintln!("nothing is tested: OMISYS_TEST_CLUSTER is not set");
            None
        }
    }
}

/// A name that nobody else takes.
fn unique(prefix: &str) -> String {
    let hash = || RandomState::new().hash_one(std::process::id());
    format!("{prefix}{:016x}{:016x}", hash(), hash())
}

/// A database of its own; [`Mongo::drop_database`] at the end.
pub(crate) async fn mongo() -> Option<Mongo> {
    Some(mongo_at(server("OMISYS_TEST_MONGODB_URL")?, &unique("test_")).await)
}

pub(crate) async fn mongo_at(url: String, database: &str) -> Mongo {
    let database = database.to_owned();
    Mongo::connect(&MongoOptions { url, database }).await.unwrap()
}

/// Keys of its own, which expire by themselves.
pub(crate) fn redis_options() -> Option<RedisOptions> {
    let url = server("OMISYS_TEST_REDIS_URL")?;
    Some(RedisOptions {
        // Not what is tested: a busy machine is no failure.
        timeout: std::time::Duration::from_secs(10),
        ..RedisOptions::new(url, unique("test:"))
    })
}

pub(crate) fn redis() -> Option<Redis> {
    Some(Redis::open(redis_options()?).unwrap())
}

/// A way to a server that ends after so many bytes, and can be opened again.
pub(crate) struct Wire {
    pub(crate) port: u16,
    /// Bytes that still pass, both ways together; below zero: none, and connections break.
    budget: Arc<AtomicI64>,
}

impl Wire {
    /// To `host:port`; open.
    pub(crate) async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let budget = Arc::new(AtomicI64::new(i64::MAX));
        let shared = Arc::clone(&budget);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) > 0 {
                    tokio::spawn(carry(client, target.clone(), Arc::clone(&shared)));
                }
            }
        });
        Self { port, budget }
    }

    pub(crate) fn cut_after(&self, bytes: i64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.budget.store(i64::MAX, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, target: String, budget: Arc<AtomicI64>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let left = budget.fetch_sub(count as i64, Ordering::SeqCst);
            // What is left of a message that is cut in the middle.
            let passed = usize::try_from(left.max(0)).unwrap().min(count);
            if to_server.write_all(&buffer[..passed]).await.is_err() || passed < count {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let left = budget.fetch_sub(count as i64, Ordering::SeqCst);
            if left < count as i64 || to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = there => {}, () = back => {} }
}

/// `host:port` of a URL.
pub(crate) fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest).to_owned()
}
