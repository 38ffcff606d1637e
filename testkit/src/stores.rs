//! The stores of one test's cluster: a database, topics, documents and keys of its own on servers that tests share.

use std::time::Duration;

use database::DatabaseError;
use database::testing::TestDatabase;
use event_bus::{Kafka, KafkaOptions};
use projections::{Mongo, MongoOptions};

/// How long a server may take to remove a test's things.
const REMOVAL: Duration = Duration::from_secs(20);
/// Partitions of each topic: more than one, and few enough for many tests.
const PARTITIONS: u16 = 3;

/// Whether tests of the cluster profile are to run. With `CI` set they must: a missing server is a failure.
pub fn cluster_is_to_be_tested() -> bool {
    let wanted = ["OMISYS_TEST_CLUSTER", "CI"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if !wanted {
        eprintln!("not tested: OMISYS_TEST_CLUSTER is not set, so there are no servers");
    }
    wanted
}

/// Stores that nobody else uses. They are removed when this is dropped.
#[derive(Debug)]
pub struct ClusterStores {
    postgres: TestDatabase,
    servers: Box<ClusterServers>,
    /// The beginning of names of topics, documents' database and keys.
    name: String,
}

/// The servers that stores are made on.
#[derive(Clone)]
pub struct ClusterServers {
    /// A URL whose user may make databases.
    pub postgres: String,
    pub kafka_brokers: String,
    /// Of each topic.
    pub partitions: u16,
    pub mongodb: String,
    pub redis: String,
}

impl std::fmt::Debug for ClusterServers {
    /// Without the URLs, which hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterServers")
            .field("kafka_brokers", &self.kafka_brokers)
            .finish_non_exhaustive()
    }
}

impl ClusterServers {
    /// Those that `OMISYS_TEST_…` name.
    ///
    /// # Panics
    /// If a variable is missing.
    pub fn of_tests() -> Self {
        Self {
            postgres: server("OMISYS_TEST_POSTGRES_URL"),
            kafka_brokers: server("OMISYS_TEST_KAFKA_BROKERS"),
            partitions: PARTITIONS,
            mongodb: server("OMISYS_TEST_MONGODB_URL"),
            redis: server("OMISYS_TEST_REDIS_URL"),
        }
    }
}

impl ClusterStores {
    /// Makes them on the servers that `OMISYS_TEST_…` name.
    ///
    /// # Panics
    /// If a variable is missing or PostgreSQL is not there.
    pub async fn create() -> Self {
        Self::create_on(ClusterServers::of_tests())
            .await
            .expect("PostgreSQL answers")
    }

    /// Makes them on these servers. Only PostgreSQL is asked for anything yet.
    pub async fn create_on(servers: ClusterServers) -> Result<Self, DatabaseError> {
        let postgres = TestDatabase::postgres_on(&servers.postgres).await?;
        let (address, _) = postgres.url().split_once('?').unwrap_or((postgres.url(), ""));
        let name = address.rsplit('/').next().unwrap_or(address).to_owned();
        Ok(Self {
            postgres,
            servers: Box::new(servers),
            name,
        })
    }

    /// The name of what is this test's own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the database.
    pub fn postgres_url(&self) -> &str {
        self.postgres.url()
    }

    /// What the processes of the cluster are configured with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |key: &str, value: String| (key.to_owned(), value);
        vec![
            pair("OMISYS_POSTGRES__URL", self.postgres.url().to_owned()),
            pair("OMISYS_POSTGRES__MAX_CONNECTIONS", "6".to_owned()),
            pair("OMISYS_KAFKA__BROKERS", self.servers.kafka_brokers.clone()),
            pair("OMISYS_KAFKA__TOPIC_PREFIX", self.topic_prefix()),
            pair("OMISYS_KAFKA__PARTITIONS", self.servers.partitions.to_string()),
            pair("OMISYS_MONGODB__URL", self.servers.mongodb.clone()),
            pair("OMISYS_MONGODB__DATABASE", self.name.clone()),
            pair("OMISYS_REDIS__URL", self.servers.redis.clone()),
            pair("OMISYS_REDIS__KEY_PREFIX", self.name.clone()),
        ]
    }
}

impl ClusterStores {
    /// The beginning of the names of topics and groups.
    pub fn topic_prefix(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The stream.
    pub fn kafka(&self) -> Kafka {
        Kafka::new(KafkaOptions {
            brokers: self.servers.kafka_brokers.clone(),
            topic_prefix: self.topic_prefix(),
            partitions: self.servers.partitions,
            ..KafkaOptions::default()
        })
    }
}

impl Drop for ClusterStores {
    /// What is cached in Redis expires by itself; the database goes with its handle.
    fn drop(&mut self) {
        let (kafka, url, name) = (self.kafka(), self.servers.mongodb.clone(), self.name.clone());
        // A runtime of its own: the test's may be ending.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async move {
                let options = MongoOptions { url, database: name };
                let removal = async {
                    Mongo::connect(&options).await.ok()?.drop_database().await.ok()?;
                    kafka.delete_topics().await.ok()
                };
                tokio::time::timeout(REMOVAL, removal).await.ok().flatten()
            })
        })
        .join();
        if !matches!(removed, Ok(Some(()))) {
            eprintln!("documents or topics of {} were left behind", self.name);
        }
    }
}

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names the server"))
}
