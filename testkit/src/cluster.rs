//! A cluster of the real binary: a process per service on loopback, each of which a test can kill and start again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::client::Client;
use crate::ports;
use crate::process::ServerError;

/// From the first process to a gateway that is ready; joining consumer groups takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A process of a cluster; more replicas of a service are told apart by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub service: Service,
    pub replica: u8,
}

/// The services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Identity,
    CommandApi,
    QueryApi,
    Relay,
    Sagas,
    Projector,
    Gateway,
}

impl Service {
    /// Each of them, in the order in which they are started.
    pub const ALL: [Self; 7] = [
        Self::Identity,
        Self::CommandApi,
        Self::QueryApi,
        Self::Relay,
        Self::Sagas,
        Self::Projector,
        Self::Gateway,
    ];

    /// The subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Relay => "relay",
            Self::Sagas => "sagas",
            Self::Projector => "projector",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it works with private keys. The others get along without.
    const fn has_keys(self) -> bool {
        matches!(self, Self::Identity | Self::CommandApi)
    }

    /// Its first replica.
    pub const fn first(self) -> Member {
        Member {
            service: self,
            replica: 0,
        }
    }
}

/// A running cluster. Its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    ports: BTreeMap<Member, u16>,
    processes: BTreeMap<Member, Child>,
    /// A client of the gateway.
    pub client: Client,
}

impl Cluster {
    /// Makes the stores that `environment` names, with the demo in them, and starts `replicas` of each service; of the
    /// gateway one. Logs go to `directory`.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        environment: Vec<(String, String)>,
        replicas: u8,
    ) -> Result<Self, ServerError> {
        let members = Service::ALL.into_iter().flat_map(|service| {
            let count = if service == Service::Gateway { 1 } else { replicas };
            (0..count).map(move |replica| Member { service, replica })
        });
        let members: Vec<Member> = members.collect();
        let ports = ports::free(members.len())?;
        let ports: BTreeMap<Member, u16> = members.into_iter().zip(ports).collect();
        let urls = |service: Service| {
            let urls: Vec<String> = ports
                .iter()
                .filter(|(member, _)| member.service == service)
                .map(|(_, port)| format!("\"http://127.0.0.1:{port}\""))
                .collect();
            format!("[{}]", urls.join(","))
        };
        let mut environment = environment;
        environment.extend([
            ("OMISYS_PROFILE".to_owned(), "cluster".to_owned()),
            (
                "OMISYS_DATA_DIR".to_owned(),
                directory.join("data").display().to_string(),
            ),
            (
                "OMISYS_KEYS__DIRECTORY".to_owned(),
                directory.join("keys").display().to_string(),
            ),
            ("OMISYS_PAYMENTS__SANDBOX".to_owned(), "true".to_owned()),
            ("OMISYS_UPSTREAMS__IDENTITY".to_owned(), urls(Service::Identity)),
            (
                "OMISYS_UPSTREAMS__COMMAND_API".to_owned(),
                urls(Service::CommandApi),
            ),
            ("OMISYS_UPSTREAMS__QUERY_API".to_owned(), urls(Service::QueryApi)),
            (
                "OMISYS_INTERNAL__TOKEN".to_owned(),
                "known-to-this-test-and-its-processes-only".to_owned(),
            ),
        ]);
        let gateway = ports[&Service::Gateway.first()];
        let mut cluster = Self {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            environment,
            ports,
            processes: BTreeMap::new(),
            client: Client::new(&format!("http://127.0.0.1:{gateway}")),
        };
        std::fs::create_dir_all(directory.join("keys"))?;
        let migrated = cluster
            .command(&["migrate", "--demo"], "migrate")?
            .status()
            .await?;
        if !migrated.success() {
            return Err(ServerError::NotReady(cluster.log("migrate")));
        }
        let members: Vec<Member> = cluster.ports.keys().copied().collect();
        for member in &members {
            cluster.spawn(*member)?;
        }
        for member in members {
            cluster.ready(member).await?;
        }
        Ok(cluster)
    }

    /// What the processes are configured with.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Where a process listens.
    pub fn address(&self, member: Member) -> String {
        format!("http://127.0.0.1:{}", self.ports[&member])
    }

    /// Each process there is.
    pub fn members(&self) -> Vec<Member> {
        self.ports.keys().copied().collect()
    }

    /// The id of each running process, by its name.
    pub fn pids(&self) -> Vec<(String, u32)> {
        let named = self.processes.iter().filter_map(|(member, process)| {
            let Member { service, replica } = member;
            let name = match replica {
                0 => service.name().to_owned(),
                replica => format!("{}-{replica}", service.name()),
            };
            Some((name, process.id()?))
        });
        named.collect()
    }

    /// `kill -9`; waits until the process is gone.
    pub async fn kill(&mut self, member: Member) {
        if let Some(mut process) = self.processes.remove(&member) {
            // A process that has ended by itself is as dead.
            let _ = process.kill().await;
        }
    }

    /// Starts a killed process again, on its old port, and waits until it is ready.
    pub async fn restart(&mut self, member: Member) -> Result<(), ServerError> {
        self.spawn(member)?;
        self.ready(member).await
    }

    /// As [`Cluster::restart`] without waiting.
    pub fn spawn(&mut self, member: Member) -> Result<(), ServerError> {
        let listen = format!("127.0.0.1:{}", self.ports[&member]);
        let name = format!("{}-{}", member.service.name(), member.replica);
        let mut command = self.command(&[member.service.name(), "--listen", &listen], &name)?;
        if !member.service.has_keys() {
            command.env("OMISYS_KEYS__DIRECTORY", self.directory.join("no-keys"));
        }
        let process = command.spawn()?;
        self.processes.insert(member, process);
        Ok(())
    }

    /// Waits until a process says that it is ready.
    pub async fn ready(&mut self, member: Member) -> Result<(), ServerError> {
        let name = format!("{}-{}", member.service.name(), member.replica);
        let client = Client::new(&self.address(member));
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let asked = client.send(Method::GET, "/readyz", &[], "").await;
            if asked.is_ok_and(|reply| reply.status.is_success()) {
                return Ok(());
            }
            let ended = self
                .processes
                .get_mut(&member)
                .is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return Err(ServerError::NotReady(self.log(&name)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn command(&self, arguments: &[&str], name: &str) -> std::io::Result<Command> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(name))?;
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }
}
