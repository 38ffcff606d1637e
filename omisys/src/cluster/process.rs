//! One service as a process: it listens, says when it is ready, and ends softly.

use std::net::SocketAddr;

use axum::Router;
use futures_util::future::BoxFuture;
use gateway::{Gateway, MetricsSource, ReadinessProbe, ServiceServer};
use http_conventions::ServiceToken;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::services;
use crate::cli::{self, ServiceName};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::serve::Signals;

/// What a service brings to its process.
pub struct Running {
    pub door: Door,
    pub readiness: ReadinessProbe,
    /// Resolves with the reason if the service ends by itself.
    pub ended: BoxFuture<'static, String>,
    /// Lets what is under way come to its end.
    pub stop: BoxFuture<'static, ()>,
}

/// What is listened for.
pub enum Door {
    /// The other services' requests; none for those that only work.
    Internal(Router),
    /// Everybody's.
    Public(Box<Gateway>),
}

impl Running {
    /// A service of `router` that ends only when it is told to.
    pub fn new(router: Router, readiness: ReadinessProbe) -> Self {
        Self {
            door: Door::Internal(router),
            readiness,
            ended: Box::pin(std::future::pending()),
            stop: Box::pin(std::future::ready(())),
        }
    }
}

/// Runs `service` until it is told to stop: once softly (what is under way is finished), twice at once.
pub async fn run(
    config: &Config,
    service: ServiceName,
    command: &cli::Service,
    metrics: PrometheusHandle,
    json: bool,
) -> Result<(), CliError> {
    if config.profile != cli::Profile::Cluster {
        return Err(CliError::usage(
            format!("{} is a service of the cluster profile", service.name()),
            "add --profile cluster, or run the whole system in one process with `omisys serve`",
        ));
    }
    let mut signals = Signals::new()?;
    let listen = command.listen.unwrap_or(match service {
        ServiceName::Gateway => config.gateway.listen,
        _ => SocketAddr::from(([127, 0, 0, 1], service.port())),
    });
    let listener = bind(listen).await?;
    let address = listener
        .local_addr()
        .context("the address is unknown", "try again")?;
    let scraped = match config.telemetry.metrics_listen {
        Some(listen) => Some(bind(listen).await?),
        None => None,
    };
    let numbers = source(metrics);
    let token = service_token(config)?;
    let running = tokio::select! {
        running = services::start(config, service, numbers.clone()) => running?,
        () = signals.next() => return Ok(()),
    };
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let server = |router: Router| ServiceServer {
        name: service.name(),
        router,
        readiness: running.readiness.clone(),
        metrics: numbers.clone(),
        token: Some(token.clone()),
    };
    if let Some(listener) = scraped {
        let alone = server(Router::new());
        tokio::spawn(gateway::serve_service(
            listener,
            alone,
            soft.clone(),
            hard.clone(),
        ));
    }
    let mut serving = match running.door {
        Door::Internal(router) => {
            let server = server(router);
            tokio::spawn(gateway::serve_service(
                listener,
                server,
                soft.clone(),
                hard.clone(),
            ))
        }
        Door::Public(gateway) => tokio::spawn(gateway::serve(listener, *gateway, soft.clone(), hard.clone())),
    };
    announce(service, address, json);
    let ended = tokio::select! {
        () = signals.next() => None,
        reason = running.ended => Some(reason),
        _ = &mut serving => Some("it does not listen any more".to_owned()),
    };
    soft.cancel();
    let stop = async {
        if !serving.is_finished() {
            // Whatever broke it off, its requests have ended.
            let _ = serving.await;
        }
        running.stop.await;
    };
    tokio::select! {
        () = stop => {}
        () = signals.next() => {
            hard.cancel();
            return Err(CliError::failed("stopped at once", "start again: nothing acknowledged is lost"));
        }
    }
    match ended {
        None => Ok(()),
        Some(reason) => Err(CliError::failed(
            format!("{} has ended: {reason}", service.name()),
            "if it says upgrade, upgrade; else start again: nothing acknowledged is lost",
        )),
    }
}

/// What the services prove themselves to each other with. Without it, the services would take the gateway's address for
/// everybody's, and the sagas' commands for a stranger's.
pub fn service_token(config: &Config) -> Result<ServiceToken, CliError> {
    const REMEDY: &str = "give all services the same one, such as the output of `openssl rand -hex 32`";
    let Some(token) = &config.internal.token else {
        return Err(CliError::usage(
            "the configuration is wrong: internal.token: the services of a cluster need it",
            REMEDY,
        ));
    };
    ServiceToken::new(token.expose()).map_err(|error| {
        CliError::usage(
            format!("the configuration is wrong: internal.token: {error}"),
            REMEDY,
        )
    })
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(listen).await.context(
        &format!("{listen} cannot be listened on"),
        "choose another address with --listen (port 0 picks a free one)",
    )
}

fn source(metrics: PrometheusHandle) -> MetricsSource {
    std::sync::Arc::new(move |text: &mut String| text.push_str(&metrics.render()))
}

fn announce(service: ServiceName, address: SocketAddr, json: bool) {
    let address = format!("http://{address}");
    if json {
        println!(
            "{}",
            json!({ "ready": true, "service": service.name(), "address": address })
        );
    } else {
        println!("{} listens on {address}", service.name());
    }
}
