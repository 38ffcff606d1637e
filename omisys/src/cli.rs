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
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system in one process
    #[command(
        after_help = "Example:\n  omisys serve --demo\n  omisys serve --listen 127.0.0.1:9000 --data-dir /var/lib/omisys"
    )]
    Serve(Serve),
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
    /// Print the OpenAPI 3.1 document of the API
    #[command(after_help = "Example:\n  omisys openapi > openapi.json")]
    Openapi,
    /// Say what is wrong with configuration, ports, stores, clock and permissions, and how to mend it
    #[command(after_help = "Exit code 1 when something is wrong.\n\nExample:\n  omisys doctor")]
    Doctor(Doctor),
    /// Load the system and check that it stayed correct
    #[command(after_help = "Example:\n  omisys bench append --callers 256 --seconds 5 --json")]
    Bench(Bench),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Seed a small catalogue and accounts with known passwords, and pay through the sandbox. Loopback only
    #[arg(long)]
    pub demo: bool,
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
    /// Print the events of one aggregate, with who caused them and why
    #[command(after_help = "Example:\n  omisys events show inventory/MUG-1")]
    Show {
        /// TYPE/ID
        stream: String,
    },
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The address that serve would listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct Bench {
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Concurrent callers
    #[arg(long, default_value_t = 64)]
    pub callers: usize,
    /// How long to load the system
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Commands through the executor alone
    Append,
    /// Add to cart, check out, paid: over HTTP, through sagas and read models
    Checkout,
    /// GET of a product over HTTP
    Read,
}
