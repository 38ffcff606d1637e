//! What `--demo` begins with: a small catalogue and accounts with known passwords.

use axum::Router;
use identity::verifier::Role;
use identity::{Email, Identity, NewPassword};
use serde_json::{Value, json};

use crate::error::{CliError, Context};
use crate::local::{Local, LocalError};

const REMEDY: &str = "start again with an empty --data-dir";

/// (role, e-mail, password): known to everybody, which is why a demo listens on loopback only.
pub const ACCOUNTS: [(Role, &str, &str); 3] = [
    (Role::Admin, "admin@demo.example", "demo-admin-1"),
    (Role::Staff, "staff@demo.example", "demo-staff-1"),
    (Role::Customer, "customer@demo.example", "demo-customer-1"),
];

/// (SKU, title, category, pence, units)
const CATALOGUE: [(&str, &str, &str, i64, u32); 8] = [
    ("MUG-1", "Enamel mug", "kitchen", 1_250, 200),
    ("TEAPOT-1", "Cast-iron teapot", "kitchen", 5_900, 40),
    ("APRON-1", "Linen apron", "kitchen", 3_400, 60),
    ("LAMP-1", "Brass desk lamp", "home", 8_900, 25),
    ("CANDLE-3", "Beeswax candles, three", "home", 1_800, 120),
    ("BLANKET-1", "Wool blanket", "home", 12_500, 15),
    ("NOTEBOOK-1", "Stitched notebook", "stationery", 950, 300),
    ("PEN-1", "Fountain pen, the last one", "stationery", 4_200, 1),
];

/// Makes what is missing through the command API's routes, in a shop that sells in GBP. Safe to run on every start: what
/// is there is found by its keys.
pub async fn seed(command: &Router, identity: &Identity) -> Result<(), CliError> {
    let mut admin = None;
    for (role, email, password) in ACCOUNTS {
        let id = account(identity, role, email, password).await?;
        if role == Role::Admin {
            admin = Some(id);
        }
    }
    let Some(admin) = admin else { return Ok(()) };
    let local = Local::new(command.clone(), identity.clone(), admin);
    for (sku, title, category, price, units) in CATALOGUE {
        product(&local, (sku, title, category), price, units)
            .await
            .context("the demo catalogue could not be made", REMEDY)?;
    }
    Ok(())
}

async fn account(
    identity: &Identity,
    role: Role,
    email: &str,
    password: &str,
) -> Result<event_schemas::AccountId, CliError> {
    const WHAT: &str = "the demo accounts could not be made";
    let email = Email::new(email).context(WHAT, REMEDY)?;
    if let Some(account) = identity.find_account(email.clone()).await.context(WHAT, REMEDY)? {
        return Ok(account.id);
    }
    let password = NewPassword::new(password).context(WHAT, REMEDY)?;
    Ok(identity
        .create_account(email, Some(password), role)
        .await
        .context(WHAT, REMEDY)?
        .id)
}

async fn product(
    local: &Local,
    (sku, title, category): (&str, &str, &str),
    price: i64,
    units: u32,
) -> Result<Value, LocalError> {
    let key = |step: &str| format!("demo-{step}-{sku}");
    let details = json!({ "title": title, "category": category });
    let created = local
        .post("/v1/products", &key("product"), None, &details)
        .await?;
    let path = format!("/v1/products/{}", created["id"].as_str().unwrap_or_default());
    let variant = json!({ "sku": sku, "price": { "amount": price, "currency": "GBP" } });
    local
        .post(&format!("{path}/variants"), &key("variant"), None, &variant)
        .await?;
    local
        .post(&format!("{path}/publish"), &key("publish"), None, &json!({}))
        .await?;
    let receipt = json!({ "quantity": units, "reference": "opening stock" });
    local
        .post(
            &format!("/v1/inventory/{sku}/receipts"),
            &key("stock"),
            None,
            &receipt,
        )
        .await
}
