//! The writer thread: group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::job::{Job, Ran};
use crate::{MAX_JOBS_PER_COMMIT, SqliteError, open};

/// Overlapping readers keep SQLite's own (passive) checkpoints from ever starting the WAL over. Beyond this size the
/// writer insists.
const WAL_LIMIT_BYTES: u64 = 64 << 20;

/// How far the WAL may grow between two attempts that readers defeated.
const WAL_RETRY_BYTES: u64 = 16 << 20;

/// How long an insisting checkpoint waits for readers; writes stand still meanwhile.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(200);

pub(crate) enum Message {
    Job(Box<dyn Job>),
    Close,
}

pub(crate) fn spawn(
    conn: Connection,
    path: &Path,
    queue: mpsc::Receiver<Message>,
) -> Result<JoinHandle<()>, SqliteError> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let writer = Writer {
        conn,
        queue,
        wal: PathBuf::from(wal),
        next_checkpoint_bytes: WAL_LIMIT_BYTES,
        batch: Vec::with_capacity(MAX_JOBS_PER_COMMIT),
    };
    let name = path
        .file_name()
        .map_or_else(|| "sqlite".into(), |name| name.to_string_lossy().into_owned());
    std::thread::Builder::new()
        .name(format!("write {name}"))
        .spawn(move || writer.run())
        .map_err(|error| SqliteError::Open {
            path: path.display().to_string(),
            message: error.to_string(),
        })
}

struct Writer {
    conn: Connection,
    queue: mpsc::Receiver<Message>,
    wal: PathBuf,
    next_checkpoint_bytes: u64,
    /// The jobs of the open transaction; kept for its allocation.
    batch: Vec<Box<dyn Job>>,
}

impl Writer {
    fn run(mut self) {
        while let Some(message) = self.queue.blocking_recv() {
            match message {
                Message::Job(first) => self.transaction(first),
                Message::Close => self.queue.close(),
            }
            self.bound_wal();
        }
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the WAL was not folded into the file at close");
        }
    }

    /// Runs `first` and whatever else is queued in one transaction, commits, and answers.
    fn transaction(&mut self, first: Box<dyn Job>) {
        let mut failure = self
            .execute("BEGIN IMMEDIATE")
            .map_err(|error| SqliteError::commit(&error))
            .err();
        let mut next = Some(first);
        let mut yielded = false;
        while let Some(mut job) = next.take() {
            if failure.is_none() {
                failure = self.run_job(job.as_mut()).err();
            }
            self.batch.push(job);
            if failure.is_none() && self.batch.len() < MAX_JOBS_PER_COMMIT {
                next = self.next_queued();
                // More than one job: there is a crowd. If it waits for a processor, let it come along; if none is
                // short, this returns at once.
                if next.is_none() && !yielded && self.batch.len() > 1 {
                    yielded = true;
                    std::thread::yield_now();
                    next = self.next_queued();
                }
            }
        }
        if failure.is_none() {
            failure = self
                .execute("COMMIT")
                .map_err(|error| SqliteError::commit(&error))
                .err();
        }
        if let Some(error) = &failure {
            tracing::error!(%error, jobs = self.batch.len(), "a transaction was rolled back");
            self.roll_back();
        }
        for job in self.batch.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| job.finish(failure.as_ref()))).is_err() {
                tracing::error!("a job's completion panicked");
            }
        }
    }

    fn next_queued(&mut self) -> Option<Box<dyn Job>> {
        loop {
            match self.queue.try_recv() {
                Ok(Message::Job(job)) => return Some(job),
                Ok(Message::Close) => self.queue.close(),
                Err(_) => return None,
            }
        }
    }

    /// An error here is the transaction's: the job's own result waits inside the job.
    fn run_job(&self, job: &mut dyn Job) -> Result<(), SqliteError> {
        let savepoint = job.savepoint();
        if savepoint {
            self.execute("SAVEPOINT job")?;
        }
        let ran = job.run(&self.conn);
        // A full disk or an I/O error makes SQLite roll back everything by itself, and a job that says COMMIT breaks
        // the rules; either way what came before in this batch is not ours to acknowledge any more.
        if self.conn.is_autocommit() {
            return Err(SqliteError::Aborted);
        }
        match (ran, savepoint) {
            (Ran::Ok, true) => self.execute("RELEASE job")?,
            (Ran::Ok | Ran::Err, false) => {}
            (Ran::Err | Ran::Panicked, true) => {
                self.execute("ROLLBACK TO job")?;
                self.execute("RELEASE job")?;
            }
            // What it had written by then is anyone's guess.
            (Ran::Panicked, false) => return Err(SqliteError::Aborted),
        }
        Ok(())
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            // The next BEGIN fails too, so no later job can be acknowledged on top of this.
            tracing::error!(%error, "rollback failed");
        }
    }

    fn execute(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn bound_wal(&mut self) {
        let Ok(bytes) = std::fs::metadata(&self.wal).map(|file| file.len()) else {
            return;
        };
        if bytes < self.next_checkpoint_bytes {
            return;
        }
        self.next_checkpoint_bytes = match self.checkpoint() {
            Ok(true) => WAL_LIMIT_BYTES,
            Ok(false) => {
                tracing::warn!(bytes, "a long read keeps the WAL from starting over");
                bytes + WAL_RETRY_BYTES
            }
            Err(error) => {
                tracing::error!(%error, bytes, "checkpoint failed");
                bytes + WAL_RETRY_BYTES
            }
        };
    }

    /// Copies the WAL into the file and truncates it; `false` when a reader stood in the way.
    fn checkpoint(&self) -> Result<bool, rusqlite::Error> {
        self.conn.busy_timeout(CHECKPOINT_WAIT)?;
        let busy: Result<bool, _> = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        self.conn.busy_timeout(open::BUSY_TIMEOUT)?;
        busy.map(|busy| !busy)
    }
}
