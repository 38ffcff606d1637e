//! `omisys export-log`, `import-log`, `backup` and `restore`: a log with all that stands beside it, as one file.
//!
//! A backup is an export with the accounts in it, and a manifest that is written last. So one format serves both profiles,
//! and a backup of one can be restored in the other. The keys are not in it: they belong where secrets are kept.

mod backup;
mod export;
mod file;
mod import;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Instant;

use database::{Database, KeptTable};
use event_bus::Checkpoints;
use event_store::ImportError;
use serde_json::{Value, json};

use crate::cli::{self, Profile};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{self, DataDirLock};
pub use backup::{restore, run as backup};
use export::Exported;
use file::{FileError, FileReader, FileWriter};
use import::{BringError, Imported};

const MIGRATE_REMEDY: &str = "run `omisys migrate` first";

/// What a backup keeps beside the log. An export holds the sagas' part.
const TABLES: [KeptTable; 5] = [
    sagas::KEPT[0],
    sagas::KEPT[1],
    sagas::KEPT[2],
    sagas::KEPT[3],
    identity::KEPT[0],
];

/// Runs `omisys export-log`. Works beside a running server.
pub async fn export_log(config: &Config, command: &cli::Transfer, json: bool) -> Result<(), CliError> {
    let started = Instant::now();
    let exported = write(config, &command.file, sagas::KEPT.to_vec()).await?;
    let summary = summary_of(&exported, started);
    let text = format!(
        "{} events and {} receipts of the log {} are in {}",
        exported.counts.events,
        exported.counts.receipts,
        exported.log.log_id,
        command.file.display()
    );
    let to_stdout = command.file.as_os_str() == "-";
    tell(&summary, &text, json, to_stdout);
    Ok(())
}

/// Runs `omisys import-log`.
pub async fn import_log(config: &Config, command: &cli::Transfer, json: bool) -> Result<(), CliError> {
    let started = Instant::now();
    let imported = bring(config, &command.file, None).await?;
    tell_imported(&imported, started, json);
    Ok(())
}

/// Writes the configured profile's log, with the rows of `tables`, to a file.
async fn write(config: &Config, path: &Path, tables: Vec<KeptTable>) -> Result<Exported, CliError> {
    let file = FileWriter::create(path).context(
        &format!("{} could not be made", path.display()),
        "name a file that is not there yet, in a folder that you may write to",
    )?;
    let (database, log) = stores::open_log(config).await?;
    prepare(&database).await?;
    let exported = export::export(&database, &log, tables, file).await;
    exported.context("the log was not written", "mend the cause and run it again")
}

/// Brings the file's log into the configured profile's store, which must be empty. `expected` is the file's hash, where it
/// is known.
async fn bring(config: &Config, path: &Path, expected: Option<String>) -> Result<Imported, CliError> {
    const NO_LOG: &str = "give a file of `omisys export-log`";
    let what = format!("{} could not be read", path.display());
    let mut file = FileReader::open(path).context(&what, NO_LOG)?;
    let header = file.header().context(&what, NO_LOG)?;
    // Held to the end: nobody may serve what is on its way.
    let _lock = match config.profile {
        Profile::Embedded => Some(DataDirLock::take(config)?),
        Profile::Cluster => None,
    };
    let database = match config.profile {
        Profile::Embedded => stores::open_or_make_database(config).await?,
        #[cfg(feature = "cluster")]
        // An import may take longer than what is given to statements of a running service.
        Profile::Cluster => crate::cluster::stores::open_database(config, true).await?,
        #[cfg(not(feature = "cluster"))]
        Profile::Cluster => return Err(stores::without_cluster()),
    };
    prepare(&database).await?;
    let configured = config.shop.currency;
    if let Some(currency) = header
        .currency
        .as_deref()
        .filter(|kept| *kept != configured.code())
    {
        return Err(CliError::usage(
            format!(
                "this log has sold in {currency}, and the configuration says {}",
                configured.code()
            ),
            format!("set shop.currency to {currency}"),
        ));
    }
    let imported = import::import(&database, header, file, expected)
        .await
        .map_err(refused)?;
    stores::fix_currency(&database, configured).await?;
    database.close().await.context(
        "the database did not close",
        "run `omisys doctor`: the log is complete",
    )?;
    Ok(imported)
}

/// Makes the tables that are read or filled.
async fn prepare(database: &Database) -> Result<(), CliError> {
    const WHAT: &str = "the tables could not be made";
    sagas::migrate(database).await.context(WHAT, MIGRATE_REMEDY)?;
    identity::migrate(database).await.context(WHAT, MIGRATE_REMEDY)?;
    Checkpoints::open(database).await.context(WHAT, MIGRATE_REMEDY)?;
    Ok(())
}

fn refused(error: BringError) -> CliError {
    let remedy = match &error {
        BringError::Store(ImportError::NotEmpty(_)) => {
            "name an empty --data-dir, or a database without a log: nothing is ever overwritten"
        }
        BringError::File(FileError::Damaged(_) | FileError::Line { .. }) => {
            "take another copy of the file: nothing of this one is served"
        }
        _ => "mend the cause and run it again: it begins anew, and until then nothing of it is served",
    };
    CliError::failed(format!("the log was not brought in: {error}"), remedy).because(error)
}

fn summary_of(exported: &Exported, started: Instant) -> Value {
    json!({
        "log_id": exported.log.log_id,
        "epoch": exported.log.epoch,
        "head": exported.head,
        "events": exported.counts.events,
        "receipts": exported.counts.receipts,
        "rows": exported.counts.rows,
        "sha256": exported.sha256,
        "bytes": exported.bytes,
        "seconds": started.elapsed().as_secs_f64(),
    })
}

fn tell_imported(imported: &Imported, started: Instant, json: bool) {
    let summary = json!({
        "log_id": imported.log.log_id,
        "epoch": imported.log.epoch,
        "head": imported.head,
        "events": imported.counts.events,
        "receipts": imported.counts.receipts,
        "rows": imported.counts.rows,
        "sagas_go_on_after": imported.sagas,
        "seconds": started.elapsed().as_secs_f64(),
    });
    let text = format!(
        "{} events and {} receipts are in, as epoch {} of the log {}; put the keys in their place before you serve it",
        imported.counts.events, imported.counts.receipts, imported.log.epoch, imported.log.log_id
    );
    tell(&summary, &text, json, false);
}

/// The summary, on standard error where the log itself goes to standard output.
fn tell(summary: &Value, text: &str, json: bool, to_stderr: bool) {
    match (json, to_stderr) {
        (true, true) => eprintln!("{summary}"),
        (true, false) => println!("{summary}"),
        (false, true) => eprintln!("{text}"),
        (false, false) => println!("{text}"),
    }
}
