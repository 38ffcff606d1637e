//! A demo of the real binary, embedded or as a cluster of processes, and who works in it.
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each test file uses its part"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Server, Shop, User};

/// Lets every simulated user have an address of its own.
pub const TRUST_THIS_MACHINE: (&str, &str) = ("OMISYS_GATEWAY__TRUSTED_PROXIES", "[\"127.0.0.1\"]");

/// (role, e-mail, password) of the demo.
const ACCOUNTS: [(&str, &str, &str); 3] = [
    ("admin", "admin@demo.example", "demo-admin-1"),
    ("staff", "staff@demo.example", "demo-staff-1"),
    ("customer", "customer@demo.example", "demo-customer-1"),
];

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_omisys"))
}

/// Which adapters a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Embedded,
    #[cfg(feature = "cluster")]
    Cluster,
}

/// The turn of a test that starts a cluster: of one binary's, one runs at a time.
#[cfg(feature = "cluster")]
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// Makes a test for each profile of each of these functions, which take a [`Profile`].
macro_rules! on_both_profiles {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::common::Profile::Embedded).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if testkit::cluster_is_to_be_tested() {
                    // One at a time: seven processes each want to be answered within their time limits.
                    let _alone = super::common::alone().await;
                    super::$test(super::common::Profile::Cluster).await;
                }
            })*
        }
    };
}
pub(crate) use on_both_profiles;

/// A running demo and its users.
pub struct Demo {
    pub system: System,
    pub shop: Shop,
    pub staff: User,
    pub directory: Folder,
}

/// What a demo runs on.
pub enum System {
    Embedded(Box<Server>),
    #[cfg(feature = "cluster")]
    Cluster {
        cluster: Box<testkit::Cluster>,
        /// Gone with the demo; none on servers of its own.
        stores: Option<testkit::ClusterStores>,
    },
}

impl Demo {
    pub async fn start(profile: Profile) -> Self {
        match profile {
            Profile::Embedded => Self::start_with(&[]).await,
            #[cfg(feature = "cluster")]
            Profile::Cluster => Self::start_cluster(1, &[]).await,
        }
    }

    pub async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), "run", environment).await
    }

    /// Starts on the data of an earlier demo. `run` keeps this start's idempotency keys apart from earlier ones.
    pub async fn start_in(directory: Folder, run: &str, environment: &[(&str, &str)]) -> Self {
        let environment = [&[TRUST_THIS_MACHINE], environment].concat();
        let server = Server::start(binary(), &directory.path().join("data"), &[], &environment)
            .await
            .unwrap();
        let shop = Shop::new(server.client.clone(), run);
        Self::of(System::Embedded(Box::new(server)), shop, directory).await
    }

    /// A cluster with so many replicas of each service, on stores of its own.
    #[cfg(feature = "cluster")]
    pub async fn start_cluster(replicas: u8, environment: &[(&str, &str)]) -> Self {
        let stores = testkit::ClusterStores::create().await;
        let given = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let environment = stores.environment().into_iter().chain(given).collect();
        Self::start_processes(Folder::new(), Some(stores), environment, replicas).await
    }

    /// A cluster on stores that hold something already, with the keys in `directory`.
    #[cfg(feature = "cluster")]
    pub async fn start_cluster_in(
        directory: Folder,
        stores: testkit::ClusterStores,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self::start_processes(directory, Some(stores), environment, 1).await
    }

    /// Kills every process of the cluster profile, and leaves what they worked on.
    #[cfg(feature = "cluster")]
    pub async fn kill_cluster(mut self) -> (Folder, testkit::ClusterStores) {
        for member in self.cluster().members() {
            self.cluster().kill(member).await;
        }
        match self.system {
            System::Cluster {
                stores: Some(stores), ..
            } => (self.directory, stores),
            _ => panic!("the stores are not ours alone"),
        }
    }

    /// A cluster on servers of its own.
    #[cfg(feature = "cluster")]
    pub async fn start_on(servers: &testkit::Servers) -> Self {
        Self::start_processes(Folder::new(), None, servers.environment(), 1).await
    }

    #[cfg(feature = "cluster")]
    async fn start_processes(
        directory: Folder,
        stores: Option<testkit::ClusterStores>,
        mut environment: Vec<(String, String)>,
        replicas: u8,
    ) -> Self {
        let (key, value) = TRUST_THIS_MACHINE;
        environment.push((key.to_owned(), value.to_owned()));
        let started = testkit::Cluster::start(binary(), directory.path(), environment, replicas).await;
        let cluster = Box::new(started.unwrap());
        let shop = Shop::new(cluster.client.clone(), "run");
        Self::of(System::Cluster { cluster, stores }, shop, directory).await
    }

    async fn of(system: System, shop: Shop, directory: Folder) -> Self {
        let (_, email, password) = ACCOUNTS[0];
        let staff = shop.login(email, password).await;
        Self {
            system,
            shop,
            staff,
            directory,
        }
    }

    /// The credentials of the demo account with this role, as (email, password).
    pub fn account(role: &str) -> (String, String) {
        let (_, email, password) = ACCOUNTS
            .into_iter()
            .find(|account| account.0 == role)
            .expect("an account of that role");
        (email.to_owned(), password.to_owned())
    }

    /// Kills the one process of the embedded profile.
    pub async fn kill(self) -> Folder {
        match self.system {
            System::Embedded(server) => server.kill().await,
            #[cfg(feature = "cluster")]
            System::Cluster { .. } => panic!("a cluster is killed service by service"),
        }
        self.directory
    }

    /// The one process of the embedded profile.
    pub fn server(&mut self) -> &mut Server {
        match &mut self.system {
            System::Embedded(server) => server,
            #[cfg(feature = "cluster")]
            System::Cluster { .. } => panic!("a cluster has many processes"),
        }
    }

    /// The processes of the cluster profile.
    #[cfg(feature = "cluster")]
    pub fn cluster(&mut self) -> &mut testkit::Cluster {
        match &mut self.system {
            System::Embedded(_) => panic!("one process is no cluster"),
            System::Cluster { cluster, .. } => cluster,
        }
    }

    /// The stores of the cluster profile, on servers that tests share.
    #[cfg(feature = "cluster")]
    pub fn stores(&self) -> &testkit::ClusterStores {
        match &self.system {
            System::Cluster {
                stores: Some(stores), ..
            } => stores,
            _ => panic!("the stores are not ours alone"),
        }
    }

    /// Runs a subcommand on this demo's data.
    pub fn omisys(&self, arguments: &[&str]) -> Output {
        match &self.system {
            System::Embedded(_) => omisys(&self.directory.path().join("data"), arguments),
            #[cfg(feature = "cluster")]
            System::Cluster { cluster, .. } => Command::new(binary())
                .args(arguments)
                .envs(cluster.environment().iter().map(|(key, value)| (key, value)))
                .output()
                .unwrap(),
        }
    }

    /// The audit's report of this demo's log; nothing is too young to count.
    pub fn audit(&self) -> Value {
        let output = self.omisys(&["audit", "--grace", "0", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {output:?}"))
    }
}

/// Where the processes of a demo work.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    /// What the processes said, where a test failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", logs(self.path()));
        }
    }
}

/// The ends of the logs in `directory`.
fn logs(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "log")
        {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            let _ = writeln!(text, "== {}\n{end}", entry.path().display());
        }
    }
    text
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
