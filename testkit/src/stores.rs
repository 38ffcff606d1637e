//! The stores of one test's cluster: a database, topics, documents and keys of its own on servers that tests share.

use database::testing::TestDatabase;

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
    /// The beginning of names of topics, documents' database and keys.
    name: String,
}

impl ClusterStores {
    /// Makes them on the servers that `OMISYS_TEST_…` name.
    ///
    /// # Panics
    /// If a variable is missing or PostgreSQL is not there.
    pub async fn create() -> Self {
        let postgres = TestDatabase::postgres()
            .await
            .expect("the cluster is to be tested");
        let name = postgres
            .url()
            .rsplit('/')
            .next()
            .expect("a URL ends in its database")
            .to_owned();
        Self { postgres, name }
    }

    /// The name of what is this test's own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the processes of the cluster are configured with.
    ///
    /// # Panics
    /// If a variable is missing.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |key: &str, value: String| (key.to_owned(), value);
        vec![
            pair("OMISYS_POSTGRES__URL", self.postgres.url().to_owned()),
            pair("OMISYS_POSTGRES__MAX_CONNECTIONS", "6".to_owned()),
            pair("OMISYS_KAFKA__BROKERS", server("OMISYS_TEST_KAFKA_BROKERS")),
            pair("OMISYS_KAFKA__TOPIC_PREFIX", self.name.replace('_', "-")),
            pair("OMISYS_KAFKA__PARTITIONS", "3".to_owned()),
            pair("OMISYS_MONGODB__URL", server("OMISYS_TEST_MONGODB_URL")),
            pair("OMISYS_MONGODB__DATABASE", self.name.clone()),
            pair("OMISYS_REDIS__URL", server("OMISYS_TEST_REDIS_URL")),
            pair("OMISYS_REDIS__KEY_PREFIX", self.name.clone()),
        ]
    }
}

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names the server"))
}
