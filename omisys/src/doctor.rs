//! `omisys doctor`: what is wrong, and how to mend it.

use std::net::TcpListener;
use std::path::Path;

use event_schemas::{Clock, Timestamp};
use identity::{Identity, KeySource};
use serde_json::json;

use crate::accounts;
use crate::cli::{Doctor, Profile};
use crate::config::Config;
use crate::error::CliError;
use crate::stores::{DataDirLock, Files, key_source, open_log};

/// This release was made after it: a clock before it is wrong.
const RELEASED: &str = "2026-01-01T00:00:00Z";

/// One look at one part.
pub struct Finding {
    check: &'static str,
    outcome: Outcome,
}

/// What is well, or what is wrong and how to mend it.
pub type Outcome = Result<String, (String, &'static str)>;

/// What was found at `check`.
pub fn finding(check: &'static str, outcome: Outcome) -> Finding {
    Finding { check, outcome }
}

/// Runs the subcommand; an ill finding is an error. Changes no data that is there.
pub async fn run(config: &Config, command: &Doctor, json: bool) -> Result<(), CliError> {
    let mut findings = vec![
        finding("configuration", Ok("valid".to_owned())),
        finding("clock", clock(Clock::System.now())),
    ];
    findings.extend(match config.profile {
        Profile::Embedded => {
            let listen = command.listen.unwrap_or(config.gateway.listen);
            let served = config.data_dir.exists()
                && DataDirLock::take(config).is_err_and(|error| error.what.starts_with("another"));
            vec![
                finding("data directory", directory(config)),
                finding("port", port(listen, served)),
                finding("log", log(config).await),
                finding("keys and accounts", people(config).await),
            ]
        }
        #[cfg(feature = "cluster")]
        Profile::Cluster => crate::cluster::examine(config).await,
        #[cfg(not(feature = "cluster"))]
        Profile::Cluster => return Err(crate::stores::without_cluster()),
    });
    let ill = findings.iter().filter(|finding| finding.outcome.is_err()).count();
    if json {
        let rows: Vec<_> = findings
            .iter()
            .map(|Finding { check, outcome }| match outcome {
                Ok(detail) => json!({ "check": check, "ok": true, "detail": detail }),
                Err((detail, remedy)) => {
                    json!({ "check": check, "ok": false, "detail": detail, "remedy": remedy })
                }
            })
            .collect();
        println!(
            "{}",
            json!({ "ok": ill == 0, "version": env!("CARGO_PKG_VERSION"), "checks": rows })
        );
    } else {
        println!("omisys {}", env!("CARGO_PKG_VERSION"));
        for Finding { check, outcome } in &findings {
            match outcome {
                Ok(detail) => println!("  ok     {check}: {detail}"),
                Err((detail, remedy)) => println!("  WRONG  {check}: {detail}\n         try: {remedy}"),
            }
        }
    }
    if ill == 0 {
        return Ok(());
    }
    Err(CliError::failed(
        format!("{ill} checks failed"),
        "mend what is marked above",
    ))
}

fn clock(now: Timestamp) -> Outcome {
    let released: Timestamp = RELEASED.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    if now < released {
        return Err((
            format!("it says {now}"),
            "set the clock, and keep it with NTP: deadlines and tokens depend on it",
        ));
    }
    Ok(now.to_string())
}

fn directory(config: &Config) -> Outcome {
    let path = &config.data_dir;
    if !path.exists() {
        return Ok(format!("{} will be made on the first start", path.display()));
    }
    if let Some(open) = readable_by_others(path) {
        return Err((
            format!("{open} can be read by other users"),
            "chmod 600 that file",
        ));
    }
    match DataDirLock::take(config) {
        Ok(_) => Ok(format!("{} is free and can be written to", path.display())),
        Err(error) if error.what.starts_with("another") => {
            Ok(format!("{} is in use by a running server", path.display()))
        }
        Err(error) => Err((
            error.what,
            "name a directory that you may write to with --data-dir",
        )),
    }
}

/// The first file with secrets that others may read.
fn readable_by_others(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    ["log.db", "keys.json"]
        .into_iter()
        .map(|name| path.join(name))
        .find_map(|file| {
            let mode = std::fs::metadata(&file).ok()?.permissions().mode();
            (mode & 0o077 != 0).then(|| file.display().to_string())
        })
}

/// `served`: a server runs on the data directory, and most likely it is what has the port.
fn port(listen: std::net::SocketAddr, served: bool) -> Outcome {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(format!("{listen} is free")),
        Err(_) if served => Ok(format!(
            "{listen} is in use, and a server runs on the data directory"
        )),
        Err(error) => Err((
            format!("{listen}: {error}"),
            "stop what uses it, or choose another with --listen",
        )),
    }
}

async fn log(config: &Config) -> Outcome {
    if !Files::of(config).log().exists() {
        return Ok("none yet".to_owned());
    }
    let (_, log) = open_log(config)
        .await
        .map_err(|error| (error.what, "restore the file from a backup, or upgrade omisys"))?;
    let head = log
        .head()
        .await
        .map_err(|error| (error.to_string(), "restore the file from a backup"))?;
    Ok(format!("{head} events, epoch {}", log.identity().epoch))
}

async fn people(config: &Config) -> Outcome {
    if !Files::of(config).log().exists() {
        return Ok("none yet".to_owned());
    }
    if matches!(key_source(config), KeySource::Directory(_))
        && !config
            .keys
            .directory
            .as_ref()
            .unwrap_or(&config.data_dir)
            .join("keys.json")
            .exists()
    {
        let lost = "the log is there and its keys.json is not: new keys would sign everybody out and answer old \
                    idempotency keys with 422";
        return Err((
            lost.to_owned(),
            "restore keys.json from its backup, or set OMISYS_KEYS",
        ));
    }
    let identity = accounts::open(config)
        .await
        .map_err(|error| (error.what, "restore the keys file or OMISYS_KEYS"))?;
    sign_in(&identity).await
}

/// Whether there are keys, and somebody who can sign in.
pub async fn sign_in(identity: &Identity) -> Outcome {
    let accounts = identity
        .accounts(None, 1)
        .await
        .map_err(|error| (error.to_string(), "run `omisys accounts list`"))?;
    let keys = identity.keys().len();
    if accounts.is_empty() {
        return Ok(format!(
            "{keys} keys; nobody can sign in yet: `omisys accounts create --role admin --email E`"
        ));
    }
    Ok(format!("{keys} keys, accounts are there"))
}
