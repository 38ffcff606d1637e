//! `omisys serve`: the whole system in one process.

use event_schemas::{AccountId, Currency};
use gateway::MetricsSource;
use identity::verifier::Role;
use identity::{Email, Status};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Profile, Serve};
use crate::config::Config;
use crate::demo;
use crate::embedded::Embedded;
use crate::error::{CliError, Context};

/// Runs until it is told to stop: once softly (what is under way is finished), twice at once.
pub async fn run(
    config: &Config,
    command: &Serve,
    metrics: MetricsSource,
    json: bool,
) -> Result<(), CliError> {
    if config.profile != Profile::Embedded {
        return Err(CliError::usage(
            "serve is the embedded profile, one process",
            "leave the profile out, or run each service of the cluster: see `omisys --help`",
        ));
    }
    let mut config = config.clone();
    // Nobody's money: off unless a demo, an import or a test turns it on.
    config.payments.sandbox |= command.demo;
    config.projections.auto_rebuild &= !command.no_auto_rebuild;
    if let Some(listen) = command.listen {
        config.gateway.listen = listen;
    }
    let listen = config.gateway.listen;
    if command.demo && !listen.ip().is_loopback() {
        return Err(CliError::usage(
            format!("--demo has known passwords and will not listen on {listen}"),
            "listen on 127.0.0.1, or start without --demo and create accounts with `omisys accounts create`",
        ));
    }
    if command.demo && config.shop.currency != Currency::GBP {
        return Err(CliError::usage(
            "the demo's catalogue is priced in GBP",
            "leave shop.currency out, or start without --demo",
        ));
    }
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(listen).await.context(
        &format!("{listen} cannot be listened on"),
        "choose another address with --listen (port 0 picks a free one)",
    )?;
    let embedded = Embedded::start(&config, metrics).await?;
    if !command.demo && !listen.ip().is_loopback() {
        refuse_demo_accounts(&embedded).await?;
    }
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let address = format!(
        "http://{}",
        listener
            .local_addr()
            .context("the address is unknown", "try again")?
    );
    let mut gateway = tokio::spawn(gateway::serve(
        listener,
        embedded.gateway.clone(),
        soft.clone(),
        hard.clone(),
    ));
    if command.demo {
        demo::seed(&embedded.command, &embedded.identity).await?;
        announce_demo(&embedded, &address, json).await?;
    } else {
        announce(&embedded, &address, json).await?;
    }
    tokio::select! {
        () = signals.next() => {}
        ended = &mut gateway => {
            embedded.stop().await;
            ended.context("the gateway was broken off", "start again: nothing acknowledged is lost")?;
            return Err(CliError::failed("the gateway has ended", "start again: nothing acknowledged is lost"));
        }
        reason = embedded.sagas_ended() => {
            embedded.stop().await;
            return Err(CliError::failed(
                format!("the sagas have stopped: {}", reason.unwrap_or_default()),
                "start again: nothing acknowledged is lost",
            ));
        }
    }
    soft.cancel();
    let stop = async {
        let gateway = gateway.await;
        embedded.stop().await;
        gateway
    };
    tokio::select! {
        served = stop => served.context("the gateway was broken off", "start again: nothing acknowledged is lost"),
        () = signals.next() => {
            hard.cancel();
            Err(CliError::failed("stopped at once", "start again: nothing acknowledged is lost"))
        }
    }
}

/// Passwords that everybody knows must not be behind an address that others can reach.
async fn refuse_demo_accounts(embedded: &Embedded) -> Result<(), CliError> {
    const WHAT: &str = "the accounts could not be read";
    const REMEDY: &str = "run `omisys doctor`";
    for (_, email, _) in demo::ACCOUNTS {
        let account = embedded
            .identity
            .find_account(Email::new(email).context(WHAT, REMEDY)?)
            .await
            .context(WHAT, REMEDY)?;
        if account.is_some_and(|account| account.status == Status::Active) {
            return Err(CliError::usage(
                format!("{email} is a demo account with a known password"),
                format!("`omisys accounts disable --email {email}`, or start with another --data-dir"),
            ));
        }
    }
    Ok(())
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).context("signals cannot be listened for", "run on a Unix system");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn announce(embedded: &Embedded, address: &str, json: bool) -> Result<(), CliError> {
    let docs = format!("{address}/docs");
    let accounts = embedded
        .identity
        .accounts(None, 1)
        .await
        .context("the accounts could not be read", "run `omisys doctor`")?;
    if json {
        println!(
            "{}",
            json!({ "ready": true, "address": address, "docs": docs, "accounts": [] })
        );
        return Ok(());
    }
    println!("OMISYS listens on {address}\nThe API, with examples: {docs}");
    if accounts.is_empty() {
        println!("Nobody can sign in yet. Make the first admin, while this runs or before:");
        println!("  printf %s \"$PASSWORD\" | omisys accounts create --role admin --email you@example.com");
    }
    Ok(())
}

async fn announce_demo(embedded: &Embedded, address: &str, json: bool) -> Result<(), CliError> {
    let docs = format!("{address}/docs");
    let curl = first_order(embedded, address).await?;
    if json {
        let accounts: Vec<_> = demo::ACCOUNTS
            .iter()
            .map(|(role, email, password)| json!({ "role": role.as_str(), "email": email, "password": password }))
            .collect();
        println!(
            "{}",
            json!({ "ready": true, "address": address, "docs": docs, "accounts": accounts, "try": curl })
        );
        return Ok(());
    }
    println!("OMISYS listens on {address} (demo: known passwords, sandbox payments)\n");
    println!("The API, with examples:  {docs}");
    println!("What is for sale:        curl -s {address}/v1/products\n");
    println!("Accounts:");
    for (role, email, password) in demo::ACCOUNTS {
        println!("  {:<9} {email:<24} {password}", role.as_str());
    }
    println!("\nPlace an order and see it paid (the token in it lives ten minutes):\n\n{curl}\n");
    println!("Then see why, with the order's id: omisys events show order/<id>");
    Ok(())
}

/// A command that places an order as the demo's customer and waits until it is paid.
async fn first_order(embedded: &Embedded, address: &str) -> Result<String, CliError> {
    const WHAT: &str = "the demo's customer could not sign in";
    const REMEDY: &str = "start again with an empty --data-dir";
    let (_, email, _) = demo::ACCOUNTS
        .into_iter()
        .find(|(role, ..)| *role == Role::Customer)
        .unwrap_or(demo::ACCOUNTS[0]);
    let account = embedded
        .identity
        .find_account(Email::new(email).context(WHAT, REMEDY)?)
        .await
        .context(WHAT, REMEDY)?;
    let id: AccountId = account.ok_or_else(|| CliError::failed(WHAT, REMEDY))?.id;
    let token = embedded
        .identity
        .mint_access_token(id)
        .await
        .context(WHAT, REMEDY)?;
    // A key that no earlier start has used: pasted twice it is one order, after a restart it is a new one.
    let key = format!("demo-{}", token.expires_at.as_second());
    let body = json!({
        "lines": [{ "sku": "MUG-1", "quantity": 2 }],
        "payment": { "method": "sandbox", "token": "tok_ok" }, "country": "GB",
    });
    Ok(format!(
        "curl -s {address}/v1/orders -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \
         -H 'Idempotency-Key: {key}' -H 'Prefer: wait=10' -d '{body}'",
        token.token
    ))
}
