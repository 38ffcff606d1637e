//! A demo server of the real binary in a temporary folder, and who works in it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Server, Shop, User};

/// Lets every simulated user have an address of its own.
pub const TRUST_THIS_MACHINE: (&str, &str) = ("OMISYS_GATEWAY__TRUSTED_PROXIES", "[\"127.0.0.1\"]");

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_omisys"))
}

/// A running demo and its users.
pub struct Demo {
    pub server: Server,
    pub shop: Shop,
    pub staff: User,
    pub directory: TempDir,
}

impl Demo {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "run", environment).await
    }

    /// Starts on the data of an earlier demo. `run` keeps this start's idempotency keys apart from earlier ones.
    pub async fn start_in(directory: TempDir, run: &str, environment: &[(&str, &str)]) -> Self {
        let environment = [&[TRUST_THIS_MACHINE], environment].concat();
        let server = Server::start(binary(), &directory.path().join("data"), &[], &environment)
            .await
            .unwrap();
        let shop = Shop::new(server.client.clone(), run);
        let (email, password) = server.account("admin");
        let staff = shop.login(&email, &password).await;
        Self {
            server,
            shop,
            staff,
            directory,
        }
    }

    pub async fn kill(self) -> TempDir {
        self.server.kill().await;
        self.directory
    }

    /// Runs a subcommand on this demo's data.
    pub fn omisys(&self, arguments: &[&str]) -> Output {
        omisys(&self.directory.path().join("data"), arguments)
    }

    /// The audit's report of this demo's log; nothing is too young to count.
    pub fn audit(&self) -> Value {
        let output = self.omisys(&["audit", "--grace", "0", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {output:?}"))
    }
}

/// Runs a subcommand of the real binary on the data in `data_dir`.
pub fn omisys(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap()
}
