//! `omisys health`: asks a service whether it is ready, for containers whose images have no HTTP client.

use std::time::Duration;

use http::{Method, StatusCode, Uri};
use serde_json::json;
use testkit::Client;

use crate::cli::Health;
use crate::error::{CliError, Context};

/// Runs the subcommand; a service that is not ready is an error.
pub async fn run(command: &Health, json: bool) -> Result<(), CliError> {
    const REMEDY: &str = "give the service's address, such as http://127.0.0.1:8081/readyz";
    let uri: Uri = command
        .url
        .parse()
        .map_err(|_| CliError::usage(format!("{} is no URL", command.url), REMEDY))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(CliError::usage(
            format!("{} is no http:// URL", command.url),
            REMEDY,
        ));
    };
    let client = Client::new(&format!("http://{authority}"));
    let path = uri.path_and_query().map_or("/readyz", |path| path.as_str());
    let asked = client.send(Method::GET, path, &[], "");
    let reply = tokio::time::timeout(Duration::from_secs(command.timeout), asked)
        .await
        .context("no answer in time", REMEDY)?
        .context("no answer", REMEDY)?;
    let body = String::from_utf8_lossy(&reply.body);
    if json {
        println!(
            "{}",
            json!({ "url": command.url, "status": reply.status.as_u16(), "body": body })
        );
    } else {
        println!("{} {}", reply.status, body.trim());
    }
    if reply.status == StatusCode::OK {
        return Ok(());
    }
    Err(CliError::failed(
        format!("{} is not ready", command.url),
        "look at its log, and at what it waits for",
    ))
}
