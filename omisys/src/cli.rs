//! The command line: what can be said. What it does is in the module named after the subcommand.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A commerce backend whose source of truth is an event log.
#[derive(Debug, Parser)]
#[command(
    name = "omisys",
    version,
    max_term_width = 110,
    after_help = "Start here:\n  omisys serve --demo"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: ./omisys.toml if present]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which adapters to run on
    #[arg(long, global = true, value_enum)]
    pub profile: Option<Profile>,
    /// Where the embedded profile keeps its files [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// Print the causes of an error, and more of the log
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// The sets of adapters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One process, SQLite, no servers
    Embedded,
    /// A process per service, on PostgreSQL, Kafka, MongoDB and Redis
    Cluster,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the command API is a subcommand, too")]
pub enum Command {
    /// Run the whole system in one process
    #[command(
        after_help = "Example:\n  omisys serve --demo\n  omisys serve --listen 127.0.0.1:9000 --data-dir /var/lib/omisys"
    )]
    Serve(Serve),
    /// Create or upgrade the stores of the configured profile, and the keys if there are none
    #[command(
        after_help = "Run it before the services of a new version start. Safe to run again, and at the same time.\n\nExample:\n  omisys migrate --profile cluster"
    )]
    Migrate(Migrate),
    /// Run the public door of a cluster
    #[command(after_help = "Example:\n  omisys gateway --profile cluster --listen 0.0.0.0:8080")]
    Gateway(Service),
    /// Run a replica of the command API of a cluster
    #[command(after_help = "Example:\n  omisys command-api --profile cluster --listen 0.0.0.0:8081")]
    CommandApi(Service),
    /// Run a replica of the query API of a cluster
    #[command(after_help = "Example:\n  omisys query-api --profile cluster --listen 0.0.0.0:8082")]
    QueryApi(Service),
    /// Run a replica of the identity service of a cluster
    #[command(after_help = "Example:\n  omisys identity --profile cluster --listen 0.0.0.0:8083")]
    Identity(Service),
    /// Run a projector of a cluster: events to read models
    #[command(after_help = "Example:\n  omisys projector --profile cluster --listen 0.0.0.0:8084")]
    Projector(ProjectorService),
    /// Run a saga runner of a cluster: events to what must follow
    #[command(after_help = "Example:\n  omisys sagas --profile cluster --listen 0.0.0.0:8085")]
    Sagas(Service),
    /// Run a relay of a cluster: log to Kafka; one is active, the others wait
    #[command(after_help = "Example:\n  omisys relay --profile cluster --listen 0.0.0.0:8086")]
    Relay(Service),
    /// Ask a service whether it is ready
    #[command(
        after_help = "Exit code 1 when it is not: for health checks of containers.\n\nExample:\n  omisys health --url http://127.0.0.1:8081/readyz"
    )]
    Health(Health),
    /// Sell what a retailer sold, through the real command path
    #[command(subcommand)]
    Import(Import),
    /// The people who may sign in
    #[command(subcommand)]
    Accounts(Accounts),
    /// The keys that sign tokens
    #[command(subcommand)]
    Keys(Keys),
    /// Walk the log and check the global invariants
    #[command(after_help = "Exit code 1 when an invariant is broken.\n\nExample:\n  omisys audit --json")]
    Audit(Audit),
    /// Read the log
    #[command(subcommand)]
    Events(Events),
    /// Fold read models from the log again while they are read, and switch to the result once it is as far and the same
    #[command(
        after_help = "Works beside a running system, and may be killed and run again: it goes on where it stopped.\nExit code 1 when a view differs from what is read; then that goes on being read.\n\nExample:\n  omisys rebuild orders\n  omisys rebuild --all --verify"
    )]
    Rebuild(Rebuild),
    /// The generations of the read models
    #[command(subcommand)]
    Generations(Generations),
    /// What views and policies could not handle: see it, have it tried again, give it up
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// What other programs need to know of events
    #[command(subcommand)]
    Schemas(Schemas),
    /// Write the log, and where the sagas stand, to a file: `CloudEvents`, one a line
    #[command(
        after_help = "Works beside a running server. The file holds live payment tokens: it is made readable by you alone (0600).\nAccounts and keys are not in it.\n\nExample:\n  omisys export-log log.ndjson.gz\n  omisys export-log - | head -1"
    )]
    ExportLog(Transfer),
    /// Bring the log of such a file into an empty store, of either profile, as a new epoch
    #[command(
        after_help = "Stop the services first. All of the file is checked before any of it can be used; killed halfway, it begins anew.\n\nExample:\n  omisys import-log log.ndjson.gz --data-dir moved"
    )]
    ImportLog(Transfer),
    /// Copy the log, what stands beside it, and the accounts into a new folder
    #[command(
        after_help = "Works beside a running server. The folder holds live payment tokens and password hashes; the keys are not in it.\n\nExample:\n  omisys backup /backup/2026-01-31"
    )]
    Backup(BackupDir),
    /// Bring a backup into an empty store, of either profile, as a new epoch
    #[command(
        after_help = "Stop the services first, and put the keys in their place. Sessions end: everybody signs in again.\n\nExample:\n  omisys restore /backup/2026-01-31 --data-dir restored"
    )]
    Restore(BackupDir),
    /// Print the OpenAPI 3.1 document of the API
    #[command(after_help = "Example:\n  omisys openapi > openapi.json")]
    Openapi,
    /// Say what is wrong with configuration, ports, stores, clock and permissions, and how to mend it
    #[command(after_help = "Exit code 1 when something is wrong.\n\nExample:\n  omisys doctor")]
    Doctor(Doctor),
    /// Load the system and check that it stayed correct
    #[command(
        after_help = "On stores of its own, which are removed afterwards, unless --against or rebuild says otherwise.\nExit code 1 when a check fails.\n\nExample:\n  omisys bench checkout --callers 64 --seconds 10\n  omisys bench commands --rate 2000 --seconds 30 --report reports\n  omisys bench append --profile cluster --callers 256 --baseline"
    )]
    Bench(Bench),
    /// Answer with the bytes on standard input: what `bench read` is compared with
    #[command(hide = true)]
    ServeBytes,
}

impl Command {
    /// The process's name in traces.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Gateway(_) => ServiceName::Gateway.name(),
            Self::CommandApi(_) => ServiceName::CommandApi.name(),
            Self::QueryApi(_) => ServiceName::QueryApi.name(),
            Self::Identity(_) => ServiceName::Identity.name(),
            Self::Projector(_) => ServiceName::Projector.name(),
            Self::Sagas(_) => ServiceName::Sagas.name(),
            Self::Relay(_) => ServiceName::Relay.name(),
            Self::Serve(_) => "serve",
            _ => "cli",
        }
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Seed a small catalogue and accounts with known passwords, and pay through the sandbox. Loopback only
    #[arg(long)]
    pub demo: bool,
    /// Do not rebuild views whose version has changed: wait for `omisys rebuild`
    #[arg(long)]
    pub no_auto_rebuild: bool,
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// Also make the demo's small catalogue and accounts with known passwords: never where others can reach it
    #[arg(long)]
    pub demo: bool,
}

#[derive(Debug, Args)]
pub struct Service {
    /// Address to listen on, not to be reached from outside; port 0 picks a free one [default: the service's port on 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct ProjectorService {
    #[command(flatten)]
    pub service: Service,
    /// Do not rebuild views whose version has changed: wait for `omisys rebuild`
    #[arg(long)]
    pub no_auto_rebuild: bool,
}

/// The services, each a subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    Gateway,
    CommandApi,
    QueryApi,
    Identity,
    Projector,
    Sagas,
    Relay,
}

impl ServiceName {
    /// The subcommand, and the name in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Identity => "identity",
            Self::Projector => "projector",
            Self::Sagas => "sagas",
            Self::Relay => "relay",
        }
    }

    /// Where it listens unless it is told otherwise; the gateway where its section says.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "services listen in a cluster")
    )]
    pub const fn port(self) -> u16 {
        match self {
            Self::Gateway => 8080,
            Self::CommandApi => 8081,
            Self::QueryApi => 8082,
            Self::Identity => 8083,
            Self::Projector => 8084,
            Self::Sagas => 8085,
            Self::Relay => 8086,
        }
    }
}

#[derive(Debug, Args)]
pub struct Health {
    /// What to ask
    #[arg(long, default_value = "http://127.0.0.1:8080/readyz")]
    pub url: String,
    /// How long to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub timeout: u64,
}

#[derive(Debug, Subcommand)]
pub enum Import {
    /// Sell the year of the UCI "Online Retail" data set (CSV, or CSV compressed with gzip)
    #[command(
        after_help = "May be killed and run again: nothing is sold twice.\nExit code 1 when the books differ from the file.\n\nExample:\n  omisys import online-retail online-retail.csv.gz --limit 200"
    )]
    OnlineRetail {
        /// The file, with the header InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
        file: PathBuf,
        /// Only the first N sale invoices
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Accounts {
    /// Create an account; the password is read from standard input
    #[command(
        after_help = "Example:\n  printf %s \"$PASSWORD\" | omisys accounts create --role admin --email ops@example.com"
    )]
    Create {
        #[arg(long, value_enum)]
        role: Role,
        #[arg(long)]
        email: String,
    },
    /// List accounts
    #[command(after_help = "Example:\n  omisys accounts list --json")]
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Disable an account and revoke its tokens
    #[command(after_help = "Example:\n  omisys accounts disable --email staff@example.com")]
    Disable {
        #[arg(long)]
        email: String,
    },
    /// Set a new password, read from standard input, and revoke all tokens
    #[command(
        after_help = "Example:\n  printf %s \"$PASSWORD\" | omisys accounts reset-password --email ops@example.com"
    )]
    ResetPassword {
        #[arg(long)]
        email: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Role {
    Customer,
    Staff,
    Admin,
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// List keys and what each is used for
    #[command(after_help = "Example:\n  omisys keys list --json")]
    List,
    /// Publish a new signing key; it signs once every verifier has it
    #[command(after_help = "Example:\n  omisys keys rotate")]
    Rotate,
    /// Stop accepting what a key signed
    #[command(after_help = "Example:\n  omisys keys retire KID")]
    Retire {
        /// The key's id
        kid: String,
    },
}

#[derive(Debug, Args)]
pub struct Audit {
    /// How old something must be before it counts as stuck
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,
    /// Also fold every read model in memory and compare it with what is stored
    #[arg(long)]
    pub views: bool,
}

#[derive(Debug, Subcommand)]
pub enum Events {
    /// Print events as they are appended
    #[command(after_help = "Example:\n  omisys events tail --json")]
    Tail {
        /// Begin after this position instead of at the end of the log
        #[arg(long, value_name = "POSITION")]
        after: Option<u64>,
        /// End at the end of the log instead of waiting for more
        #[arg(long)]
        no_follow: bool,
    },
    /// Print the events of one aggregate, with who caused them and why, and where it stands
    #[command(
        after_help = "Examples:\n  omisys events show inventory/MUG-1\n  omisys events show inventory/MUG-1 --as-of 3\n  omisys events show inventory/MUG-1 --as-of 2026-01-31T09:30:00Z"
    )]
    Show {
        /// TYPE/ID
        stream: String,
        /// Only what had happened when the aggregate came to this version, or by this time
        #[arg(long, value_name = "VERSION|TIME")]
        as_of: Option<event_store::AsOf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List what is parked: what failed, why, since when, and how many wait behind it
    #[command(after_help = "Example:\n  omisys dead-letters list --json")]
    List {
        /// Only of this subscriber, such as orders.g1, sagas or sagas.work
        #[arg(long)]
        subscriber: Option<String>,
    },
    /// Print what is parked under one id, in order
    #[command(
        after_help = "Example:\n  omisys dead-letters show 'orders.g1:order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a'"
    )]
    Show {
        /// As `list` prints it: SUBSCRIBER:SCOPE
        id: String,
    },
    /// Have it handled again, in order, up to the first that fails again. Safe to repeat
    #[command(
        after_help = "Exit code 1 when something stays parked, or nobody has answered yet.\n\nExample:\n  omisys dead-letters retry 'orders.g1:order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a'"
    )]
    Retry {
        /// As `list` prints it: SUBSCRIBER:SCOPE
        id: String,
        /// How long to wait for the outcome
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        wait: u64,
    },
    /// Give up on the first one for good; those behind it wait for a retry
    #[command(
        after_help = "What it asked for never happens, and what was given up is recorded with who did it.\n\nExample:\n  omisys dead-letters skip 'orders.g1:order/0197f3a0-5f0e-8c1e-9d52-0d5a4c8f1b7a' --yes"
    )]
    Skip {
        /// As `list` prints it: SUBSCRIBER:SCOPE
        id: String,
        /// Yes, for good
        #[arg(long)]
        yes: bool,
        /// How long to wait for the outcome
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        wait: u64,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "a flag each")]
pub struct Rebuild {
    /// The views, such as `orders`
    #[arg(value_name = "VIEW", required_unless_present = "all", conflicts_with = "all")]
    pub views: Vec<String>,
    /// All views
    #[arg(long)]
    pub all: bool,
    /// Fold in memory only and compare with what is read: changes nothing
    #[arg(long)]
    pub verify: bool,
    /// List what differs, by document and field
    #[arg(long)]
    pub diff: bool,
    /// Switch to the new generation although it differs: what is read now is what is wrong
    #[arg(long, conflicts_with = "verify")]
    pub accept_differences: bool,
    /// First read the log alone, and say how fast that is beside the rebuild
    #[arg(long, conflicts_with = "verify")]
    pub measure: bool,
    /// Memory for documents, about
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub memory: u32,
}

#[derive(Debug, Subcommand)]
pub enum Generations {
    /// List them: which is read, how far each is
    #[command(after_help = "Example:\n  omisys generations list --json")]
    List,
    /// Delete generations that are not read
    #[command(after_help = "Example:\n  omisys generations drop orders.g1")]
    Drop {
        /// Such as `orders.g1`
        #[arg(
            value_name = "VIEW.gN",
            required_unless_present = "old",
            conflicts_with = "old"
        )]
        names: Vec<String>,
        /// All that were read before, and the ones of other logs
        #[arg(long)]
        old: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Schemas {
    /// Write a JSON Schema of every event version, and the AsyncAPI 3 document of topics, keys, headers and messages
    #[command(
        after_help = "Writes DIR/asyncapi.json and DIR/schemas/<aggregate>/<type>.<version>.json, over what is there.\n\nExample:\n  omisys schemas export events"
    )]
    Export {
        /// Where to; made if it is not there
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Transfer {
    /// The file, compressed if its name ends in .gz; - is standard output or input
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct BackupDir {
    /// The folder of the backup
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The address that serve would listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Args)]
pub struct Bench {
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Steps under way at once; with --rate, the most there may be [default: 64; hot-sku: 200]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4_096))]
    pub callers: Option<usize>,
    /// How long to load the system
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=7_200))]
    pub seconds: u64,
    /// Open loop: so many steps a second arrive, evenly, whatever the system does, and the latency of each counts from
    /// when it should have begun, so that a stall is seen by all who came meanwhile. Without it, a closed loop: each
    /// caller begins its next step when the last has ended. That finds the peak, and says little of latency
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: Option<u64>,
    /// Of append on PostgreSQL: the same commands through stock postgres-es in the same run, and the ratio
    #[arg(long)]
    pub baseline: bool,
    /// What is bought: one line an order, or baskets as the retailer's customers filled them
    #[arg(long, value_enum, default_value_t = Baskets::One)]
    pub baskets: Baskets,
    /// The UCI "Online Retail" data set, as CSV or CSV in gzip; rebuild imports it
    #[arg(long, value_name = "FILE", required_if_eq("baskets", "retail"))]
    pub retail_file: Option<PathBuf>,
    /// Also write SCENARIO.json and SCENARIO.html, a page with plots, into this folder
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Of a cluster: processes of each service, behind one gateway [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: Option<u8>,
    /// Load the system at this address, which must hold the demo and trust this machine as its proxy, and check the
    /// configured profile's log, instead of a system of its own
    #[arg(long, value_name = "URL")]
    pub against: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baskets {
    /// One unit of one SKU, all equally liked
    One,
    /// About 25 lines, of goods as popular as they were; figures are given in lines a second, too
    Retail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Commands through the executor alone: SQLite, or with --profile cluster PostgreSQL
    Append,
    /// Add to cart, over HTTP
    Commands,
    /// Add to cart, check out, paid: over HTTP, through sagas and read models
    Checkout,
    /// Reservations of one SKU through the executor alone, until it is sold out
    HotSku,
    /// GETs of products and orders over HTTP, cached and not, each kind beside a bare handler of the same bytes; each
    /// takes --seconds
    Read,
    /// 95 % reads, 5 % add to cart, over HTTP
    Mixed,
    /// Orders folded from the log again: of --retail-file, or of the configured store
    Rebuild,
}

impl Scenario {
    /// As it is said on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Commands => "commands",
            Self::Checkout => "checkout",
            Self::HotSku => "hot-sku",
            Self::Read => "read",
            Self::Mixed => "mixed",
            Self::Rebuild => "rebuild",
        }
    }
}
