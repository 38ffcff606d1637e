//! `omisys keys`: the keys that sign tokens and fingerprint requests.

use identity::{KeyInfo, Purpose, Start};

use crate::accounts;
use crate::cli::Keys;
use crate::config::Config;
use crate::error::{CliError, Context};

/// Runs the subcommand. A running server takes the change over within its refresh interval.
pub async fn run(config: &Config, command: &Keys, json: bool) -> Result<(), CliError> {
    let identity = accounts::open(config).await?;
    match command {
        Keys::List => {}
        Keys::Rotate => {
            identity
                .rotate_key(Purpose::Signing, Start::WhenPublished)
                .context(
                    "the signing key could not be rotated",
                    "keys from the environment are rotated there",
                )?;
        }
        Keys::Retire { kid } => {
            identity.retire_key(kid).context(
                "the key could not be retired",
                "run `omisys keys list` for the ids",
            )?;
        }
    }
    identity.keys().iter().try_for_each(|key| show(key, json))
}

fn show(key: &KeyInfo, json: bool) -> Result<(), CliError> {
    if json {
        let line =
            serde_json::to_string(key).context("the key could not be shown", "report this as a bug")?;
        println!("{line}");
        return Ok(());
    }
    let state = match key {
        KeyInfo { revoked: true, .. } => "revoked",
        KeyInfo { current: true, .. } => "current",
        KeyInfo {
            retired_at: Some(_), ..
        } => "retired",
        _ => "published",
    };
    println!(
        "{}  {:<12}  {state:<9}  made {}  active from {}",
        key.id,
        key.purpose.as_str(),
        key.created_at,
        key.active_from
    );
    Ok(())
}
