//! `omisys doctor` on a cluster: whether each server can be reached and holds what it should.

use std::time::Duration;

use http::Method;
use projections::CacheState;
use testkit::Client;

use super::stores;
use crate::accounts;
use crate::config::Config;
use crate::doctor::{Finding, Outcome, finding, sign_in};
use crate::error::CliError;
use crate::stores::open_log_in;

/// How long one service may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at every server and service that the configuration names. Changes nothing but missing topics.
pub async fn run(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        finding("PostgreSQL and the log", log(config).await),
        finding("keys and accounts", people(config).await),
        finding("Kafka and its topics", kafka(config).await),
        finding("MongoDB", mongo(config).await),
        finding("Redis", redis(config).await),
    ];
    for (check, urls) in [
        ("command-api", &config.upstreams.command_api),
        ("query-api", &config.upstreams.query_api),
        ("identity", &config.upstreams.identity),
    ] {
        for url in urls {
            findings.push(finding(check, service(url).await));
        }
    }
    findings
}

fn ill(error: CliError) -> (String, &'static str) {
    (
        error.what,
        "check the URL, that the server runs, and run `omisys migrate`",
    )
}

async fn log(config: &Config) -> Outcome {
    let database = stores::open_database(config, false).await.map_err(ill)?;
    let log = open_log_in(&database).await.map_err(ill)?;
    let head = log
        .head()
        .await
        .map_err(|error| (error.to_string(), "look at PostgreSQL's log"))?;
    Ok(format!("{head} events, epoch {}", log.identity().epoch))
}

async fn people(config: &Config) -> Outcome {
    sign_in(&accounts::open(config).await.map_err(ill)?).await
}

async fn kafka(config: &Config) -> Outcome {
    let kafka = stores::kafka(config).map_err(ill)?;
    kafka.ensure_topics().await.map_err(|error| {
        let remedy = "check kafka.brokers, kafka.partitions and kafka.replication, and that Kafka runs";
        (error.to_string(), remedy)
    })?;
    Ok("the topics are there".to_owned())
}

async fn mongo(config: &Config) -> Outcome {
    let mongo = stores::mongo(config).await.map_err(ill)?;
    mongo
        .ping()
        .await
        .map_err(|error| (error.to_string(), "check mongodb.url, and that MongoDB runs"))?;
    Ok("it answers".to_owned())
}

async fn redis(config: &Config) -> Outcome {
    match stores::redis(config).map_err(ill)?.ping().await {
        CacheState::Up => Ok("it answers".to_owned()),
        CacheState::Down => Err((
            "it does not answer: reads are slower, and limits are counted by each process alone".to_owned(),
            "check redis.url, and that Redis runs",
        )),
    }
}

async fn service(url: &str) -> Outcome {
    const REMEDY: &str = "start it, or look at what it says at /readyz";
    let client = Client::new(url);
    let asked = tokio::time::timeout(PATIENCE, client.send(Method::GET, "/readyz", &[], "")).await;
    match asked {
        Ok(Ok(reply)) if reply.status.is_success() => Ok(format!("{url} is ready")),
        Ok(Ok(reply)) => Err((format!("{url} answers {}", reply.status), REMEDY)),
        Ok(Err(_)) | Err(_) => Err((format!("{url} does not answer"), REMEDY)),
    }
}
