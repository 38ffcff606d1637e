//! A server process that a test can kill at any moment and start again on the same data.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// `omisys serve --demo` on a port of its own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// What it printed when it was ready.
    pub ready: Value,
    /// A client of it.
    pub client: Client,
}

/// Why a server did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the process could not be started: {0}")]
    Spawn(#[from] std::io::Error),
    #[error("it ended or stayed silent before it was ready; see {}", .0.display())]
    NotReady(PathBuf),
}

impl Server {
    /// Starts `binary` on `data_dir` and waits until it says that it is ready. Its log goes to `<data_dir>.log`.
    pub async fn start(
        binary: &Path,
        data_dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, ServerError> {
        let log_path = data_dir.with_extension("log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)?;
        let mut child = Command::new(binary)
            .args([
                "serve",
                "--demo",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data_dir)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| ServerError::NotReady(log_path.clone()))?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await;
        let ready: Option<Value> = match line {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).ok(),
            _ => None,
        };
        let address = ready
            .as_ref()
            .and_then(|ready| ready["address"].as_str().map(str::to_owned));
        match (ready, address) {
            (Some(ready), Some(address)) => Ok(Self {
                child,
                ready,
                client: Client::new(&address),
            }),
            _ => Err(ServerError::NotReady(log_path)),
        }
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// `kill -9`: nothing is flushed, no destructor runs.
    pub async fn kill(mut self) {
        // A process that has ended by itself is as dead.
        let _ = self.child.kill().await;
    }

    /// Waits until the process ends by itself (an injected crash).
    pub async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }
}
