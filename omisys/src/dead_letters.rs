//! `omisys dead-letters`: what views and policies could not handle, and what is to be done about it. Beside a running
//! system: the process whose letters they are carries out what is asked here.

use std::time::Duration;

use event_bus::{DeadLetter, Healing, HealingOutcome, ParkedScope, Remedy, Retried, ScopeId};
use event_schemas::Clock;
use serde_json::{Value, json};
use sqlite_file::Synchronous;
use tokio::time::Instant;

use crate::cli::{DeadLetters, Profile};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{DataDirLock, Files, open_existing_database, open_file};

const PAGE: usize = 1_000;
const WHAT: &str = "the dead letters could not be read";
const REMEDY: &str = "run `omisys doctor`";

/// Runs the subcommand.
pub async fn run(config: &Config, command: &DeadLetters, json: bool) -> Result<(), CliError> {
    let healing = open(config).await?;
    match command {
        DeadLetters::List { subscriber } => list(&healing, subscriber.as_deref(), json).await,
        DeadLetters::Show { id } => show(&healing, &parse(id)?, json).await,
        DeadLetters::Retry { id, wait } => {
            let wait = Duration::from_secs(*wait);
            heal(config, &healing, &parse(id)?, Remedy::Retry, wait, json).await
        }
        DeadLetters::Skip { id, yes, wait } => {
            let id = parse(id)?;
            let first = first(&healing, &id).await?;
            if !yes {
                return Err(CliError::usage(
                    format!(
                        "{} {} at position {} would be given up for good",
                        first.event_id, first.event_type, first.position
                    ),
                    "add --yes if that is what you want; `omisys dead-letters retry` gives up nothing",
                ));
            }
            let position = first.position;
            let wait = Duration::from_secs(*wait);
            heal(config, &healing, &id, Remedy::Skip { position }, wait, json).await
        }
    }
}

async fn open(config: &Config) -> Result<Healing, CliError> {
    let mut databases = vec![open_existing_database(config).await?];
    let views = Files::of(config).views();
    if config.profile == Profile::Embedded && views.is_file() {
        databases.push(open_file(&views, Synchronous::Normal)?.into());
    }
    Healing::open(databases).await.context(WHAT, REMEDY)
}

fn parse(id: &str) -> Result<ScopeId, CliError> {
    id.parse().map_err(|error| {
        CliError::usage(
            format!("{id:?} names no dead letters: {error}"),
            "take the id from `omisys dead-letters list`",
        )
    })
}

fn nothing_parked(id: &ScopeId) -> CliError {
    CliError::failed(
        format!("nothing is parked under {id}"),
        "`omisys dead-letters list` shows what is",
    )
}

async fn first(healing: &Healing, id: &ScopeId) -> Result<DeadLetter, CliError> {
    let letters = healing.show(id, 1).await.context(WHAT, REMEDY)?;
    letters.into_iter().next().ok_or_else(|| nothing_parked(id))
}

async fn list(healing: &Healing, subscriber: Option<&str>, json: bool) -> Result<(), CliError> {
    let mut after = None;
    loop {
        let page = healing
            .list(subscriber, after.as_ref(), PAGE)
            .await
            .context(WHAT, REMEDY)?;
        if page.is_empty() && after.is_none() && !json {
            println!("nothing is parked");
        }
        for parked in &page {
            print_scope(parked, json);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.id()),
            _ => return Ok(()),
        }
    }
}

fn print_scope(parked: &ParkedScope, json: bool) {
    let (id, behind) = (parked.id(), parked.letters.saturating_sub(1));
    if json {
        let mut line = letter_json(&parked.first);
        line["letters"] = parked.letters.into();
        println!("{line}");
        return;
    }
    println!("{id}");
    print_letter(&parked.first);
    println!("  {behind} more wait behind it");
    println!("  next: mend what is wrong, then omisys dead-letters retry '{id}'");
}

async fn show(healing: &Healing, id: &ScopeId, json: bool) -> Result<(), CliError> {
    let letters = healing.show(id, PAGE).await.context(WHAT, REMEDY)?;
    if letters.is_empty() {
        return Err(nothing_parked(id));
    }
    for letter in &letters {
        if json {
            println!("{}", letter_json(letter));
        } else {
            print_letter(letter);
        }
    }
    if letters.len() == PAGE {
        eprintln!("only the first {PAGE} are shown");
    }
    if !json {
        println!("next: mend what is wrong, then omisys dead-letters retry '{id}'");
        println!("or give up the first one: omisys dead-letters skip '{id}' --yes");
    }
    Ok(())
}

fn letter_json(letter: &DeadLetter) -> Value {
    json!({
        "id": format!("{}:{}", letter.subscriber, letter.scope),
        "subscriber": &*letter.subscriber, "scope": &*letter.scope, "position": letter.position,
        "event_id": letter.event_id.to_string(), "type": letter.event_type, "reason": letter.reason,
        "attempts": letter.attempts, "parked_at": letter.parked_at,
    })
}

fn print_letter(letter: &DeadLetter) {
    let DeadLetter {
        position,
        event_id,
        event_type,
        reason,
        attempts,
        parked_at,
        ..
    } = letter;
    println!("  #{position}  {event_id}  {event_type}, since {parked_at}");
    match reason {
        Some(reason) => println!("    failed {attempts} times: {reason}"),
        None => println!("    waits for its turn"),
    }
}

async fn heal(
    config: &Config,
    healing: &Healing,
    id: &ScopeId,
    remedy: Remedy,
    wait: Duration,
    json: bool,
) -> Result<(), CliError> {
    let by = match std::env::var("USER") {
        Ok(user) => format!("the command line, {user}"),
        Err(_) => "the command line".to_owned(),
    };
    let asked = healing.ask(id, remedy, &by, Clock::System.now()).await;
    let asked = asked.context(
        "nothing was asked for",
        "`omisys dead-letters list` shows what is parked",
    )?;
    let nobody = config.profile == Profile::Embedded && !DataDirLock::is_taken(config);
    let wait = if nobody { Duration::ZERO } else { wait };
    let outcome = healing
        .wait(asked, Instant::now() + wait)
        .await
        .context("the outcome could not be read; the request is kept", REMEDY)?;
    let (name, handled, detail) = match &outcome {
        None => ("accepted", 0, None),
        Some(HealingOutcome::Retried(Retried::Healed { handled })) => ("healed", *handled, None),
        Some(HealingOutcome::Retried(Retried::StillParked { handled, reason })) => {
            ("still_parked", *handled, Some(reason))
        }
        Some(HealingOutcome::Skipped { what }) => ("skipped", 0, Some(what)),
        Some(HealingOutcome::Moot) => ("moot", 0, None),
    };
    if json {
        let id = id.to_string();
        println!(
            "{}",
            json!({ "id": id, "outcome": name, "handled": handled, "detail": detail })
        );
    }
    match outcome {
        Some(HealingOutcome::Retried(Retried::Healed { handled })) => {
            say(
                json,
                &format!("healed: {handled} handled, in order; {id} goes on"),
            );
            Ok(())
        }
        Some(HealingOutcome::Skipped { what }) => {
            say(json, &format!("given up: {what}"));
            say(
                json,
                &format!("next, if more wait behind it: omisys dead-letters retry '{id}'"),
            );
            Ok(())
        }
        Some(HealingOutcome::Retried(Retried::StillParked { handled, reason })) => Err(CliError::failed(
            format!("{id} is still parked: {handled} handled, then: {reason}"),
            format!("mend that and retry, or `omisys dead-letters skip '{id}' --yes`"),
        )),
        Some(HealingOutcome::Moot) => Err(CliError::failed(
            format!("the first letter of {id} has changed meanwhile: nothing was given up"),
            "look again with `omisys dead-letters list`",
        )),
        None if nobody => Err(CliError::failed(
            "accepted, not done yet: no `omisys serve` runs on this data directory",
            "start it: the request is kept and will be carried out",
        )),
        None => Err(CliError::failed(
            "accepted, not done yet: the process whose letters they are has not answered",
            "look at its /readyz; the request is kept and will be carried out",
        )),
    }
}

fn say(json: bool, text: &str) {
    if json {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}
