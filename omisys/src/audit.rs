//! `omisys audit`: walks the whole log and checks what must always hold.

use std::time::Duration;

use aggregates::audit::{Audit, Breach};
use database::Database;
use event_schemas::{Clock, Event, OrderEvent, Position};
use event_store::{Log, LogEntry};
use projections::{VIEW_NAMES, Views};
use serde_json::{Value, json};

use crate::cli;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::progress::Progress;
use crate::stores::{open_log, open_views};

const PAGE: usize = 5_000;
const READ_REMEDY: &str = "run `omisys doctor`";

/// What a walk found.
#[derive(Default)]
pub struct Findings {
    pub events: u64,
    pub orders: u64,
    /// `{invariant, stream, detail}`
    pub breaches: Vec<Value>,
}

/// Runs the subcommand; a breach is an error. Works beside a running server.
pub async fn run(config: &Config, command: &cli::Audit, json: bool) -> Result<(), CliError> {
    let (database, log) = open_log(config).await?;
    let mut findings = walk(&database, &log, Duration::from_secs(command.grace)).await?;
    if command.views {
        compare_views(&open_views(config, &database, &log).await?, &log, &mut findings).await?;
    }
    let Findings {
        events,
        orders,
        breaches,
    } = findings;
    if json {
        println!(
            "{}",
            json!({ "events": events, "orders": orders, "breaches": breaches })
        );
    } else {
        println!("{events} events, {orders} orders, {} breaches", breaches.len());
        for breach in &breaches {
            let text = |key: &str| breach[key].as_str().unwrap_or_default();
            println!("  {}: {}: {}", text("stream"), text("invariant"), text("detail"));
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(
        format!("{} invariants are broken", breaches.len()),
        "look at each stream with `omisys events show TYPE/ID`",
    ))
}

/// Walks the log from its first event to its head.
pub async fn walk(database: &Database, log: &Log, grace: Duration) -> Result<Findings, CliError> {
    // As of before the head was read: what a long walk leaves unread has not been owed all the while. The rows too: an
    // intent that is still open then had its row before.
    let now = Clock::System.now();
    let rows = sagas::open_effects(database)
        .await
        .context("the effects could not be read", READ_REMEDY)?;
    let head = log
        .head()
        .await
        .context("the log could not be read", READ_REMEDY)?;
    let mut progress = Progress::new("events", head.0);
    let (mut audit, mut findings, mut position) = (Audit::new(), Findings::default(), Position(0));
    while position < head {
        let page = log
            .read(position, PAGE)
            .await
            .context("the log could not be read", READ_REMEDY)?;
        let Some(last) = page.last() else { break };
        position = last.position();
        for entry in &page {
            findings.events += 1;
            progress.step();
            match entry {
                LogEntry::Event(event) => {
                    findings.orders +=
                        u64::from(matches!(event.event, Event::Order(OrderEvent::OrderPlaced(_))));
                    audit.observe(event);
                }
                LogEntry::Unreadable(unreadable) => findings.breaches.push(json!({
                    "invariant": "every event can be read",
                    "stream": format!("{}/{}", unreadable.aggregate_type, unreadable.aggregate_id),
                    "detail": unreadable.to_string(),
                })),
            }
        }
    }
    findings
        .breaches
        .extend(audit.finish(now, grace).into_iter().map(breach));
    let due = now.checked_sub(grace).unwrap_or(now);
    for intent in audit.open_intents() {
        if intent.since < due && !rows.contains(&intent.event) {
            findings.breaches.push(json!({
                "invariant": "an open intent has its effect row", "stream": intent.event.stream.to_string(),
                "detail": format!("{} of {} has none", intent.event_type, intent.since),
            }));
        }
    }
    if audit.uncounted() > 0 {
        findings.breaches.push(json!({
            "invariant": "more", "stream": "", "detail": format!("{} further breaches are not listed", audit.uncounted()),
        }));
    }
    Ok(findings)
}

fn breach(
    Breach {
        invariant,
        stream,
        detail,
    }: Breach,
) -> Value {
    json!({ "invariant": invariant, "stream": stream.to_string(), "detail": detail })
}

/// A stored document that is not what the log folds to is a breach too.
async fn compare_views(views: &Views, log: &Log, findings: &mut Findings) -> Result<(), CliError> {
    for name in VIEW_NAMES {
        let verification = views
            .verify(log, name)
            .await
            .context(&format!("{name} could not be compared"), READ_REMEDY)?;
        if !verification.equal() {
            findings.breaches.push(json!({
                "invariant": "a read model is a fold of the log", "stream": name,
                "detail": format!("{} of {} documents differ, such as {:?}",
                    verification.different, verification.documents, verification.differences.first()),
            }));
        }
    }
    Ok(())
}
