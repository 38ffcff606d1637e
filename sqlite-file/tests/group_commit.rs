//! What the writer promises to those who queue jobs.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sqlite_file::{Connection, MAX_JOBS_PER_COMMIT, Options, QUEUE_JOBS, SqliteError, SqliteFile};
use tempfile::TempDir;

fn open() -> (TempDir, SqliteFile) {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(dir.path().join("test.db"), Options::default()).unwrap();
    file.migrate(
        "test",
        &["CREATE TABLE t (n INTEGER PRIMARY KEY, batch INTEGER) STRICT"],
    )
    .unwrap();
    (dir, file)
}

fn insert(conn: &Connection, n: i64) -> Result<(), SqliteError> {
    conn.prepare_cached("INSERT INTO t (n) VALUES (?1)")?
        .execute([n])?;
    Ok(())
}

async fn numbers(file: &SqliteFile) -> Vec<i64> {
    file.read(|conn| {
        let mut statement = conn.prepare_cached("SELECT n FROM t ORDER BY n")?;
        let rows = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()?;
        Ok::<_, SqliteError>(rows)
    })
    .await
    .unwrap()
}

/// Occupies the writer until the returned sender is dropped.
fn hold_writer(file: &SqliteFile) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    file.submit(
        move |_| {
            started.send(()).unwrap();
            let _ = held.recv();
            Ok::<_, SqliteError>(())
        },
        |_| {},
    )
    .unwrap();
    running.recv_timeout(Duration::from_secs(10)).unwrap();
    release
}

#[tokio::test]
async fn what_queued_up_shares_one_commit_in_order() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    let (done, answers) = mpsc::channel();
    for n in 0..500_i64 {
        let done = done.clone();
        file.submit(
            move |conn| {
                insert(conn, n)?;
                // Uncommitted rows of the same transaction are visible to later jobs.
                Ok::<i64, SqliteError>(conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
            },
            move |outcome| done.send((n, outcome)).unwrap(),
        )
        .unwrap();
    }
    assert_eq!(
        numbers(&file).await,
        Vec::<i64>::new(),
        "nothing is visible before the commit"
    );
    assert!(
        answers.try_recv().is_err(),
        "nothing is answered before the commit"
    );
    drop(release);
    for n in 0..500_i64 {
        assert_eq!(
            answers.recv_timeout(Duration::from_secs(10)).unwrap(),
            (n, Ok(n + 1))
        );
        if n == 0 {
            assert_eq!(numbers(&file).await.len(), 500, "all were committed together");
        }
    }
}

#[tokio::test]
async fn an_error_rolls_back_its_own_writes_only() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    let (a, b, c) = (
        file.write(|conn| insert(conn, 1)),
        file.write(|conn| {
            insert(conn, 2)?;
            Err::<(), _>(SqliteError::Closed)
        }),
        file.write(|conn| insert(conn, 3)),
    );
    let (a, b, c, ()) = tokio::join!(a, b, c, async { drop(release) });
    assert_eq!((a, b, c), (Ok(()), Err(SqliteError::Closed), Ok(())));
    assert_eq!(numbers(&file).await, [1, 3]);
}

#[tokio::test]
async fn a_panic_costs_its_own_job_only() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    let good = file.write(|conn| insert(conn, 1));
    let bad = file.write(|conn| -> Result<(), SqliteError> {
        insert(conn, 2)?;
        panic!("planted");
    });
    let (good, bad, ()) = tokio::join!(good, bad, async { drop(release) });
    assert_eq!((good, bad), (Ok(()), Err(SqliteError::Panicked)));
    assert_eq!(
        file.write(|conn| insert(conn, 3)).await,
        Ok(()),
        "the writer lives on"
    );
    assert_eq!(numbers(&file).await, [1, 3]);
}

#[tokio::test]
async fn a_panic_without_savepoint_aborts_the_batch_and_not_the_writer() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    let (done, answers) = mpsc::channel();
    let other = done.clone();
    file.submit(
        |conn| insert(conn, 1),
        move |outcome| other.send(outcome).unwrap(),
    )
    .unwrap();
    file.try_reserve().unwrap().submit_raw(
        |conn| -> Result<(), SqliteError> {
            insert(conn, 2)?;
            panic!("planted");
        },
        move |outcome| done.send(outcome).unwrap(),
    );
    drop(release);
    for _ in 0..2 {
        assert_eq!(
            answers.recv_timeout(Duration::from_secs(10)).unwrap(),
            Err(SqliteError::Aborted)
        );
    }
    assert_eq!(file.write(|conn| insert(conn, 3)).await, Ok(()));
    assert_eq!(numbers(&file).await, [3]);
}

#[tokio::test]
async fn a_failed_commit_is_everyones_failure_refusals_included() {
    let (_dir, file) = open();
    file.migrate(
        "child",
        &["CREATE TABLE child (t INTEGER NOT NULL REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED) STRICT"],
    )
    .unwrap();
    let release = hold_writer(&file);
    let writes = file.write(|conn| insert(conn, 1));
    let refusal = file.write(|conn| insert(conn, 1));
    // The orphan is noticed by COMMIT, not by the statement.
    let orphan = file.write(|conn| {
        conn.execute("INSERT INTO child VALUES (99)", [])?;
        Ok::<_, SqliteError>(())
    });
    let (writes, refusal, orphan, ()) = tokio::join!(writes, refusal, orphan, async { drop(release) });
    for outcome in [writes, refusal, orphan] {
        assert!(matches!(outcome, Err(SqliteError::Commit { .. })), "{outcome:?}");
    }
    assert_eq!(file.write(|conn| insert(conn, 4)).await, Ok(()));
    assert_eq!(numbers(&file).await, [4]);
}

#[tokio::test]
async fn a_job_that_ends_the_transaction_is_caught() {
    let (_dir, file) = open();
    let outcome = file
        .write(|conn| {
            conn.execute_batch("ROLLBACK")?;
            Ok::<_, SqliteError>(())
        })
        .await;
    assert_eq!(outcome, Err(SqliteError::Aborted));
    assert_eq!(file.write(|conn| insert(conn, 1)).await, Ok(()));
}

#[tokio::test]
async fn a_full_queue_says_so_and_write_waits() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    let mut queued = 0_i64;
    let full = loop {
        let n = queued;
        match file.submit(move |conn| insert(conn, n), |_| {}) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (full, queued),
        (SqliteError::QueueFull, i64::try_from(QUEUE_JOBS).unwrap())
    );
    let waiting = tokio::spawn({
        let file = file.clone();
        async move { file.write(move |conn| insert(conn, queued)).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(release);
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert_eq!(numbers(&file).await.len(), QUEUE_JOBS + 1);
}

#[tokio::test]
async fn close_drains_what_is_queued_and_refuses_the_rest() {
    let (dir, file) = open();
    let release = hold_writer(&file);
    for n in 0..100 {
        file.submit(move |conn| insert(conn, n), |_| {}).unwrap();
    }
    let (closed, ()) = tokio::join!(file.close(), async { drop(release) });
    closed.unwrap();
    file.close().await.unwrap();
    assert_eq!(
        file.write(|conn| insert(conn, 100)).await,
        Err(SqliteError::Closed)
    );
    assert_eq!(
        file.submit(|conn| insert(conn, 100), |_| {}),
        Err(SqliteError::Closed)
    );
    let read = file.read(|_| Ok::<_, SqliteError>(())).await;
    assert_eq!(read, Err(SqliteError::Closed));
    let again = SqliteFile::open(dir.path().join("test.db"), Options::default()).unwrap();
    assert_eq!(numbers(&again).await.len(), 100);
}

#[tokio::test]
async fn what_slips_in_behind_a_close_is_answered_too() {
    let (_dir, file) = open();
    let release = hold_writer(&file);
    // Fills the held transaction, so that the close is the first thing the writer sees after it.
    for n in 1..MAX_JOBS_PER_COMMIT {
        file.submit(move |_| Ok::<_, SqliteError>(n), |_| {}).unwrap();
    }
    let closing = tokio::spawn({
        let file = file.clone();
        async move { file.close().await }
    });
    tokio::task::yield_now().await;
    let (done, answers) = mpsc::channel();
    for n in 0..10 {
        let done = done.clone();
        file.submit(
            move |conn| insert(conn, n),
            move |outcome| done.send(outcome).unwrap(),
        )
        .unwrap();
    }
    drop((release, done));
    closing.await.unwrap().unwrap();
    assert_eq!(answers.iter().collect::<Vec<_>>(), vec![Ok(()); 10]);
}

#[tokio::test]
async fn dropping_the_last_handle_drains_too() {
    let (dir, file) = open();
    for n in 0..100 {
        file.submit(move |conn| insert(conn, n), |_| {}).unwrap();
    }
    drop(file);
    let again = SqliteFile::open(dir.path().join("test.db"), Options::default()).unwrap();
    assert_eq!(numbers(&again).await.len(), 100);
}

#[tokio::test]
async fn a_reader_sees_one_snapshot_and_cannot_write() {
    let (_dir, file) = open();
    let refused = file.read(|conn| insert(conn, 1)).await;
    assert!(matches!(refused, Err(SqliteError::Sql { .. })), "{refused:?}");

    let (wrote, written) = mpsc::channel();
    let (signal, began) = tokio::sync::oneshot::channel();
    let counts = tokio::spawn({
        let file = file.clone();
        async move {
            file.read(move |conn| {
                let count = || conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
                let before = count()?;
                signal.send(()).unwrap();
                written.recv_timeout(Duration::from_secs(10)).unwrap();
                Ok::<_, SqliteError>((before, count()?))
            })
            .await
        }
    });
    began.await.unwrap();
    file.write(|conn| insert(conn, 1)).await.unwrap();
    wrote.send(()).unwrap();
    assert_eq!(counts.await.unwrap(), Ok((0, 0)));
    assert_eq!(numbers(&file).await, [1]);
}

#[tokio::test]
async fn a_panicking_reader_gives_its_connection_back() {
    let (_dir, file) = open();
    for _ in 0..5 {
        let outcome = file
            .read(|_| -> Result<(), SqliteError> { panic!("planted") })
            .await;
        assert_eq!(outcome, Err(SqliteError::Panicked));
    }
    assert_eq!(numbers(&file).await, Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_readers_cannot_make_the_wal_grow_without_bound() {
    let (dir, file) = open();
    file.migrate("blob", &["CREATE TABLE b (x BLOB) STRICT"]).unwrap();
    let wal = dir.path().join("test.db-wal");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Two readers whose transactions overlap: at no moment is the WAL unread.
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (file, stop) = (file.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    file.read(|conn| {
                        conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))?;
                        let until = Instant::now() + Duration::from_millis(5);
                        while Instant::now() < until {
                            std::thread::yield_now();
                        }
                        Ok::<_, SqliteError>(())
                    })
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    let mut peak = 0;
    for _ in 0..200 {
        file.write(|conn| {
            conn.prepare_cached("INSERT INTO b VALUES (zeroblob(1048576))")?
                .execute([])?;
            Ok::<_, SqliteError>(())
        })
        .await
        .unwrap();
        peak = peak.max(std::fs::metadata(&wal).unwrap().len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(
        peak < 100 << 20,
        "the WAL grew to {peak} bytes while 200 MiB were written"
    );
}
