//! A service on a directory of its own, with a clock that the test moves, spoken to through the real router.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use database::Database;
use database::testing::TestDatabase;
use event_schemas::{AccountId, Clock, ManualClock, Timestamp};
use http_body_util::BodyExt as _;
use http_conventions::ClientAddress;
use identity::verifier::Role;
use identity::{Email, Identity, KeySource, NewPassword, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

pub const PASSWORD: &str = "correct horse battery";

pub struct Shop {
    pub dir: TempDir,
    pub clock: ManualClock,
    pub test: TestDatabase,
    pub database: Database,
    pub identity: Identity,
    pub router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn slug(&self) -> &str {
        self.body["type"]
            .as_str()
            .unwrap_or("")
            .trim_start_matches("/problems/")
    }

    pub fn text(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.body))
            .into()
    }
}

impl Shop {
    pub async fn open() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Not a whole second: tokens count in those.
        let clock = ManualClock::new(Timestamp::from_millisecond(1_750_000_000_500).unwrap());
        let test = test_database().await;
        let database = test.database().clone();
        let identity = Self::process(&dir, &database, &clock, settings).await;
        let router = Self::routes(&identity);
        Self {
            dir,
            clock,
            test,
            database,
            identity,
            router,
        }
    }

    /// Another process on the same files.
    pub async fn other_process(&self) -> Identity {
        Self::process(&self.dir, &self.database, &self.clock, Settings::default()).await
    }

    pub fn keys_path(&self) -> std::path::PathBuf {
        self.dir.path().join("keys/keys.json")
    }

    async fn process(
        dir: &TempDir,
        database: &Database,
        clock: &ManualClock,
        settings: Settings,
    ) -> Identity {
        let keys = KeySource::Directory(dir.path().join("keys"));
        Identity::open(database.clone(), keys, settings, Clock::from(clock.clone()))
            .await
            .unwrap()
    }

    fn routes(identity: &Identity) -> Router {
        let (router, _) = identity::router(identity.clone()).split_for_parts();
        router.layer(axum::middleware::from_fn(http_conventions::finish))
    }

    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub async fn account(&self, email: &str, role: Role) -> AccountId {
        let (email, password) = (Email::new(email).unwrap(), NewPassword::new(PASSWORD).unwrap());
        self.identity
            .create_account(email, Some(password), role)
            .await
            .unwrap()
            .id
    }

    pub async fn token(&self, id: AccountId) -> String {
        self.identity.mint_access_token(id).await.unwrap().token
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Request::post(path), Some(body)).await
    }

    pub async fn post_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(
            Request::post(path).header(header::AUTHORIZATION, format!("Bearer {token}")),
            Some(body),
        )
        .await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send(
            Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}")),
            None,
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), None).await
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Answer {
        self.post("/auth/login", json!({ "email": email, "password": password }))
            .await
    }

    pub async fn log_in_from(&self, address: IpAddr, email: &str, password: &str) -> Answer {
        let request = Request::post("/auth/login").extension(ClientAddress(Some(address)));
        self.send(request, Some(json!({ "email": email, "password": password })))
            .await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", json!({ "refresh_token": token }))
            .await
    }

    pub async fn send(&self, request: axum::http::request::Builder, body: Option<Value>) -> Answer {
        let request = match body {
            None => request.body(Body::empty()),
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(serde_json::to_vec(&body).unwrap())),
        };
        let response = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

/// On SQLite, or, in the test binary `postgres`, on PostgreSQL where there is one.
#[cfg_attr(
    not(feature = "cluster"),
    expect(clippy::unused_async, reason = "with the feature, it may be elsewhere")
)]
async fn test_database() -> TestDatabase {
    #[cfg(feature = "cluster")]
    if module_path!().starts_with("postgres")
        && let Some(test) = TestDatabase::postgres().await
    {
        return test;
    }
    TestDatabase::sqlite()
}

pub fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))
}
