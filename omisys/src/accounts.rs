//! `omisys accounts`: the people who may sign in.

use std::io::Read;

use database::Database;
use event_schemas::Clock;
use identity::verifier::Role;
use identity::{Account, Email, Identity, NewPassword, Status};
use serde_json::{Value, json};

use crate::cli::{self, Accounts};
use crate::config::Config;
use crate::error::{CliError, Context};
use crate::stores::{key_source, open_existing_database, open_or_make_database};

const REMEDY: &str = "run `omisys accounts list`";

/// Runs the subcommand. Works beside a running server.
pub async fn run(config: &Config, command: &Accounts, json: bool) -> Result<(), CliError> {
    let identity = match command {
        Accounts::Create { .. } => open_or_make(config).await?,
        _ => open(config).await?,
    };
    match command {
        Accounts::Create { role, email } => {
            let account = identity
                .create_account(parse(email)?, Some(password()?), Role::from(*role))
                .await;
            show(
                &account.context("the account could not be created", REMEDY)?,
                json,
            );
        }
        Accounts::List { limit } => {
            let accounts = identity.accounts(None, *limit as usize).await;
            let accounts = accounts.context("the accounts could not be read", "run `omisys doctor`")?;
            for account in &accounts {
                show(account, json);
            }
        }
        Accounts::Disable { email } => {
            let id = find(&identity, email).await?.id;
            let account = identity.set_status(id, Status::Disabled).await;
            show(
                &account.context("the account could not be disabled", REMEDY)?,
                json,
            );
        }
        Accounts::ResetPassword { email } => {
            let id = find(&identity, email).await?.id;
            let account = identity.reset_password(id, password()?).await;
            show(&account.context("the password could not be reset", REMEDY)?, json);
        }
    }
    Ok(())
}

/// Opens accounts and keys in a database that is there: a mistyped directory must not become an empty shop.
pub async fn open(config: &Config) -> Result<Identity, CliError> {
    open_in(config, open_existing_database(config).await?).await
}

/// Opens accounts and keys, making both if they are missing.
async fn open_or_make(config: &Config) -> Result<Identity, CliError> {
    open_in(config, open_or_make_database(config).await?).await
}

/// As [`open`], in a database that is open already.
pub async fn open_in(config: &Config, database: Database) -> Result<Identity, CliError> {
    Identity::open(
        database,
        key_source(config),
        config.identity.clone(),
        Clock::System,
    )
    .await
    .context("accounts and keys could not be opened", "run `omisys doctor`")
}

async fn find(identity: &Identity, email: &str) -> Result<Account, CliError> {
    let found = identity
        .find_account(parse(email)?)
        .await
        .context("the accounts could not be read", "run `omisys doctor`")?;
    found.ok_or_else(|| CliError::failed(format!("nobody has the address {email}"), REMEDY))
}

fn parse(email: &str) -> Result<Email, CliError> {
    Email::new(email)
        .map_err(|error| CliError::usage(format!("{email:?}: {error}"), "give an e-mail address"))
}

/// The password on standard input, without the line end.
fn password() -> Result<NewPassword, CliError> {
    let remedy = "pipe it in: printf %s \"$PASSWORD\" | omisys accounts …";
    let mut text = String::new();
    std::io::stdin()
        .take(4_096)
        .read_to_string(&mut text)
        .context("no password could be read", remedy)?;
    NewPassword::new(text.trim_end_matches(['\r', '\n']))
        .map_err(|error| CliError::usage(format!("the password will not do: {error}"), remedy))
}

fn show(account: &Account, json: bool) {
    let Account {
        id,
        email,
        role,
        status,
        ..
    } = account;
    let email = email.as_ref().map(Email::as_str);
    if json {
        let line: Value = json!({ "id": id, "email": email, "role": role.as_str(), "status": format!("{status:?}").to_lowercase() });
        println!("{line}");
    } else {
        println!("{id}  {:<8}  {status:?}  {}", role.as_str(), email.unwrap_or("-"));
    }
}

impl From<cli::Role> for Role {
    fn from(role: cli::Role) -> Self {
        match role {
            cli::Role::Customer => Self::Customer,
            cli::Role::Staff => Self::Staff,
            cli::Role::Admin => Self::Admin,
        }
    }
}
