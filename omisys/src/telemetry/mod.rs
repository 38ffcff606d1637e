//! What the process says about itself: logs to stderr, metrics for Prometheus, traces to an OTLP collector.

#[cfg(feature = "cluster")]
mod otlp;

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::Config;
use crate::error::{CliError, Context};

/// Seconds: from a cached read to the longest wait that a request may ask for.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Events of one transaction or batch.
const EVENTS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];

const DRAIN_EVERY: Duration = Duration::from_secs(5);

/// Logs, metrics and traces of this process.
pub struct Telemetry {
    metrics: PrometheusHandle,
    #[cfg(feature = "cluster")]
    tracing: Option<otlp::Tracing>,
}

impl Telemetry {
    /// Sets them up, once a process, on the current Tokio runtime. `service` names the process in traces.
    pub fn start(config: &Config, service: &'static str, verbose: bool) -> Result<Self, CliError> {
        const WHAT: &str = "the log could not be set up";
        const REMEDY: &str = "report this as a bug";
        let filter = if verbose { "info" } else { &config.log.filter };
        let filter = EnvFilter::try_new(filter).map_err(|error| {
            CliError::usage(
                format!("the configuration is wrong: log.filter: {error}"),
                "give a level such as warn, or levels by module such as sagas=debug",
            )
        })?;
        let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let logs = if config.log.json {
            text.json().with_filter(filter).boxed()
        } else {
            text.with_filter(filter).boxed()
        };
        let subscriber = tracing_subscriber::registry().with(logs);
        #[cfg(feature = "cluster")]
        let tracing = {
            let tracing = otlp::Tracing::start(config, service)?;
            let layer = tracing.as_ref().map(otlp::Tracing::layer);
            subscriber.with(layer).try_init().context(WHAT, REMEDY)?;
            tracing
        };
        #[cfg(not(feature = "cluster"))]
        {
            if config.telemetry.otlp_endpoint.is_some() {
                return Err(CliError::usage(
                    format!("{service} was built without traces"),
                    "build with --features cluster, or leave telemetry.otlp_endpoint out",
                ));
            }
            subscriber.try_init().context(WHAT, REMEDY)?;
        }
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS)
            })
            .context("the metrics could not be set up", REMEDY)?
            .install_recorder()
            .context("the metrics could not be set up", REMEDY)?;
        tokio::spawn(drain(metrics.clone()));
        Ok(Self {
            metrics,
            #[cfg(feature = "cluster")]
            tracing,
        })
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends what is left.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, reason = "only traces wait")
    )]
    pub async fn stop(self) {
        #[cfg(feature = "cluster")]
        if let Some(tracing) = self.tracing {
            // It waits for the exporter's thread, which needs the runtime.
            let _ = tokio::task::spawn_blocking(move || tracing.stop()).await;
        }
    }
}

/// Sums up what was measured, for as long as the process runs: otherwise measurements would pile up until somebody asks
/// for them, which may be never.
async fn drain(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(DRAIN_EVERY).await;
        metrics.run_upkeep();
    }
}
