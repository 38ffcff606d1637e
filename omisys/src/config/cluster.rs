//! The sections of the cluster profile. They are read by every binary, so that a wrong key is named by all.
#![cfg_attr(
    not(feature = "cluster"),
    expect(dead_code, reason = "used by the cluster's adapters")
)]

use serde::Deserialize;

/// The log's server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`
    pub url: Secret,
    /// Connections of one process.
    #[serde(default = "Postgres::default_connections")]
    pub max_connections: u32,
}

impl Postgres {
    const fn default_connections() -> u32 {
        16
    }
}

/// The stream's servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The beginning of the names of topics and consumer groups.
    #[serde(default = "Kafka::default_prefix")]
    pub topic_prefix: String,
    /// Partitions of each topic; fixed once the topics are there.
    #[serde(default = "Kafka::default_partitions")]
    pub partitions: u16,
    /// Copies of each partition: 3 where there are three brokers.
    #[serde(default = "Kafka::default_replication")]
    pub replication: u16,
}

impl Kafka {
    fn default_prefix() -> String {
        "omisys".to_owned()
    }

    const fn default_partitions() -> u16 {
        6
    }

    const fn default_replication() -> u16 {
        1
    }
}

/// The read models' server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mongodb {
    /// `mongodb://user:password@host:port`
    pub url: Secret,
    #[serde(default = "Mongodb::default_database")]
    pub database: String,
}

impl Mongodb {
    fn default_database() -> String {
        "omisys".to_owned()
    }
}

/// The caches' and the limits' server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://:password@host:port`
    pub url: Secret,
    #[serde(default = "Redis::default_prefix")]
    pub key_prefix: String,
}

impl Redis {
    fn default_prefix() -> String {
        "omisys".to_owned()
    }
}

/// Where the services of a cluster are. Names are resolved again and again, to all their addresses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    pub command_api: Vec<String>,
    pub query_api: Vec<String>,
    pub identity: Vec<String>,
}

/// What the services of a cluster prove themselves to each other with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Internal {
    /// At least 32 characters, the same for all. From the environment, never from a file that is shared.
    pub token: Option<Secret>,
}

/// Text that is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}
