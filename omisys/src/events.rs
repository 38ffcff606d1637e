//! `omisys events`: the log as it is, for people and programs.

use event_schemas::{Position, StreamId, Version};
use event_store::{AsOf, Log, RawEvent};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cli::Events;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::open_log;

const PAGE: usize = 1_000;
const READ_REMEDY: &str = "run `omisys doctor`";

/// Runs the subcommand.
pub async fn run(config: &Config, command: &Events, json: bool) -> Result<(), CliError> {
    let (_, log) = open_log(config).await?;
    match command {
        Events::Show { stream, as_of } => show(&log, stream, *as_of, json).await,
        Events::Tail { after, no_follow } => tail(&log, *after, !*no_follow, json).await,
    }
}

async fn show(log: &Log, stream: &str, as_of: Option<AsOf>, json: bool) -> Result<(), CliError> {
    let id: StreamId = stream.parse().map_err(|error| {
        CliError::usage(
            format!("{stream:?} names no aggregate: {error}"),
            "write TYPE/ID, such as inventory/MUG-1",
        )
    })?;
    // The last event shown, and the first that came after the moment asked for.
    let (mut last, mut beyond): (Option<RawEvent>, Option<RawEvent>) = (None, None);
    while beyond.is_none() {
        let (kind, name) = (id.aggregate_type.as_str(), id.aggregate_id.as_str());
        let after = last.as_ref().map_or(Version(0), |event| event.version);
        let page = log
            .read_raw_stream(kind, name, after, PAGE)
            .await
            .context("the log could not be read", READ_REMEDY)?;
        if page.is_empty() {
            break;
        }
        for event in page {
            if as_of.is_some_and(|moment| !moment.includes(&event)) {
                beyond = Some(event);
                break;
            }
            print(&event, json);
            last = Some(event);
        }
    }
    let Some(last) = last else {
        return Err(match beyond {
            Some(first) => CliError::failed(
                format!("{id} had no events yet"),
                format!(
                    "ask for {} or later, when its first was recorded",
                    first.recorded_at
                ),
            ),
            None => CliError::failed(
                format!("{id} has no events"),
                "check the id; `omisys events tail --after 0` shows all".to_owned(),
            ),
        });
    };
    if let Some(AsOf::Version(version)) = as_of
        && last.version < version
    {
        return Err(CliError::failed(
            format!("{id} has not come to version {version}"),
            format!(
                "ask for version {}, which it is at, or for an earlier one",
                last.version
            ),
        ));
    }
    if !json {
        let stands = if beyond.is_some() { "stood" } else { "stands" };
        println!(
            "{id} {stands} at version {}, since {}",
            last.version, last.recorded_at
        );
    }
    Ok(())
}

async fn tail(log: &Log, after: Option<u64>, follow: bool, json: bool) -> Result<(), CliError> {
    let head = log
        .head()
        .await
        .context("the log could not be read", READ_REMEDY)?;
    let mut position = after.map_or(head, Position);
    let mut watch = log.watch();
    loop {
        let events = log
            .read_raw(position, PAGE)
            .await
            .context("the log could not be read", READ_REMEDY)?;
        for event in &events {
            print(event, json);
            position = event.position;
        }
        if events.is_empty() && (!follow || watch.changed().await.is_err()) {
            return Ok(());
        }
    }
}

fn print(event: &RawEvent, json: bool) {
    let RawEvent {
        position,
        aggregate_type,
        aggregate_id,
        version,
        event_type,
        event_version,
        recorded_at,
        ..
    } = event;
    if json {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let line = json!({
            "position": position, "id": format!("{aggregate_type}/{aggregate_id}/{version}"), "type": event_type,
            "schema_version": event_version, "recorded_at": recorded_at, "data": raw(&event.payload),
            "metadata": raw(&event.metadata),
        });
        println!("{line}");
        return;
    }
    let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
    let text = |key: &str| metadata[key].as_str().unwrap_or("?").to_owned();
    println!("#{position}  {recorded_at}  {aggregate_type}/{aggregate_id}/{version}  {event_type}");
    print!(
        "    {} by {} {}",
        text("command"),
        text("actor_kind"),
        text("actor_id")
    );
    match metadata["causation_id"].as_str() {
        Some(cause) => println!(", because of {cause}"),
        None => println!(),
    }
    // The payload names its type once more around the fields; a person has just read it.
    let payload: Value = serde_json::from_str(&event.payload).unwrap_or_default();
    println!("    {}", payload.get(event_type).unwrap_or(&payload));
}
