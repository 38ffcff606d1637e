//! The servers of a cluster, and how they are reached.

use database::{Database, Postgres, PostgresOptions};
use event_bus::{Kafka, KafkaOptions};
use event_store::Log;
use limits::Limits;
use projections::{Mongo, MongoOptions, Redis, RedisOptions, Views, ViewsCluster};
use testkit::{ClusterServers, ClusterStores};

use crate::config::Config;
use crate::error::{CliError, Context};

/// The log's database. With `migrate` it may create and upgrade tables; otherwise each component checks them.
pub async fn open_database(config: &Config, migrate: bool) -> Result<Database, CliError> {
    let section = required(config.postgres.as_ref(), "postgres.url")?;
    let options = PostgresOptions {
        url: section.url.expose().to_owned(),
        max_connections: section.max_connections,
        migrate,
    };
    let postgres = Postgres::connect(&options).await.context(
        "PostgreSQL could not be reached",
        "check postgres.url, and that the server runs",
    )?;
    Ok(postgres.into())
}

/// The stream. Nothing is asked of the brokers yet.
pub fn kafka(config: &Config) -> Result<Kafka, CliError> {
    let section = required(config.kafka.as_ref(), "kafka.brokers")?;
    Ok(Kafka::new(KafkaOptions {
        brokers: section.brokers.clone(),
        topic_prefix: section.topic_prefix.clone(),
        partitions: section.partitions,
        replication: section.replication,
        ..KafkaOptions::default()
    }))
}

/// The documents' server.
pub async fn mongo(config: &Config) -> Result<Mongo, CliError> {
    let section = required(config.mongodb.as_ref(), "mongodb.url")?;
    let options = MongoOptions {
        url: section.url.expose().to_owned(),
        database: section.database.clone(),
    };
    Mongo::connect(&options).await.context(
        "the options of MongoDB are wrong",
        "check mongodb.url and mongodb.database",
    )
}

/// The documents' cache. Connects when it is used.
pub fn redis(config: &Config) -> Result<Redis, CliError> {
    let section = required(config.redis.as_ref(), "redis.url")?;
    let options = RedisOptions::new(section.url.expose(), format!("{}:views", section.key_prefix));
    Redis::open(options).context("redis.url is wrong", "write redis://host:port")
}

/// The read models of the log in `database`.
pub async fn views(config: &Config, database: &Database, log: &Log) -> Result<Views, CliError> {
    let cluster = ViewsCluster {
        mongo: mongo(config).await?,
        redis: redis(config)?,
        database: database.clone(),
        partitioning: kafka(config)?.partitioning(),
    };
    Views::open_cluster(cluster, log.identity()).await.context(
        "the read models could not be opened",
        "check that MongoDB runs, and run `omisys doctor`",
    )
}

/// What requests and attempts are counted in: shared by all processes.
pub fn limits(config: &Config) -> Result<Limits, CliError> {
    let section = required(config.redis.as_ref(), "redis.url")?;
    let options = limits::RedisOptions::new(section.url.expose(), format!("{}:limits", section.key_prefix));
    let redis = limits::Redis::open(options).context("redis.url is wrong", "write redis://host:port")?;
    Ok(Limits::Redis(redis))
}

/// Stores on the configured servers that nobody else uses: for benchmarks. They are removed with what is returned.
pub async fn own(config: &Config) -> Result<ClusterStores, CliError> {
    let kafka = required(config.kafka.as_ref(), "kafka.brokers")?;
    let servers = ClusterServers {
        postgres: postgres_url(config)?.to_owned(),
        kafka_brokers: kafka.brokers.clone(),
        partitions: kafka.partitions,
        mongodb: required(config.mongodb.as_ref(), "mongodb.url")?
            .url
            .expose()
            .to_owned(),
        redis: required(config.redis.as_ref(), "redis.url")?
            .url
            .expose()
            .to_owned(),
    };
    ClusterStores::create_on(servers).await.context(
        "a database of its own could not be made",
        "check postgres.url, that the server runs, and that its user may create databases",
    )
}

/// The configuration with these stores in it.
pub fn in_own(config: &Config, stores: &ClusterStores) -> Config {
    let mut config = config.clone();
    if let Some(postgres) = &mut config.postgres {
        postgres.url = stores.postgres_url().to_owned().into();
    }
    if let Some(kafka) = &mut config.kafka {
        kafka.topic_prefix = stores.topic_prefix();
    }
    if let Some(mongodb) = &mut config.mongodb {
        stores.name().clone_into(&mut mongodb.database);
    }
    if let Some(redis) = &mut config.redis {
        stores.name().clone_into(&mut redis.key_prefix);
    }
    config
}

/// Where the log's server is.
pub fn postgres_url(config: &Config) -> Result<&str, CliError> {
    Ok(required(config.postgres.as_ref(), "postgres.url")?.url.expose())
}

/// A section of the configuration that the cluster profile cannot do without.
fn required<'c, T>(section: Option<&'c T>, key: &str) -> Result<&'c T, CliError> {
    section.ok_or_else(|| {
        CliError::usage(
            format!("the configuration is wrong: {key}: the cluster profile needs it"),
            "set it in the file, or in its OMISYS_<SECTION>__<KEY> variable",
        )
    })
}
