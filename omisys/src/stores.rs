//! The stores of either profile, and how they are opened.

use std::fs::File;
use std::path::{Path, PathBuf};

use database::{Database, DatabaseError, params};
use event_schemas::{Clock, Currency};
use event_store::{Log, LogOptions, ReadError};
use identity::KeySource;
use projections::Views;
use sqlite_file::{Options, SqliteFile, Synchronous};
use zeroize::Zeroizing;

use crate::cli::Profile;
use crate::config::Config;
use crate::error::{CliError, Context};

/// Holds the keys as JSON where they come from a secret store instead of a file.
const KEYS_VARIABLE: &str = "OMISYS_KEYS";

/// The files in the data directory.
pub struct Files<'a>(&'a Path);

impl<'a> Files<'a> {
    /// Of this configuration.
    pub fn of(config: &'a Config) -> Self {
        Self(&config.data_dir)
    }

    /// Events, receipts, timers, effects, secrets, accounts: what must not be lost.
    pub fn log(&self) -> PathBuf {
        self.0.join("log.db")
    }

    /// Read models: derived, can be deleted.
    pub fn views(&self) -> PathBuf {
        self.0.join("views.db")
    }

    /// What the sandbox provider charged: the provider's own memory, not OMISYS's.
    pub fn sandbox(&self) -> PathBuf {
        self.0.join("sandbox.db")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("omisys.lock")
    }
}

/// Held by the one process that runs the system on a data directory; freed when it ends, however it ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Whether a process runs the system on the directory.
    pub fn is_taken(config: &Config) -> bool {
        let file = File::open(Files::of(config).lock());
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
    }

    /// Makes the directory if it is missing, and takes the lock.
    pub fn take(config: &Config) -> Result<Self, CliError> {
        let directory = config.data_dir.display();
        let remedy = "name a directory that you may write to with --data-dir";
        std::fs::create_dir_all(&config.data_dir)
            .context(&format!("{directory} could not be made"), remedy)?;
        let file = File::create(Files::of(config).lock())
            .context(&format!("{directory} cannot be written to"), remedy)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(CliError::failed(
                format!("another omisys process runs on {directory}"),
                "stop it, or choose another --data-dir",
            )),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(CliError::failed(format!("{directory} cannot be locked: {error}"), remedy).because(error))
            }
        }
    }
}

/// Opens `log.db`, which must be there.
pub fn open_existing_log_file(config: &Config) -> Result<SqliteFile, CliError> {
    let path = Files::of(config).log();
    if !path.is_file() {
        return Err(CliError::failed(
            format!("there is no log in {}", config.data_dir.display()),
            "name the right directory with --data-dir, or begin with `omisys serve --demo`",
        ));
    }
    open_log_file(config)
}

/// Opens `log.db`, making it if it is missing.
pub fn open_log_file(config: &Config) -> Result<SqliteFile, CliError> {
    open_file(&Files::of(config).log(), Synchronous::Full)
}

/// Opens one file of the data directory.
pub fn open_file(path: &Path, synchronous: Synchronous) -> Result<SqliteFile, CliError> {
    let options = Options {
        synchronous,
        ..Options::default()
    };
    SqliteFile::open(path, options).context(
        &format!("{} could not be opened", path.display()),
        "run `omisys doctor`",
    )
}

/// Signing, refresh and fingerprint keys: from the variable `OMISYS_KEYS` if it is set, else from their directory.
pub fn key_source(config: &Config) -> KeySource {
    match std::env::var(KEYS_VARIABLE) {
        Ok(keys) => KeySource::Inline(Zeroizing::new(keys)),
        Err(_) => KeySource::Directory(
            config
                .keys
                .directory
                .clone()
                .unwrap_or_else(|| config.data_dir.clone()),
        ),
    }
}

/// Opens the configured profile's database, which must be there.
pub async fn open_existing_database(config: &Config) -> Result<Database, CliError> {
    match config.profile {
        Profile::Embedded => Ok(open_existing_log_file(config)?.into()),
        #[cfg(feature = "cluster")]
        Profile::Cluster => crate::cluster::stores::open_database(config, false).await,
        #[cfg(not(feature = "cluster"))]
        Profile::Cluster => Err(without_cluster()),
    }
}

/// As [`open_existing_database`], making it if it is missing.
pub async fn open_or_make_database(config: &Config) -> Result<Database, CliError> {
    match config.profile {
        Profile::Embedded => {
            let directory = config.data_dir.display();
            std::fs::create_dir_all(&config.data_dir).context(
                &format!("{directory} could not be made"),
                "name a directory that you may write to with --data-dir",
            )?;
            Ok(open_log_file(config)?.into())
        }
        Profile::Cluster => open_existing_database(config).await,
    }
}

/// This binary cannot do what the configuration asks for.
#[cfg(not(feature = "cluster"))]
pub fn without_cluster() -> CliError {
    CliError::usage(
        "this binary was built without the cluster profile",
        "build it with `cargo build --release --features cluster`",
    )
}

/// Opens the log, which must be there, and the database it is in.
pub async fn open_log(config: &Config) -> Result<(Database, Log), CliError> {
    let database = open_existing_database(config).await?;
    let log = open_log_in(&database).await?;
    Ok((database, log))
}

/// Opens the log in `database`.
pub async fn open_log_in(database: &Database) -> Result<Log, CliError> {
    let options = LogOptions {
        clock: Clock::System,
        ..LogOptions::default()
    };
    let remedy = |error: &ReadError| match error {
        ReadError::Unfinished => "run `omisys import-log` or `omisys restore` again: it begins anew",
        _ => "run `omisys doctor`",
    };
    Log::open(database, options).await.map_err(|error| {
        CliError::failed(format!("the log could not be opened: {error}"), remedy(&error)).because(error)
    })
}

const SHOP_STEPS: &[&str] = &["CREATE TABLE shop (currency TEXT NOT NULL) STRICT"];

/// The currency that the shop has sold in; none if it has not been opened yet.
pub async fn currency(database: &Database) -> Result<Option<String>, DatabaseError> {
    database.migrate("shop", SHOP_STEPS).await?;
    let read = database.read(|session| session.query_opt("SELECT currency FROM shop", &[], |row| row.get(0)));
    read.await
}

/// The configured profile's read models, which must be there.
pub async fn open_views(config: &Config, database: &Database, log: &Log) -> Result<Views, CliError> {
    match config.profile {
        Profile::Embedded => {
            let path = Files::of(config).views();
            if !path.is_file() {
                return Err(CliError::failed(
                    "there are no read models",
                    "start `omisys serve` once: it folds them",
                ));
            }
            let file = open_file(&path, Synchronous::Normal)?;
            Views::open_sqlite(&file, log.identity())
                .await
                .context("the read models could not be opened", "run `omisys doctor`")
        }
        #[cfg(feature = "cluster")]
        Profile::Cluster => crate::cluster::stores::views(config, database, log).await,
        #[cfg(not(feature = "cluster"))]
        Profile::Cluster => {
            // It could not even be opened.
            let _ = database;
            Err(without_cluster())
        }
    }
}

/// Keeps the shop's currency on the first start; later a configuration with another one is refused, since one log
/// holds one currency.
pub async fn fix_currency(database: &Database, currency: Currency) -> Result<(), CliError> {
    const WHAT: &str = "the shop's currency could not be read";
    database
        .migrate("shop", SHOP_STEPS)
        .await
        .context(WHAT, "run `omisys doctor`")?;
    let fixed: Result<String, DatabaseError> = database
        .write(move |session| {
            session.lock("shop")?;
            let sql = "INSERT INTO shop SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM shop)";
            session.execute(sql, &params![currency.code()])?;
            session.query_one("SELECT currency FROM shop", &[], |row| row.get(0))
        })
        .await;
    let fixed = fixed.context(WHAT, "run `omisys doctor`")?;
    if fixed == currency.code() {
        return Ok(());
    }
    Err(CliError::usage(
        format!(
            "the configuration is wrong: shop.currency: this shop has sold in {fixed}, not in {}",
            currency.code()
        ),
        format!("set shop.currency to {fixed}, or begin another shop with another --data-dir"),
    ))
}
