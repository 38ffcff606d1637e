//! Servers of a test's own, which it may kill: `scripts/infra` in a folder and on ports that nobody else uses.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::ports;

/// PostgreSQL, Kafka, MongoDB and Redis, of one test alone. They end with it.
#[derive(Debug)]
pub struct Servers {
    script: PathBuf,
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    ports: [u16; 4],
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerName {
    Postgres,
    Redis,
    Kafka,
    Mongo,
}

impl ServerName {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::Kafka, Self::Mongo];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Mongo => "mongo",
        }
    }
}

impl Servers {
    /// Starts them with `script`, which is `scripts/infra`.
    ///
    /// # Panics
    /// If one does not start.
    pub async fn start(script: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        // PostgreSQL and Redis run as users of their own.
        make_public(directory.path());
        // Kafka takes a second one for its controller.
        let free = ports::free(5).expect("ports");
        let ports = [free[0], free[1], free[2], free[3]];
        let environment = vec![
            (
                "OMISYS_INFRA_DIR",
                directory.path().join("servers").display().to_string(),
            ),
            ("OMISYS_INFRA_PG_PORT", ports[0].to_string()),
            ("OMISYS_INFRA_REDIS_PORT", ports[1].to_string()),
            ("OMISYS_INFRA_KAFKA_PORT", ports[2].to_string()),
            ("OMISYS_INFRA_MONGO_PORT", ports[3].to_string()),
            ("OMISYS_INFRA_KAFKA_CONTROLLER_PORT", free[4].to_string()),
        ];
        let servers = Self {
            script: script.to_owned(),
            directory,
            environment,
            ports,
        };
        servers.run(&["up"]).await;
        servers
    }

    /// `kill -9`; of PostgreSQL an immediate stop.
    pub async fn kill(&self, server: ServerName) {
        self.run(&["kill", server.name()]).await;
    }

    /// Starts a killed one again on its data.
    pub async fn restart(&self, server: ServerName) {
        self.run(&["start", server.name()]).await;
    }

    /// What the processes of a cluster on these servers are configured with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let [postgres, redis, kafka, mongo] = self.ports;
        let pair = |key: &str, value: String| (key.to_owned(), value);
        vec![
            pair(
                "OMISYS_POSTGRES__URL",
                format!("postgres://omisys:omisys@127.0.0.1:{postgres}/postgres"),
            ),
            pair("OMISYS_KAFKA__BROKERS", format!("127.0.0.1:{kafka}")),
            pair("OMISYS_KAFKA__PARTITIONS", "3".to_owned()),
            pair("OMISYS_MONGODB__URL", format!("mongodb://127.0.0.1:{mongo}")),
            pair("OMISYS_REDIS__URL", format!("redis://127.0.0.1:{redis}")),
        ]
    }

    /// Sends `FLUSHALL` again and again until it is dropped.
    pub fn flush_redis_for_ever(&self) -> impl Future<Output = ()> + Send + use<> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let port = self.ports[1];
        async move {
            loop {
                let Ok(mut redis) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                // Redis's own protocol, inline: <https://redis.io/docs/latest/develop/reference/protocol-spec/>
                let mut answer = [0; 5];
                while redis.write_all(b"FLUSHALL\r\n").await.is_ok()
                    && redis.read_exact(&mut answer).await.is_ok()
                {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        }
    }

    async fn run(&self, arguments: &[&str]) {
        let output = Command::new(&self.script)
            .args(arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .output()
            .await
            .expect("scripts/infra runs");
        assert!(
            output.status.success(),
            "scripts/infra {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let stopped = std::process::Command::new(&self.script)
            .arg("down")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("servers in {} were left behind", self.directory.path().display());
        }
    }
}

fn make_public(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("our own folder");
}
