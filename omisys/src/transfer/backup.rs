//! A folder with a log and a manifest that says that it is all there.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use event_schemas::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::file::{create_private, sync_directory_of};
use super::{TABLES, bring, summary_of, tell, tell_imported, write};
use crate::cli;
use crate::config::Config;
use crate::error::{CliError, Context};

const FORMAT: &str = "omisys-backup";
const VERSION: u32 = 1;
const LOG: &str = "log.ndjson.gz";
const MANIFEST: &str = "manifest.json";

/// Written last: a folder without it is no backup.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    log_id: Uuid,
    epoch: u64,
    head: Position,
    file: String,
    /// Of the lines before the last one, uncompressed: as the file itself says.
    sha256: String,
}

/// Runs `omisys backup`. Works beside a running server.
pub async fn run(config: &Config, command: &cli::BackupDir, json: bool) -> Result<(), CliError> {
    let started = Instant::now();
    let directory = &command.directory;
    make(directory).context(
        &format!("{} could not be made", directory.display()),
        "name a folder that is empty or not there yet, in one that you may write to",
    )?;
    let exported = write(config, &directory.join(LOG), TABLES.to_vec()).await?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        log_id: exported.log.log_id,
        epoch: exported.log.epoch,
        head: exported.head,
        file: LOG.to_owned(),
        sha256: exported.sha256.clone(),
    };
    sign(directory, &manifest).context(
        "the manifest could not be written",
        "mend the cause and make another backup: this one is not complete",
    )?;
    let text = format!(
        "{} events of the log {} are in {}; keep the keys elsewhere: they are not in it",
        exported.counts.events,
        exported.log.log_id,
        directory.display()
    );
    tell(&summary_of(&exported, started), &text, json, false);
    Ok(())
}

/// Runs `omisys restore`.
pub async fn restore(config: &Config, command: &cli::BackupDir, json: bool) -> Result<(), CliError> {
    let started = Instant::now();
    let path = command.directory.join(MANIFEST);
    let unfit = |reason: String| {
        CliError::failed(
            format!("{} is no finished backup: {reason}", command.directory.display()),
            "name the folder that `omisys backup` has made",
        )
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unfit(format!("{MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| unfit(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT || manifest.version != VERSION || manifest.file != LOG {
        return Err(unfit("its manifest is of another program or version".to_owned()));
    }
    let imported = bring(config, &command.directory.join(LOG), Some(manifest.sha256)).await?;
    tell_imported(&imported, started, json);
    Ok(())
}

/// A folder of its own, for its owner alone.
fn make(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::read_dir(directory)?.next().is_some() {
                return Err(error);
            }
        }
        made => made?,
    }
    sync_directory_of(directory)
}

fn sign(directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let (path, part) = (directory.join(MANIFEST), directory.join("manifest.json.part"));
    let mut file = create_private(&part)?;
    file.write_all(serde_json::to_string_pretty(manifest)?.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(part, &path)?;
    sync_directory_of(&path)
}
