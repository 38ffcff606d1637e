//! Commands of policies, from the sagas of other processes: `POST /internal/commands`. It is in no OpenAPI document, and
//! only services get in.

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use event_store::Executors;
use futures_util::future::join_all;
use http_conventions::{FromService, Problem};
use sagas::commands::{COMMANDS_PATH, CommandOutcome, MAX_BYTES, MAX_COMMANDS, SentCommand};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Commands {
    commands: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct Outcomes {
    outcomes: Vec<CommandOutcome>,
}

/// The internal routes. They need [`http_conventions::believe_services`] around them, as every service's listener has.
pub fn router(executors: Executors) -> Router {
    Router::new()
        .route(COMMANDS_PATH, post(commands))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(executors)
}

/// Hands all commands in, in order, and answers what became of each.
async fn commands(
    _: FromService,
    State(executors): State<Executors>,
    Json(sent): Json<Commands>,
) -> Result<Json<Outcomes>, Problem> {
    if sent.commands.len() > MAX_COMMANDS {
        return Err(Problem::malformed(format!("at most {MAX_COMMANDS} commands")));
    }
    let mut pending = Vec::with_capacity(sent.commands.len());
    for command in &sent.commands {
        let enqueued = match serde_json::from_str::<SentCommand>(command.get()) {
            Ok(command) => Ok(command.enqueue(&executors).await),
            // Of a newer binary, most likely: this one is upgraded soon.
            Err(error) => Err(CommandOutcome::Retry {
                reason: format!("the command is not understood: {error}"),
            }),
        };
        pending.push(async move {
            match enqueued {
                Ok(pending) => pending.await,
                Err(outcome) => outcome,
            }
        });
    }
    Ok(Json(Outcomes {
        outcomes: join_all(pending).await,
    }))
}
