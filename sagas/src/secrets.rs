//! Payment tokens, kept beside the log and never in it. An event names a secret by its [`SecretRef`]; the row is durable
//! before that event is appended, and it expires.

use std::fmt;

use database::{Database, DatabaseError, KeptTable, params};
use event_schemas::{SecretRef, Timestamp};

const STEPS: &[&str] = &["CREATE TABLE secrets (
     secret_ref TEXT NOT NULL PRIMARY KEY,
     value TEXT NOT NULL,
     expires_at INTEGER NOT NULL
 ) STRICT, WITHOUT ROWID;
 CREATE INDEX secrets_by_expiry ON secrets (expires_at)"];

pub(crate) const KEPT_SECRETS: KeptTable = KeptTable {
    name: "secrets",
    columns: &["secret_ref", "value", "expires_at"],
    key: 1,
    filter: None,
};

/// A secret value. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the provider only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The table `secrets` of the log's database.
#[derive(Debug, Clone)]
pub struct SecretStore {
    database: Database,
}

impl SecretStore {
    /// Makes the table in `database` if it is not there.
    pub async fn open(database: impl Into<Database>) -> Result<Self, DatabaseError> {
        let database = database.into();
        database.migrate("secrets", STEPS).await?;
        Ok(Self { database })
    }

    /// Keeps `value` under `name` until `expires_at`; durable once it resolves. The same name again, as from a client
    /// that repeats its request, replaces value and expiry.
    pub async fn put(
        &self,
        name: &SecretRef,
        value: Secret,
        expires_at: Timestamp,
    ) -> Result<(), DatabaseError> {
        let put = self.database.execute(
            "INSERT INTO secrets (secret_ref, value, expires_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (secret_ref) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
            params![name.as_str().to_owned(), value.0, expires_at.as_microsecond()],
        );
        put.await.map(|_| ())
    }

    /// The value under `name`; none if there never was one or it has expired.
    pub async fn get(&self, name: &SecretRef, now: Timestamp) -> Result<Option<Secret>, DatabaseError> {
        let get = self.database.query(
            "SELECT value FROM secrets WHERE secret_ref = ?1 AND expires_at > ?2",
            params![name.as_str().to_owned(), now.as_microsecond()],
            |row| row.get(0).map(Secret),
        );
        Ok(get.await?.pop())
    }

    /// Deletes what has expired by `now` and says how many.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, DatabaseError> {
        let sweep = self.database.execute(
            "DELETE FROM secrets WHERE expires_at <= ?1",
            params![now.as_microsecond()],
        );
        sweep.await
    }
}
