//! The log in a SQLite file passes the suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use event_schemas::Position;
use event_store::conformance::Fixture;
use event_store::{Log, LogOptions};
use sqlite_file::{Options, SqliteError, SqliteFile, Synchronous};

struct SqliteLog {
    dir: tempfile::TempDir,
}

impl SqliteLog {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> SqliteFile {
        // What durability costs is not under test here; that it is on is tested where files are opened.
        let options = Options {
            synchronous: Synchronous::Normal,
            readers: 2,
        };
        SqliteFile::open(self.dir.path().join("log.db"), options).unwrap()
    }
}

impl Fixture for SqliteLog {
    async fn open_with(&self, options: LogOptions) -> Log {
        Log::open(&self.file(), options).await.unwrap()
    }

    async fn tamper(&self, position: Position, event_version: &str, payload: &str) {
        let (event_version, payload) = (event_version.to_owned(), payload.to_owned());
        self.file()
            .write(move |conn| {
                let changed = conn.execute(
                    "UPDATE events SET event_version = ?2, payload = ?3 WHERE position = ?1",
                    (position.0, event_version, payload),
                )?;
                assert_eq!(changed, 1);
                Ok::<_, SqliteError>(())
            })
            .await
            .unwrap();
    }
}

event_store::conformance_suite!(SqliteLog::new());
