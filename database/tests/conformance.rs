//! What stands beside the log may expect of its database: the same on SQLite and PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use database::testing::TestDatabase;
use database::{Database, DatabaseError, params};
use tokio::sync::oneshot;

const STEPS: &[&str] = &["CREATE TABLE things (
     name TEXT NOT NULL PRIMARY KEY,
     count INTEGER NOT NULL,
     note TEXT,
     bytes BLOB
 ) STRICT, WITHOUT ROWID"];

async fn migrated(test: &TestDatabase) -> Database {
    let database = test.database().clone();
    database.migrate("things", STEPS).await.unwrap();
    database
}

async fn names(database: &Database) -> Vec<String> {
    let names = database.read(|session| {
        session.query("SELECT name FROM things ORDER BY name", &[], |row| {
            row.get::<String>(0)
        })
    });
    names.await.unwrap()
}

async fn insert(database: &Database, name: &'static str) -> Result<usize, DatabaseError> {
    database
        .write(move |session| {
            session.execute(
                "INSERT INTO things (name, count) VALUES (?1, ?2)",
                &params![name, 1],
            )
        })
        .await
}

async fn values_come_back_as_they_were(test: TestDatabase) {
    let database = migrated(&test).await;
    let row = database.write(|session| {
        let (absent, present) = (None::<String>, Some("why?"));
        let insert = "INSERT INTO things (name, count, note, bytes) VALUES (?1, ?2, ?3, ?4)";
        session.execute(insert, &params!["first", u64::MAX, absent, &[1_u8, 2, 3]])?;
        session.execute(insert, &params!["second", true, present, None::<Vec<u8>>])?;
        session.query(
            "SELECT name, count, note, bytes, count > 1 AS many FROM things ORDER BY name",
            &[],
            |row| {
                let name = row.get::<String>("name")?;
                let count = row.get::<i64>(1)?;
                let note = row.get::<Option<String>>("note")?;
                Ok::<_, DatabaseError>((
                    name,
                    count,
                    note,
                    row.get::<Option<Vec<u8>>>(3)?,
                    row.get::<bool>("many")?,
                ))
            },
        )
    });
    let expected = [
        ("first".to_owned(), i64::MAX, None, Some(vec![1, 2, 3]), true),
        ("second".to_owned(), 1, Some("why?".to_owned()), None, false),
    ];
    assert_eq!(row.await.unwrap(), expected);
}

async fn a_statement_alone_is_durable_and_its_failure_is_told(test: TestDatabase) {
    const INSERT: &str = "INSERT INTO things (name, count) VALUES (?1, ?2)";
    let database = migrated(&test).await;
    assert_eq!(database.execute(INSERT, params!["one", 1]).await, Ok(1));
    let doubled = database.execute(INSERT, params!["one", 2]).await.unwrap_err();
    assert!(doubled.is_unique_violation(), "{doubled:?}");
    // Nobody waits for it: it is done all the same.
    let given_up = tokio::time::timeout(
        std::time::Duration::ZERO,
        database.execute(INSERT, params!["two".to_owned(), 2]),
    );
    let _ = given_up.await;
    let raised = database.execute("UPDATE things SET count = count + ?1", params![1]);
    assert!(raised.await.unwrap() >= 1);
    let found = database.query(
        "SELECT name, count FROM things WHERE name = ?1",
        params!["one"],
        |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?)),
    );
    assert_eq!(found.await.unwrap(), [("one".to_owned(), 2)]);
    let unreadable = database.query("SELECT name FROM things", params![], |row| row.get::<i64>(0));
    assert!(unreadable.await.is_err());
    assert_eq!(
        test.reopen().await.execute(INSERT, params!["three", 3]).await,
        Ok(1)
    );
    assert!(names(&database).await.len() >= 2);
}

async fn a_failed_job_leaves_nothing(test: TestDatabase) {
    let database = migrated(&test).await;
    let failed: Result<(), DatabaseError> = database
        .write(|session| {
            session.execute(
                "INSERT INTO things (name, count) VALUES (?1, 1)",
                &params!["lost"],
            )?;
            Err(DatabaseError::Unexpected {
                column: "a".to_owned(),
                message: "b".to_owned(),
            })
        })
        .await;
    assert!(
        matches!(failed, Err(DatabaseError::Unexpected { .. })),
        "{failed:?}"
    );
    assert_eq!(insert(&database, "kept").await, Ok(1));
    let doubled = insert(&database, "kept").await.unwrap_err();
    assert!(
        doubled.is_unique_violation() && !doubled.retryable(),
        "{doubled:?}"
    );
    assert_eq!(names(&database).await, ["kept"]);
}

async fn a_job_that_panics_harms_nobody(test: TestDatabase) {
    let database = migrated(&test).await;
    let panicked: Result<(), DatabaseError> = database.write(|_| panic!("on purpose")).await;
    assert!(panicked.is_err());
    assert_eq!(insert(&database, "kept").await, Ok(1));
}

async fn a_submitted_job_is_answered_once_it_is_durable(test: TestDatabase) {
    let database = migrated(&test).await;
    let (reply, answer) = oneshot::channel();
    let job = |session: &database::Session<'_>| {
        session.execute("INSERT INTO things (name, count) VALUES ('submitted', 1)", &[])
    };
    let submitted = database.submit(job, move |outcome: Result<usize, DatabaseError>| {
        let _ = reply.send(outcome);
    });
    submitted.await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(1));
    assert_eq!(names(&database).await, ["submitted"]);
}

async fn a_dropped_future_does_not_cut_its_job(test: TestDatabase) {
    let database = migrated(&test).await;
    let (begun, begins) = oneshot::channel();
    let writer = database.clone();
    let write = tokio::spawn(async move {
        writer
            .write(move |session| {
                let _ = begun.send(());
                session.execute("INSERT INTO things (name, count) VALUES ('whole', 1)", &[])
            })
            .await
    });
    begins.await.unwrap();
    write.abort();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while names(&database).await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the job was cut");
        tokio::task::yield_now().await;
    }
}

/// Without the lock, both would read the same count on PostgreSQL.
async fn a_lock_makes_reading_and_writing_one(test: TestDatabase) {
    let database = migrated(&test).await;
    insert(&database, "counter").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let database = database.clone();
        tasks.spawn(async move {
            let add = database.write(|session| {
                session.lock("counter")?;
                let read = "SELECT count FROM things WHERE name = 'counter'";
                let count = session.query_one(read, &[], |row| row.get::<i64>(0))?;
                session.execute("UPDATE things SET count = ?1", &params![count + 1])
            });
            let added: Result<usize, DatabaseError> = add.await;
            added.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let read =
        database.read(|session| session.query_one("SELECT count FROM things", &[], |row| row.get::<i64>(0)));
    assert_eq!(read.await, Ok::<_, DatabaseError>(17));
}

async fn migrations_run_once_and_a_newer_database_is_refused(test: TestDatabase) {
    let database = migrated(&test).await;
    insert(&database, "kept").await.unwrap();
    let grown = [STEPS[0], "ALTER TABLE things ADD COLUMN more INTEGER"];
    database.migrate("things", &grown).await.unwrap();
    database.migrate("things", &grown).await.unwrap();
    assert_eq!(names(&database).await, ["kept"]);
    let older = database.migrate("things", STEPS).await.unwrap_err();
    let newer = DatabaseError::Newer {
        component: "things",
        found: 2,
        known: 1,
    };
    assert_eq!(older, newer);
}

async fn a_closed_database_says_so(test: TestDatabase) {
    let database = migrated(&test).await;
    database.close().await.unwrap();
    assert!(insert(&database, "late").await.unwrap_err().is_closed());
    assert!(database.ping().await.unwrap_err().is_closed());
}

async fn a_read_cannot_write(test: TestDatabase) {
    let database = migrated(&test).await;
    let written: Result<usize, DatabaseError> = database
        .read(|session| session.execute("DELETE FROM things", &[]))
        .await;
    assert!(written.is_err());
}

async fn a_job_runs_once(test: TestDatabase) {
    let database = migrated(&test).await;
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let twice: Result<bool, DatabaseError> = database
        .write(move |_| Ok(seen.swap(true, Ordering::SeqCst)))
        .await;
    assert_eq!((twice, ran.load(Ordering::SeqCst)), (Ok(false), true));
}

/// A service must not change tables under the feet of those that run, nor run on tables that are not up to date.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_checks_the_tables_that_it_does_not_make() {
    use database::{Postgres, PostgresOptions};

    let Some(test) = TestDatabase::postgres().await else {
        return;
    };
    let options = PostgresOptions {
        url: test.url().to_owned(),
        max_connections: 2,
        migrate: false,
    };
    let service = Database::from(Postgres::connect(&options).await.unwrap());
    let behind = |found| DatabaseError::Behind {
        component: "things",
        found,
        known: 1,
    };
    assert_eq!(service.migrate("things", STEPS).await, Err(behind(0)));
    test.database().migrate("other", &[]).await.unwrap();
    assert_eq!(service.migrate("things", STEPS).await, Err(behind(0)));
    let migrated = migrated(&test).await;
    assert_eq!(service.migrate("things", STEPS).await, Ok(()));
    migrated
        .migrate(
            "things",
            &[STEPS[0], "ALTER TABLE things ADD COLUMN more INTEGER"],
        )
        .await
        .unwrap();
    let newer = service.migrate("things", STEPS).await.unwrap_err();
    assert!(
        matches!(
            newer,
            DatabaseError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{newer:?}"
    );
}

/// PostgreSQL keeps nothing of a transaction in which a statement has failed; to say otherwise would lose the rest.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_swallows_a_failed_statement_is_no_success_on_postgresql() {
    use database::PostgresError;

    let Some(test) = TestDatabase::postgres().await else {
        return;
    };
    let database = migrated(&test).await;
    let swallowed: Result<(), DatabaseError> = database
        .write(|session| {
            session.execute("INSERT INTO things (name, count) VALUES ('lost', 1)", &[])?;
            let _ = session.execute("INSERT INTO things (name, count) VALUES ('lost', 1)", &[]);
            Ok(())
        })
        .await;
    let aborted = DatabaseError::from(PostgresError::Aborted(String::new()));
    assert_eq!(
        std::mem::discriminant(&swallowed.unwrap_err()),
        std::mem::discriminant(&aborted)
    );
    assert_eq!(names(&database).await, Vec::<String>::new());
}

/// A reader that gives up at any moment must not leave its transaction behind: whoever gets the connection next would write
/// in it, and be told of success, and nobody would commit it.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_given_up_leaves_no_transaction_behind() {
    use std::time::{Duration, Instant};

    use database::{Postgres, PostgresOptions};

    let Some(test) = TestDatabase::postgres().await else {
        return;
    };
    let watching = migrated(&test).await;
    let options = PostgresOptions {
        url: test.url().to_owned(),
        max_connections: 1,
        migrate: true,
    };
    let database = Database::from(Postgres::connect(&options).await.unwrap());
    for round in 0..200_u64 {
        let reader = database.clone();
        let read = tokio::spawn(async move {
            let one = reader.read(|session| session.query("SELECT 1", &[], |row| row.get::<i64>(0)));
            one.await
        });
        // From before the transaction begins until after it has ended; a timer would be too coarse.
        let given_up = Instant::now() + Duration::from_micros(5 * round);
        while Instant::now() < given_up {
            std::hint::spin_loop();
        }
        read.abort();
        if let Ok(read) = read.await {
            read.unwrap();
        }
        let name = format!("round {round:03}");
        let written = database.write(move |session| {
            let insert = "INSERT INTO things (name, count) VALUES (?1, 1)";
            session.execute(insert, &params![name.as_str()])
        });
        assert_eq!(written.await, Ok(1), "round {round}");
        assert_eq!(names(&watching).await.len() as u64, round + 1, "round {round}");
    }
}

/// Each is told apart, since what is safe differs.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_refuses_is_told_apart() {
    use database::PostgresError::{self, Connection, Contention, Sql, Unavailable, Unique};

    async fn raised(database: &Database, code: &'static str) -> PostgresError {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$");
        let raised: Result<usize, DatabaseError> =
            database.write(move |session| session.execute(&sql, &[])).await;
        match raised.unwrap_err() {
            DatabaseError::Postgres(error) => error,
            other => panic!("{other:?}"),
        }
    }
    let Some(test) = TestDatabase::postgres().await else {
        return;
    };
    let database = test.database().clone();
    for code in ["40001", "40P01", "55P03"] {
        let error = raised(&database, code).await;
        assert!(
            matches!(error, Contention(_)) && error.retryable(),
            "{code}: {error:?}"
        );
    }
    for code in ["57P01", "57P03", "08006", "25P03"] {
        let error = raised(&database, code).await;
        assert!(
            matches!(error, Connection(_)) && error.retryable(),
            "{code}: {error:?}"
        );
    }
    for code in ["53300", "57014", "25006", "58030"] {
        let error = raised(&database, code).await;
        assert!(
            matches!(error, Unavailable { .. }) && error.retryable(),
            "{code}: {error:?}"
        );
    }
    let error = raised(&database, "23505").await;
    assert!(matches!(error, Unique { .. }) && !error.retryable(), "{error:?}");
    let error = raised(&database, "22003").await;
    assert!(matches!(error, Sql { .. }) && !error.retryable(), "{error:?}");
}

/// A restart of the server breaks the connections that rest in the pool; nobody is told of it.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_broke_while_they_rested_cost_nobody_an_error() {
    let Some(test) = TestDatabase::postgres().await else {
        return;
    };
    let database = migrated(&test).await;
    // Several connections, all at rest.
    let reads = (0..5)
        .map(|_| database.read(|session| session.query("SELECT pg_sleep(0.05)::text", &[], |_| Ok(()))));
    for read in futures_util::future::join_all(reads).await {
        let _: Vec<()> = read.map_err(|error: DatabaseError| error).unwrap();
    }
    let other = test.reopen().await;
    let ended: Result<Vec<()>, DatabaseError> = other
        .write(|session| {
            let others = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'";
            session.query(others, &[], |_| Ok(()))
        })
        .await;
    assert!(ended.unwrap().len() >= 2);
    for name in ["one", "two", "three"] {
        assert_eq!(insert(&database, name).await, Ok(1));
    }
}

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::TestDatabase::sqlite()).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(test) = super::TestDatabase::postgres().await {
                    super::$case(test).await;
                }
            })*
        }
    };
}

conformance!(
    values_come_back_as_they_were,
    a_statement_alone_is_durable_and_its_failure_is_told,
    a_failed_job_leaves_nothing,
    a_job_that_panics_harms_nobody,
    a_submitted_job_is_answered_once_it_is_durable,
    a_dropped_future_does_not_cut_its_job,
    a_lock_makes_reading_and_writing_one,
    migrations_run_once_and_a_newer_database_is_refused,
    a_closed_database_says_so,
    a_read_cannot_write,
    a_job_runs_once,
);
