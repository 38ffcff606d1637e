//! `omisys schemas`: what is said about events, for other programs and their tools.

use std::fs;
use std::path::Path;

use event_schemas::schemas;
use serde_json::json;

use crate::cli::Schemas;
use crate::error::{CliError, Context};

/// Runs the subcommand.
pub fn run(command: &Schemas, json: bool) -> Result<(), CliError> {
    match command {
        Schemas::Export { dir } => export(dir, json),
    }
}

fn export(dir: &Path, json: bool) -> Result<(), CliError> {
    if dir.exists() && !dir.is_dir() {
        return Err(CliError::usage(
            format!("{} is no folder", dir.display()),
            "name a folder; it is made if it is not there",
        ));
    }
    let files = schemas::files();
    for (name, text) in &files {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .context(
                &format!("{} could not be written", path.display()),
                "check the folder's permissions and the space left",
            )?;
    }
    let names: Vec<&String> = files.keys().collect();
    if json {
        println!("{}", json!({ "dir": dir, "files": names }));
    } else {
        for name in names {
            println!("{}", dir.join(name).display());
        }
    }
    Ok(())
}
