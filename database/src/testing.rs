//! A database of its own for each test, gone with its handle.

use sqlite_file::{Options, SqliteFile};
use tempfile::TempDir;

use crate::Database;

/// Names the PostgreSQL server that tests may make databases on.
pub const POSTGRES_URL: &str = "OMISYS_TEST_POSTGRES_URL";

/// A fresh database.
#[derive(Debug)]
pub struct TestDatabase {
    database: Database,
    /// What `database` was opened with, for another process's handle on it.
    url: String,
    _at: At,
}

#[derive(Debug)]
enum At {
    Folder(#[expect(dead_code, reason = "removed when dropped")] TempDir),
    #[cfg(feature = "cluster")]
    Server(#[expect(dead_code, reason = "removed when dropped")] dropping::Dropping),
}

impl TestDatabase {
    /// A SQLite file in a temporary folder.
    ///
    /// # Panics
    /// If there is no room for it.
    #[expect(clippy::unwrap_used, reason = "a test without its database cannot go on")]
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let file = SqliteFile::open(&path, Options::default()).unwrap();
        Self {
            database: file.into(),
            url: path.display().to_string(),
            _at: At::Folder(folder),
        }
    }

    /// A database on the server at [`POSTGRES_URL`]; none if the cluster is not to be tested.
    ///
    /// # Panics
    /// If the cluster is to be tested and the server is not there.
    #[cfg(feature = "cluster")]
    #[expect(clippy::expect_used, reason = "a test without its database cannot go on")]
    pub async fn postgres() -> Option<Self> {
        if std::env::var_os("OMISYS_TEST_CLUSTER").is_none() && std::env::var_os("CI").is_none() {
            eprintln!("not tested: OMISYS_TEST_CLUSTER is not set, so there is no PostgreSQL");
            return None;
        }
        let server = std::env::var(POSTGRES_URL).expect("OMISYS_TEST_POSTGRES_URL names the server");
        Some(Self::postgres_on(&server).await.expect("PostgreSQL answers"))
    }

    /// A database of its own on the server of this URL, whose user must be allowed to make one.
    #[cfg(feature = "cluster")]
    pub async fn postgres_on(server: &str) -> Result<Self, crate::DatabaseError> {
        use sqlx::{Connection as _, Executor as _};

        let name = format!("omisys_test_{}", unique());
        let mut admin = sqlx::PgConnection::connect(server).await?;
        admin
            .execute(sqlx::raw_sql(&format!("CREATE DATABASE {name}")))
            .await?;
        let dropping = dropping::Dropping {
            server: server.to_owned(),
            name: name.clone(),
        };
        let (address, options) = server.split_once('?').unwrap_or((server, ""));
        let base = address.rsplit_once('/').map_or(address, |(base, _)| base);
        let options = if options.is_empty() {
            String::new()
        } else {
            format!("?{options}")
        };
        let url = format!("{base}/{name}{options}");
        Ok(Self {
            database: postgres(&url).await?.into(),
            url,
            _at: At::Server(dropping),
        })
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Another handle on it, as another process would have.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[expect(clippy::unwrap_used, reason = "a test without its database cannot go on")]
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, reason = "with the feature, it may be elsewhere")
    )]
    pub async fn reopen(&self) -> Database {
        match &self.database {
            Database::Sqlite(_) => SqliteFile::open(&self.url, Options::default()).unwrap().into(),
            #[cfg(feature = "cluster")]
            Database::Postgres(_) => postgres(&self.url).await.unwrap().into(),
        }
    }

    /// Where it is: a path or a URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(feature = "cluster")]
async fn postgres(url: &str) -> Result<crate::Postgres, crate::DatabaseError> {
    let options = crate::PostgresOptions {
        url: url.to_owned(),
        max_connections: 10,
        migrate: true,
    };
    crate::Postgres::connect(&options).await
}

/// Unlike any other in this run or another: time and process are told apart by the system's random hasher.
#[cfg(feature = "cluster")]
fn unique() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!(
        "{:016x}{:016x}",
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1)
    )
}

#[cfg(feature = "cluster")]
mod dropping {
    use sqlx::Connection as _;

    /// Drops the database at the end, also of a test that failed.
    #[derive(Debug)]
    pub(super) struct Dropping {
        pub(super) server: String,
        pub(super) name: String,
    }

    impl Drop for Dropping {
        fn drop(&mut self) {
            let (server, name) = (self.server.clone(), self.name.clone());
            // A runtime of its own: the test's may be ending.
            let dropped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .ok()?;
                runtime.block_on(async {
                    let mut admin = sqlx::PgConnection::connect(&server).await.ok()?;
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    sqlx::raw_sql(&sql).execute(&mut admin).await.ok()
                })
            })
            .join();
            if !matches!(dropped, Ok(Some(_))) {
                eprintln!("the test database {} was left behind", self.name);
            }
        }
    }
}
