//! How fast a read model is folded from the log again, beside how fast the log alone is read.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use super::report::Report;
use super::system::{binary, folder};
use crate::cli::{Bench, Profile};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::rebuild;
use crate::stores::{open_log, open_views};

const VIEW: &str = "orders";
/// Memory for documents: the default of `omisys rebuild`.
const MEMORY_BYTES: usize = 256 << 20;

/// Rebuilds `orders` of the retailer's year, sold in a shop that is thrown away, or of the configured store.
pub async fn run(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let Some(file) = &command.retail_file else {
        return of(config, command).await;
    };
    if config.profile == Profile::Cluster {
        return Err(CliError::usage(
            "the retailer's year is sold in an embedded shop here",
            "leave --profile cluster out; or leave --retail-file out, to rebuild what the cluster holds",
        ));
    }
    let directory = folder()?;
    let data = directory.path().join("data");
    import(file, &data).await?;
    let config = Config {
        data_dir: data,
        ..config.clone()
    };
    of(&config, command).await
}

/// In a process of its own, so that this one's memory is the rebuild's.
async fn import(file: &Path, data: &Path) -> Result<(), CliError> {
    let what = format!("{} could not be imported", file.display());
    let status = Command::new(binary()?)
        .args(["import", "online-retail"])
        .arg(file)
        .args(["--profile", "embedded", "--data-dir"])
        .arg(data)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .context(&what, "run it again")?;
    if status.success() {
        return Ok(());
    }
    Err(CliError::failed(
        what,
        "run `omisys import online-retail` with it, to see why",
    ))
}

async fn of(config: &Config, command: &Bench) -> Result<Report, CliError> {
    let (database, log) = open_log(config).await?;
    let views = open_views(config, &database, &log).await?;
    let alone = rebuild::read_alone(&log).await?;
    let (rebuilt, seconds) = rebuild::timed(&views, &log, VIEW, MEMORY_BYTES, false).await?;
    let per_second = rebuilt.events as f64 / seconds.max(0.001);
    let mut report = Report::without_load(config, command, per_second);
    report.ratio = Some(per_second / alone.max(0.001));
    report.also("view", json!(VIEW));
    report.also("events", json!(rebuilt.events));
    report.also("documents", json!(rebuilt.documents));
    report.also("rebuild_seconds", json!(seconds));
    report.also("log_events_per_second", json!(alone));
    report.also("peak_rss_bytes", json!(rebuild::peak_rss_bytes()));
    let equal = rebuilt
        .comparison
        .as_ref()
        .is_some_and(projections::Comparison::equal);
    report.checks = vec![
        ("the_rebuilt_view_is_the_same", equal),
        ("it_is_read", rebuilt.serving),
    ];
    Ok(report)
}
