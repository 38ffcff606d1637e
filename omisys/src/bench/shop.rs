//! Who buys, and what.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_schemas::Clock;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use identity::ACCESS_TOKEN_LIFE;
use serde_json::{Value, json};
use testkit::{Client, ClientError, Reply, Shop, User};
use tokio::time::{Instant, timeout};

use crate::cli::{Baskets, Bench, Scenario};
use crate::demo;
use crate::error::{CliError, Context};
use crate::import::file;

/// Requests under way at once while the shop is being set up.
const AT_ONCE: usize = 32;
/// Products of a shop without a retailer's file.
const PRODUCTS: usize = 64;
/// As [`PRODUCTS`], where they are only read.
const PRODUCTS_TO_READ: usize = 1_000;
/// Guests that take turns at one caller's place, so that one whose order was paid has time to get a new cart.
const TURNS: usize = 4;
/// Items after which a cart is emptied: below its limits of lines and of units a line.
const ITEMS: u32 = 150;
/// What a cart may hold.
const MAX_LINES: usize = 200;
const MAX_UNITS: u32 = 999;
/// Never sold out.
const STOCK: u32 = 100_000_000;

/// After which a token is renewed: at four fifths of its life.
const RENEW_AFTER: Duration = Duration::from_secs(ACCESS_TOKEN_LIFE.as_secs() / 5 * 4);
/// How long a renewal may take, and until one that failed is tried again: an old token may be shown again for 10 seconds.
const RENEWAL: Duration = Duration::from_secs(3);
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// How long a busy system is asked while the shop is being set up, and how often.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

const REMEDY: &str = "look at the system's log, and run `omisys doctor`";

/// A line of a basket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub sku: Arc<str>,
    pub quantity: u32,
}

/// A shop with goods, guests, and somebody who may see everything.
pub struct Stocked {
    pub staff: Member,
    pub shoppers: Vec<Shopper>,
    /// What is bought together, each as often as it is.
    pub baskets: Vec<Vec<Line>>,
    pub skus: Vec<Arc<str>>,
    callers: usize,
}

/// Somebody whose token is renewed in time.
pub struct Member(Mutex<Held>);

struct Held {
    user: Arc<User>,
    renew_at: Instant,
}

/// A guest with a cart.
pub struct Shopper {
    pub member: Member,
    items: AtomicU32,
    /// Something was put into the cart and not bought.
    pub untidy: AtomicBool,
}

/// A product to be sold.
struct Product {
    sku: Arc<str>,
    price: i64,
    tracked: bool,
}

/// Fills the shop at `client`, which must hold the demo, with SKUs that no other run has, and brings guests.
pub async fn stock(client: &Client, command: &Bench) -> Result<Stocked, CliError> {
    let run = Clock::System.now().as_microsecond();
    let shop = Shop::new(client.clone(), format!("bench-{run}"));
    let staff = staff(&shop).await?;
    let (products, baskets) = match (command.baskets, &command.retail_file) {
        (Baskets::Retail, Some(path)) => retail(path, run).await?,
        _ if command.scenario == Scenario::Read => one(run, PRODUCTS_TO_READ),
        _ => one(run, PRODUCTS),
    };
    let seller = staff.user().await;
    let made = products.iter().map(|product| make(&seller, product));
    let () = stream::iter(made).buffer_unordered(AT_ONCE).try_collect().await?;
    let callers = command.load().callers;
    let shop = &shop;
    let count = if command.scenario == Scenario::Read {
        0
    } else {
        callers * TURNS
    };
    let guests = (0..count).map(|_| sign_in(shop, "/auth/guest", &Value::Null, 201));
    let guests: Vec<User> = stream::iter(guests)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Stocked {
        staff,
        shoppers: guests.into_iter().map(Shopper::new).collect(),
        baskets,
        skus: products.into_iter().map(|product| product.sku).collect(),
        callers,
    })
}

/// Somebody who may see and sell everything, with a token that begins to live now.
pub async fn staff(shop: &Shop) -> Result<Member, CliError> {
    let (_, email, password) = demo::ACCOUNTS[0];
    let body = json!({ "email": email, "password": password });
    sign_in(shop, "/auth/login", &body, 200).await.map(Member::new)
}

/// One more guest, beside those of the load.
pub async fn guest(shop: &Stocked) -> Result<Shopper, CliError> {
    let seller = shop.staff.user().await;
    let guest = sign_in(seller.shop(), "/auth/guest", &Value::Null, 201).await?;
    Ok(Shopper::new(guest))
}

impl Stocked {
    /// Whose turn it is at a caller's place: nobody else's meanwhile.
    pub fn shopper(&self, place: usize, number: u64) -> &Shopper {
        let turn = number as usize % TURNS;
        &self.shoppers[(turn * self.callers + place) % self.shoppers.len()]
    }

    /// A basket, by chance that is the same in every run.
    pub fn basket(&self, number: u64) -> &[Line] {
        &self.baskets[mixed(number) as usize % self.baskets.len()]
    }

    /// A line, as [`Stocked::basket`]: goods that are bought often come often.
    pub fn line(&self, number: u64) -> &Line {
        let basket = self.basket(number);
        &basket[mixed(number ^ u64::MAX) as usize % basket.len()]
    }
}

/// Numbers that follow each other, far apart (Fibonacci hashing).
pub const fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24
}

impl Member {
    fn new(user: User) -> Self {
        Self(Mutex::new(Held {
            user: Arc::new(user),
            renew_at: Instant::now() + RENEW_AFTER,
        }))
    }

    /// With a token that is good for the next minutes.
    pub async fn user(&self) -> Arc<User> {
        let user = {
            let mut held = self.held();
            if Instant::now() < held.renew_at {
                return Arc::clone(&held.user);
            }
            // Only this one renews it, since a refresh token works once; the others go on with the old one.
            held.renew_at = Instant::now() + RENEW_AGAIN;
            Arc::clone(&held.user)
        };
        if let Ok(Some(renewed)) = timeout(RENEWAL, user.renewed()).await {
            *self.held() = Held {
                user: Arc::new(renewed),
                renew_at: Instant::now() + RENEW_AFTER,
            };
        }
        Arc::clone(&self.held().user)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shopper {
    fn new(user: User) -> Self {
        Self {
            member: Member::new(user),
            items: AtomicU32::new(0),
            untidy: AtomicBool::new(false),
        }
    }

    /// Puts something into the cart; now and then empties it instead, so that its limits are not met.
    pub async fn add(&self, sku: &str, quantity: u32) -> Result<Reply, ClientError> {
        if self.items.fetch_add(1, Ordering::Relaxed) % ITEMS == ITEMS - 1 {
            return self.clear().await;
        }
        self.put(sku, quantity).await
    }

    /// Puts something into the cart.
    pub async fn put(&self, sku: &str, quantity: u32) -> Result<Reply, ClientError> {
        post(
            &*self.member.user().await,
            "/v1/carts/mine/items",
            &json!({ "sku": sku, "quantity": quantity }),
        )
        .await
    }

    /// Empties the cart.
    pub async fn clear(&self) -> Result<Reply, ClientError> {
        post(&*self.member.user().await, "/v1/carts/mine/clear", &json!({})).await
    }
}

/// A POST with a fresh idempotency key.
pub async fn post(user: &User, path: &str, body: &Value) -> Result<Reply, ClientError> {
    let key = user.shop().fresh_key();
    user.try_request(Method::POST, path, Some(&key), &[], Some(body))
        .await
}

/// A POST that must be answered with `status`, in the end: a busy system is asked again, under the same key.
pub async fn must(user: &User, path: &str, body: &Value, status: u16) -> Result<Value, CliError> {
    let what = format!("the shop could not be filled: POST {path}");
    let (key, end) = (user.shop().fresh_key(), Instant::now() + PATIENCE);
    loop {
        let reply = user
            .try_request(Method::POST, path, Some(&key), &[], Some(body))
            .await
            .context(&what, REMEDY)?;
        if reply.status == status {
            return Ok(reply.json());
        }
        if !matches!(reply.status.as_u16(), 429 | 503) || Instant::now() > end {
            let said = String::from_utf8_lossy(&reply.body);
            return Err(CliError::failed(
                format!("{what}: {} {said}", reply.status),
                REMEDY,
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn sign_in(shop: &Shop, path: &str, body: &Value, status: u16) -> Result<User, CliError> {
    let nobody = shop.anonymous();
    let body = if body.is_null() { json!({}) } else { body.clone() };
    let answer = must(&nobody, path, &body, status).await?;
    Ok(nobody.signed_in(&answer))
}

async fn make(staff: &User, product: &Product) -> Result<(), CliError> {
    let Product { sku, price, tracked } = product;
    let created = must(
        staff,
        "/v1/products",
        &json!({ "title": format!("Product {sku}") }),
        201,
    )
    .await?;
    let path = format!("/v1/products/{}", created["id"].as_str().unwrap_or_default());
    let variant = json!({ "sku": sku, "price": { "amount": price, "currency": "GBP" }, "tracked": tracked });
    must(staff, &format!("{path}/variants"), &variant, 201).await?;
    must(staff, &format!("{path}/publish"), &json!({}), 200).await?;
    if *tracked {
        let receipt = json!({ "quantity": STOCK, "reference": "opening stock" });
        must(staff, &format!("/v1/inventory/{sku}/receipts"), &receipt, 200).await?;
    }
    Ok(())
}

/// A line an order, of goods that are equally liked.
fn one(run: i64, products: usize) -> (Vec<Product>, Vec<Vec<Line>>) {
    let skus = (0..products).map(|number| Arc::from(format!("BENCH-{run}-{number}")));
    let products: Vec<Product> = skus
        .map(|sku| Product {
            sku,
            price: 1_000,
            tracked: true,
        })
        .collect();
    let baskets = products
        .iter()
        .map(|product| {
            vec![Line {
                sku: Arc::clone(&product.sku),
                quantity: 1,
            }]
        })
        .collect();
    (products, baskets)
}

/// The retailer's goods and invoices.
async fn retail(path: &Path, run: i64) -> Result<(Vec<Product>, Vec<Vec<Line>>), CliError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read(&owned, None)).await;
    let year = read
        .context("reading the file was broken off", "run it again")?
        .context(
            &format!("{} cannot be sold", path.display()),
            "give the UCI \"Online Retail\" data set as CSV, or CSV in gzip",
        )?;
    let name = |sku: &str| -> Arc<str> { format!("{run}-{sku}").into() };
    let baskets: Vec<Vec<Line>> = year.sales.iter().map(|sale| basket(&sale.lines, name)).collect();
    let products = year.products.into_iter().map(|product| Product {
        sku: name(product.sku.as_str()),
        // What costs nothing has no payment to wait for.
        price: product.price.max(1),
        tracked: product.tracked,
    });
    Ok((products.collect(), baskets))
}

/// An invoice as a cart can hold it: a SKU once, no more lines and units than there may be.
fn basket(lines: &[file::SaleLine], name: impl Fn(&str) -> Arc<str>) -> Vec<Line> {
    let mut basket: Vec<Line> = Vec::new();
    for line in lines {
        let sku = name(line.sku.as_str());
        if let Some(present) = basket.iter_mut().find(|present| present.sku == sku) {
            present.quantity = (present.quantity + line.quantity).min(MAX_UNITS);
        } else if basket.len() < MAX_LINES {
            basket.push(Line {
                sku,
                quantity: line.quantity.clamp(1, MAX_UNITS),
            });
        }
    }
    basket
}

#[cfg(test)]
mod tests {
    use event_schemas::Sku;

    use super::*;

    #[test]
    fn an_invoice_becomes_what_a_cart_can_hold() {
        let line = |sku: &str, quantity| file::SaleLine {
            sku: Sku::new(sku).unwrap(),
            quantity,
            unit_price: 1,
        };
        let name = |sku: &str| Arc::from(format!("7-{sku}"));
        let held = basket(&[line("A", 600), line("B", 2), line("A", 600)], name);
        let expected = [("7-A", 999), ("7-B", 2)].map(|(sku, quantity)| Line {
            sku: sku.into(),
            quantity,
        });
        assert_eq!(held, expected);
        let many: Vec<_> = (0..300).map(|number| line(&format!("S{number}"), 1)).collect();
        assert_eq!(basket(&many, name).len(), MAX_LINES);
    }
}
