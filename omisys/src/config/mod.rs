//! Configuration: defaults, then `omisys.toml`, then `OMISYS_<SECTION>__<KEY>`, then flags. Checked at start.

mod cluster;

use std::path::{Path, PathBuf};
use std::time::Duration;

use event_schemas::Currency;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use gateway::GatewayConfig;
use serde::Deserialize;

use cluster::{Internal, Kafka, Mongodb, Postgres, Redis, Upstreams};

use crate::cli::{Global, Profile};
use crate::error::CliError;

const DEFAULT_FILE: &str = "omisys.toml";
/// Thirty days.
pub const MAX_PAYMENT_WINDOW_MINUTES: u32 = 60 * 24 * 30;

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub profile: Profile,
    /// Where the embedded profile keeps its files.
    pub data_dir: PathBuf,
    #[serde(default)]
    pub shop: Shop,
    #[serde(default)]
    pub gateway: GatewayConfig,
    #[serde(default)]
    pub identity: identity::Settings,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub telemetry: Telemetry,
    #[serde(default)]
    pub keys: Keys,
    #[serde(default)]
    pub payments: Payments,
    #[serde(default)]
    pub projections: Projections,
    // Of the cluster profile. Every binary reads them, so that a wrong key is named.
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub postgres: Option<Postgres>,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub kafka: Option<Kafka>,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub mongodb: Option<Mongodb>,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub redis: Option<Redis>,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub upstreams: Upstreams,
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "of the cluster"))]
    #[serde(default)]
    pub internal: Internal,
}

/// What is sold under.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shop {
    /// The one currency, ISO 4217. Fixed for good by the first start on a data directory.
    pub currency: Currency,
    /// How long an order waits for its payment.
    pub payment_window_minutes: u32,
}

impl Shop {
    /// How long an order waits for its payment.
    pub fn payment_window(&self) -> Duration {
        Duration::from_secs(u64::from(self.payment_window_minutes) * 60)
    }
}

impl Default for Shop {
    fn default() -> Self {
        Self {
            currency: Currency::GBP,
            payment_window_minutes: 30,
        }
    }
}

/// What is logged to stderr.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// As in `RUST_LOG`: a level, or levels by module.
    pub filter: String,
    /// Structured, for a log collector.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "warn".to_owned(),
            json: false,
        }
    }
}

/// Where traces and metrics go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// An OTLP collector's HTTP endpoint, such as `http://otel-collector:4318`. Default none: no traces are sent.
    pub otlp_endpoint: Option<String>,
    /// Where `/metrics` is served without a token, for Prometheus in a closed network. Default none: the gateway serves
    /// it to those with `ops.read`.
    pub metrics_listen: Option<std::net::SocketAddr>,
}

/// The signing, refresh and fingerprint keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// The folder of `keys.json`, shared by all processes of a cluster. Default: the data directory.
    pub directory: Option<PathBuf>,
}

/// Who moves the money.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payments {
    /// Pay through the sandbox: nobody's money. Off unless a demo, an import or a test turns it on.
    pub sandbox: bool,
}

/// The read models.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Projections {
    /// Rebuild views whose version has changed without being asked to. Until then they are read as they were.
    pub auto_rebuild: bool,
}

impl Default for Projections {
    fn default() -> Self {
        Self { auto_rebuild: true }
    }
}

impl Config {
    /// Reads and checks the configuration; an error names the key.
    pub fn load(global: &Global) -> Result<Self, CliError> {
        let mut figment = Figment::from(Serialized::default("profile", Profile::Embedded))
            .merge(Serialized::default("data_dir", "data"));
        match &global.config {
            Some(path) if !path.is_file() => {
                return Err(CliError::usage(
                    format!("the configuration file {} is not there", path.display()),
                    "name an existing file with --config, or leave the flag out",
                ));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None if Path::new(DEFAULT_FILE).is_file() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE));
            }
            None => {}
        }
        figment = figment.merge(
            Env::prefixed("OMISYS_")
                .filter(|key| is_config_key(key.as_str()))
                .split("__"),
        );
        if let Some(profile) = global.profile {
            figment = figment.merge(Serialized::default("profile", profile));
        }
        if let Some(data_dir) = &global.data_dir {
            figment = figment.merge(Serialized::default("data_dir", data_dir));
        }
        let config: Self = figment.extract().map_err(|error| {
            let key = if error.path.is_empty() {
                String::new()
            } else {
                format!("{}: ", error.path.join("."))
            };
            // What is wrong with a secret is not told by showing it.
            let secret = ["postgres", "mongodb", "redis", "internal"]
                .iter()
                .any(|section| error.path.first().is_some_and(|first| first == section));
            let problem = if secret {
                "it is missing, unknown, or not of the right kind (text in quotes)".to_owned()
            } else {
                error.kind.to_string()
            };
            CliError::usage(
                format!("the configuration is wrong: {key}{problem}"),
                "mend that key in the file, or in its OMISYS_<SECTION>__<KEY> variable",
            )
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CliError> {
        let window = self.shop.payment_window_minutes;
        if !(1..=MAX_PAYMENT_WINDOW_MINUTES).contains(&window) {
            return Err(CliError::usage(
                format!(
                    "the configuration is wrong: shop.payment_window_minutes: {window} is not within 1 to 43200"
                ),
                "give the minutes an order may wait for its payment",
            ));
        }
        self.gateway.validate().map_err(|error| {
            CliError::usage(
                format!("the configuration is wrong: {error}"),
                "mend that key of the [gateway] section",
            )
        })
    }
}

/// Test switches such as `OMISYS_TEST_CLUSTER` share the prefix but are no configuration.
fn is_config_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "profile" || key == "data_dir" || key.contains("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, CliError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("omisys.toml");
        std::fs::write(&path, text).unwrap();
        let global = Global {
            config: Some(path),
            profile: None,
            data_dir: None,
            json: false,
            verbose: false,
        };
        Config::load(&global)
    }

    #[test]
    fn the_offending_key_is_named() {
        for (text, key) in [
            (
                "[shop]\npayment_window_minutes = 0",
                "shop.payment_window_minutes",
            ),
            ("[shop]\ncurrency = \"XXY\"", "shop.currency"),
            ("[gateway]\nlisten = \"nowhere\"", "gateway.listen"),
            ("[gateway]\nport = 1", "port"),
            ("[gateway]\nin_flight_max = 0", "gateway.in_flight_max"),
            ("profile = \"galaxy\"", "profile"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.usage && error.what.contains(key), "{text}: {}", error.what);
        }
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = load("").unwrap();
        assert_eq!(config.gateway.listen.port(), 8080);
        assert_eq!(config.shop.currency, Currency::GBP);
    }
}
