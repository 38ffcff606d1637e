//! Opening connections: permissions and pragmas.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::SqliteError;

/// How long a statement waits for another process (a CLI beside a running server) to release the write lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Distinct statements kept prepared per connection.
const STATEMENT_CACHE: usize = 128;

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// After the WAL has been synced: an acknowledged write survives power loss. For what nobody can rebuild.
    Full,
    /// After the WAL has been written: survives a crash of the process, and the file stays consistent after power
    /// loss, but the last commits may be gone. For what can be derived again.
    Normal,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub synchronous: Synchronous,
    /// Read-only connections, and so concurrent reads; at least one.
    pub readers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            readers: 2,
        }
    }
}

pub(crate) fn writer(path: &Path, synchronous: Synchronous) -> Result<Connection, SqliteError> {
    let fail = |message: String| SqliteError::Open {
        path: path.display().to_string(),
        message,
    };
    create_private(path).map_err(|error| fail(error.to_string()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> Result<Connection, rusqlite::Error> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(rusqlite::Error::InvalidPath(path.to_path_buf()));
        }
        match synchronous {
            // `fullfsync` matters on macOS only, where a plain fsync leaves data in the drive's cache.
            Synchronous::Full => conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON")?,
            Synchronous::Normal => conn.execute_batch("PRAGMA synchronous = NORMAL")?,
        }
        conn.execute_batch(
            "PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -16384;",
        )?;
        // 4 MiB by default; fewer, larger checkpoints write a hot page to the file once instead of many times.
        conn.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        Ok(conn)
    };
    open().map_err(|error| fail(error.to_string()))
}

pub(crate) fn reader(path: &Path) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> Result<Connection, rusqlite::Error> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.execute_batch(
            "PRAGMA query_only = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -4096;",
        )?;
        conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        Ok(conn)
    };
    open().map_err(|error| SqliteError::Open {
        path: path.display().to_string(),
        message: error.to_string(),
    })
}

/// Creates the file readable by its owner alone, and tightens one that isn't; `-wal` and `-shm` take after it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        let file = options.mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    options.open(path)?;
    Ok(())
}
