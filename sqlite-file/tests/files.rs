//! What opening and migrating promise.

use sqlite_file::{Options, SqliteError, SqliteFile};

#[cfg(unix)]
#[tokio::test]
async fn the_file_and_its_wal_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = SqliteFile::open(&path, Options::default()).unwrap();
    file.migrate("a", &["CREATE TABLE a (x) "]).unwrap();
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn migrations_run_once_per_component_and_only_forward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.db");
    let one = "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (1)";
    let two = "INSERT INTO a VALUES (2)";
    for steps in [&[one][..], &[one], &[one, two], &[one, two]] {
        let file = SqliteFile::open(&path, Options::default()).unwrap();
        file.migrate("a", steps).unwrap();
        file.migrate("b", &["CREATE TABLE IF NOT EXISTS b (x INTEGER) STRICT"])
            .unwrap();
    }
    let file = SqliteFile::open(&path, Options::default()).unwrap();
    let sum: i64 = file
        .read(|conn| Ok::<_, SqliteError>(conn.query_row("SELECT sum(x) FROM a", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(sum, 3);
    assert_eq!(
        file.migrate("a", &[one]),
        Err(SqliteError::Newer {
            component: "a",
            found: 2,
            known: 1
        })
    );
}

#[tokio::test]
async fn a_failing_step_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(dir.path().join("log.db"), Options::default()).unwrap();
    let good = "CREATE TABLE a (x INTEGER) STRICT";
    assert!(matches!(
        file.migrate("a", &[good, "NONSENSE"]),
        Err(SqliteError::Sql { .. })
    ));
    file.migrate("a", &[good]).unwrap();
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing = SqliteFile::open(dir.path().join("no/such/dir/log.db"), Options::default());
    assert!(matches!(missing, Err(SqliteError::Open { .. })));
    let junk = dir.path().join("junk.db");
    std::fs::write(&junk, "this is not a database, whatever it is called".repeat(100)).unwrap();
    assert!(matches!(
        SqliteFile::open(&junk, Options::default()),
        Err(SqliteError::Open { .. })
    ));
}

#[tokio::test]
async fn unique_violations_can_be_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(dir.path().join("log.db"), Options::default()).unwrap();
    file.migrate(
        "a",
        &["CREATE TABLE a (x INTEGER PRIMARY KEY, y TEXT UNIQUE NOT NULL) STRICT"],
    )
    .unwrap();
    let insert = |x: i64, y: Option<&'static str>| {
        file.write(move |conn| Ok::<_, SqliteError>(conn.execute("INSERT INTO a VALUES (?1, ?2)", (x, y))?))
    };
    insert(1, Some("a")).await.unwrap();
    assert!(insert(1, Some("b")).await.unwrap_err().is_unique_violation());
    assert!(insert(2, Some("a")).await.unwrap_err().is_unique_violation());
    assert!(!insert(3, None).await.unwrap_err().is_unique_violation());
}
