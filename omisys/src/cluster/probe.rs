//! How the parts that a process works with are, asked again and again, so that `/readyz` answers from memory.

use std::sync::Arc;
use std::time::Duration;

use gateway::{Component, ReadinessProbe};
use projections::{CacheState, Views};
use tokio::sync::watch;
use upstreams::{HttpPool, PoolHealth};

use crate::parts::{component, degraded};

/// Between two questions.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What does not answer in this time is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// One part of the process.
pub type Part = Arc<dyn Fn() -> Component + Send + Sync>;

/// Whether the database answers.
pub fn database(database: &database::Database) -> Part {
    let database = database.clone();
    asked("database", move || {
        let database = database.clone();
        async move { database.ping().await.err().map(|error| error.to_string()) }
    })
}

/// Whether the read models can be read.
pub fn documents(views: &Views) -> Part {
    let views = views.clone();
    asked("read-models", move || {
        let views = views.clone();
        async move { views.check().await.err().map(|error| error.to_string()) }
    })
}

/// Whether the documents' cache answers.
pub fn cache(views: &Views) -> Part {
    let views = views.clone();
    Arc::new(move || match views.cache_state() {
        CacheState::Up => component("cache", None),
        CacheState::Down => degraded("cache".to_owned(), "Redis does not answer: reads go to the store"),
    })
}

/// Whether the replicas of a service can be reached.
pub fn service(pool: HttpPool) -> Part {
    Arc::new(move || match pool.health() {
        PoolHealth::Up => component(pool.name(), None),
        PoolHealth::Degraded(reason) => degraded(pool.name().to_owned(), &reason),
        PoolHealth::Down(reason) => component(pool.name(), Some(reason)),
    })
}

/// All of `parts`.
pub fn all(parts: Vec<Part>) -> ReadinessProbe {
    Arc::new(move || parts.iter().map(|part| part()).collect())
}

/// A part that `ask` says what is wrong with, for as long as somebody wants to know.
fn asked<F, A>(name: &'static str, ask: F) -> Part
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Option<String>> + Send,
{
    let (said, heard) = watch::channel(None);
    tokio::spawn(async move {
        while !said.is_closed() {
            let answer = tokio::time::timeout(PATIENCE, ask()).await;
            let answer = answer.unwrap_or_else(|_| Some("it does not answer".to_owned()));
            said.send_if_modified(|known| std::mem::replace(known, answer.clone()) != answer);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    Arc::new(move || component(name, heard.borrow().clone()))
}
