//! `omisys rebuild` and `omisys generations`: read models folded from the log again, and what is left of the old ones.

use std::time::Duration;

use event_schemas::{Clock, Position};
use event_store::Log;
use projections::{Comparison, RebuildError, RebuildOptions, Rebuilt, VIEW_NAMES, Verification, Views};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli;
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::progress::Progress;
use crate::stores::{open_log, open_views};

const REMEDY: &str = "run `omisys doctor`";

/// Events that are read together.
const PAGE: usize = 5_000;

/// Between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a build that another process has begun is waited for: longer than a lease lasts without a sign of life.
const TAKE_OVER: Duration = Duration::from_secs(25);

/// The name under which this process builds: unlike any other's.
pub fn holder(what: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = Clock::System.now().as_microsecond();
    format!("{what} {} {} {since}", host.trim(), std::process::id())
}

/// Runs `omisys rebuild`; a difference is an error.
pub async fn run(config: &Config, command: &cli::Rebuild, json: bool) -> Result<(), CliError> {
    let names: Vec<&str> = if command.all {
        VIEW_NAMES.to_vec()
    } else {
        command.views.iter().map(String::as_str).collect()
    };
    if let Some(unknown) = names.iter().find(|name| !VIEW_NAMES.contains(name)) {
        return Err(CliError::usage(
            format!("there is no view {unknown}"),
            format!("name one of {}, or use --all", VIEW_NAMES.join(", ")),
        ));
    }
    let (database, log) = open_log(config).await?;
    let views = open_views(config, &database, &log).await?;
    let mut different = Vec::new();
    for name in names {
        let equal = if command.verify {
            verify(&views, &log, name, command, json).await?
        } else {
            rebuild(&views, &log, name, command, json).await?
        };
        if !equal {
            different.push(name);
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    let remedy = if command.verify {
        "see what with --diff; mend it with `omisys rebuild VIEW --accept-differences`"
    } else {
        "see what with --diff; if the new documents are the right ones, add --accept-differences"
    };
    Err(CliError::failed(
        format!("{} is not what the log folds to", different.join(", ")),
        remedy,
    ))
}

async fn rebuild(
    views: &Views,
    log: &Log,
    name: &str,
    command: &cli::Rebuild,
    json: bool,
) -> Result<bool, CliError> {
    let alone = if command.measure {
        Some(read_alone(log).await?)
    } else {
        None
    };
    let memory_bytes = (command.memory as usize) << 20;
    let (rebuilt, seconds) = timed(views, log, name, memory_bytes, command.accept_differences).await?;
    let equal = rebuilt.comparison.as_ref().is_none_or(Comparison::equal);
    if json {
        println!("{}", report(&rebuilt, seconds, alone, command.diff));
    } else {
        tell(&rebuilt, seconds, alone, command.diff);
    }
    Ok(equal || rebuilt.serving)
}

/// Rebuilds a view, and says how many seconds it took. A build that another process has begun is waited for.
pub async fn timed(
    views: &Views,
    log: &Log,
    name: &str,
    memory_bytes: usize,
    accept_differences: bool,
) -> Result<(Rebuilt, f64), CliError> {
    let started = Instant::now();
    let options = RebuildOptions {
        memory_bytes,
        accept_differences,
        ..RebuildOptions::new(holder("omisys rebuild"))
    };
    let rebuilt = loop {
        match with_progress(views, log, name, &options).await {
            Err(RebuildError::Busy) if started.elapsed() < TAKE_OVER => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            rebuilt => break rebuilt,
        }
    };
    let rebuilt = rebuilt.context(
        &format!("{name} could not be rebuilt"),
        "what is read goes on; mend the cause and run the same command again: it goes on where it stopped",
    )?;
    Ok((rebuilt, started.elapsed().as_secs_f64()))
}

async fn with_progress(
    views: &Views,
    log: &Log,
    name: &str,
    options: &RebuildOptions,
) -> Result<Rebuilt, RebuildError> {
    let told = watch::Sender::new(None);
    let mut bar = Progress::new("events", 0);
    let rebuild = views.rebuild(log, name, options, &Clock::System, &told);
    let mut rebuild = std::pin::pin!(rebuild);
    loop {
        tokio::select! {
            outcome = &mut rebuild => return outcome,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if let Some(progress) = *told.borrow() {
                    bar.set(progress.position.0, progress.target.0);
                }
            }
        }
    }
}

/// Events per second of reading and decoding the whole log by position, and nothing else: as any consumer has to.
pub async fn read_alone(log: &Log) -> Result<f64, CliError> {
    const WHAT: &str = "the log could not be read";
    let started = Instant::now();
    let (mut after, head) = (Position(0), log.head().await.context(WHAT, REMEDY)?);
    while after < head {
        let page = log.read(after, PAGE).await.context(WHAT, REMEDY)?;
        let Some(last) = page.last() else { break };
        after = last.position();
    }
    Ok(after.0 as f64 / started.elapsed().as_secs_f64().max(0.001))
}

fn report(rebuilt: &Rebuilt, seconds: f64, alone: Option<f64>, diff: bool) -> Value {
    let found = rebuilt.comparison.as_ref();
    let mut report = json!({
        "view": rebuilt.view,
        "events": rebuilt.events,
        "documents": rebuilt.documents,
        "seconds": seconds,
        "equal": found.map(Comparison::equal),
        "compared": found.map(|found| found.compared),
        "different": found.map(|found| found.different),
        "generation": rebuilt.generation,
        "serving": rebuilt.serving,
        "peak_rss_bytes": peak_rss_bytes(),
    });
    if let Some(alone) = alone {
        report["log_events_per_second"] = alone.into();
        report["ratio"] = (rebuilt.events as f64 / seconds.max(0.001) / alone).into();
    }
    if let (true, Some(found)) = (diff, found) {
        let document = |difference: &projections::DocumentDifference| {
            let fields = difference.fields.iter();
            let fields: Vec<Value> = fields
                .map(|field| json!({ "pointer": field.pointer, "old": field.old, "new": field.new }))
                .collect();
            json!({ "id": difference.id.to_string(), "fields": fields })
        };
        report["differences"] = found.differences.iter().map(document).collect();
    }
    report
}

fn tell(rebuilt: &Rebuilt, seconds: f64, alone: Option<f64>, diff: bool) {
    let rate = rebuilt.events as f64 / seconds.max(0.001);
    if let Some(alone) = alone {
        println!(
            "the log alone is read at {alone:.0} events/s, and rebuilt at {:.2} of that",
            rate / alone
        );
    }
    println!(
        "{}: {} documents of {} events in {seconds:.1} s ({rate:.0} events/s)",
        rebuilt.view, rebuilt.documents, rebuilt.events
    );
    match &rebuilt.comparison {
        None => println!("  not compared: what was read is of another version of the view"),
        Some(found) if found.equal() => {
            let apart = match found.apart {
                0 => String::new(),
                apart => format!(", {apart} that one of them has seen more of"),
            };
            println!(
                "  the same as what was read, document by document ({}{apart})",
                found.compared
            );
        }
        Some(found) => {
            println!(
                "  {} of {} documents differ from what was read",
                found.different, found.compared
            );
            for difference in found.differences.iter().filter(|_| diff) {
                println!("    {}", difference.id);
                for field in &difference.fields {
                    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
                    let pointer = if field.pointer.is_empty() {
                        "(all)"
                    } else {
                        &field.pointer
                    };
                    println!(
                        "      {pointer}: {} is now {}",
                        text(&field.old),
                        text(&field.new)
                    );
                }
            }
        }
    }
    let name = format!("{}.g{}", rebuilt.view, rebuilt.generation);
    if rebuilt.serving {
        println!(
            "  {name} is read from now on; the one before is kept until `omisys generations drop --old`"
        );
    } else {
        println!("  {name} is kept and fed, and not read");
    }
}

async fn verify(
    views: &Views,
    log: &Log,
    name: &str,
    command: &cli::Rebuild,
    json: bool,
) -> Result<bool, CliError> {
    let started = Instant::now();
    let found: Verification = views
        .verify(log, name)
        .await
        .context(&format!("{name} could not be compared"), REMEDY)?;
    let seconds = started.elapsed().as_secs_f64();
    let generation = views
        .known_progress()
        .into_iter()
        .find(|progress| progress.view == name);
    if json {
        let mut report = json!({
            "view": found.view,
            "events": found.events,
            "documents": found.documents,
            "seconds": seconds,
            "equal": found.equal(),
            "different": found.different,
            "generation": generation.map(|progress| progress.generation),
            "peak_rss_bytes": peak_rss_bytes(),
        });
        if command.diff {
            report["differences"] = found.differences.iter().map(ToString::to_string).collect();
        }
        println!("{report}");
    } else {
        let what = if found.equal() {
            "what the log folds to"
        } else {
            "NOT what the log folds to"
        };
        println!(
            "{name}: {} documents of {} events are {what} ({} differ, {seconds:.1} s)",
            found.documents, found.events, found.different
        );
        for difference in found.differences.iter().filter(|_| command.diff) {
            println!("  {difference}");
        }
    }
    Ok(found.equal())
}

/// The most memory that this process has had, as Linux counts it; none elsewhere.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// Runs `omisys generations`.
pub async fn generations(config: &Config, command: &cli::Generations, json: bool) -> Result<(), CliError> {
    let (database, log) = open_log(config).await?;
    let views = open_views(config, &database, &log).await?;
    match command {
        cli::Generations::List => list(&views, &log, json).await,
        cli::Generations::Drop { names, old } => drop_some(&views, names, *old, json).await,
    }
}

async fn list(views: &Views, log: &Log, json: bool) -> Result<(), CliError> {
    let found = views
        .generations()
        .await
        .context("the generations could not be read", REMEDY)?;
    let head = log.head().await.context("the log could not be read", REMEDY)?;
    if !json {
        println!(
            "{:<20} {:>7}  {:<10} {:<5} {:>10}  head {head}",
            "generation", "version", "stage", "read", "position"
        );
    }
    for generation in found {
        let Position(position) = generation.position;
        if json {
            println!(
                "{}",
                json!({
                    "name": generation.name, "view": generation.view, "generation": generation.generation,
                    "version": generation.version, "stage": generation.stage, "serving": generation.serving,
                    "position": position, "target": generation.target.0, "builder": generation.builder,
                })
            );
        } else {
            let read = if generation.serving { "yes" } else { "no" };
            println!(
                "{:<20} {:>7}  {:<10} {read:<5} {position:>10}",
                generation.name, generation.version, generation.stage
            );
        }
    }
    Ok(())
}

async fn drop_some(views: &Views, names: &[String], old: bool, json: bool) -> Result<(), CliError> {
    let mut names = names.to_vec();
    if old {
        let found = views
            .generations()
            .await
            .context("the generations could not be read", REMEDY)?;
        let read = views.known_progress();
        names = found
            .into_iter()
            .filter(|found| {
                let newest = read.iter().find(|progress| progress.view == found.view);
                newest.is_none_or(|progress| found.generation < progress.generation)
            })
            .map(|found| found.name)
            .collect();
    }
    for name in &names {
        views.drop_generation(name, &Clock::System).await.context(
            &format!("{name} was not dropped"),
            "see `omisys generations list` for what can be",
        )?;
        if !json {
            println!("{name} is dropped");
        }
    }
    if json {
        println!("{}", json!({ "dropped": names }));
    } else if names.is_empty() {
        println!("there is nothing to drop");
    }
    Ok(())
}
