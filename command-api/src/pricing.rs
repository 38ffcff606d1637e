//! What lines cost: SKU → stock item → product → variant, through the executors and never a view, so that nobody pays
//! a price that a projection has not caught up with.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::order;
use aggregates::product::{Product, ProductStatus};
use event_schemas::{Code, Currency, Money, OrderLine, ProductId, ShippingCharge, Sku, Tax, Totals};
use event_store::AccessError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_conventions::Problem;

use crate::execute::access_problem;
use crate::refusals::money;
use crate::state::CommandApi;

/// SKUs that one request looks up at the same time.
const LOOKUPS_AT_ONCE: usize = 16;
/// Faults that one answer lists.
const FAULTS_SHOWN: usize = 20;

/// A line that somebody wants to buy.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub sku: Sku,
    pub quantity: u32,
    /// Agreed with the customer; else the catalogue's.
    pub unit_price: Option<Money>,
}

/// Lines as an order agrees on them.
#[derive(Debug, Clone)]
pub(crate) struct Priced {
    pub lines: Vec<OrderLine>,
    pub shipping: ShippingCharge,
    pub totals: Totals,
}

/// Which products may be sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assortment {
    Published,
    /// Drafts too, and what was archived since: staff record sales that were agreed elsewhere.
    Everything,
}

#[derive(Debug, Clone)]
struct Offer {
    product_id: ProductId,
    title: String,
    price: Money,
    tracked: bool,
    status: ProductStatus,
}

impl CommandApi {
    /// Prices `wanted`. 422 naming the SKUs that are not for sale.
    pub(crate) async fn price(&self, wanted: &[Wanted], assortment: Assortment) -> Result<Priced, Problem> {
        let skus: BTreeSet<Sku> = wanted.iter().map(|line| line.sku.clone()).collect();
        let offers: BTreeMap<Sku, Offer> = stream::iter(skus)
            .map(|sku| async move { self.offer(&sku).await.map(|offer| (sku, offer)) })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .try_filter_map(|(sku, offer)| async move { Ok(offer.map(|offer| (sku, offer))) })
            .try_collect()
            .await
            .map_err(access_problem)?;
        let for_sale = |sku: &Sku| {
            offers.get(sku).filter(|offer| match assortment {
                Assortment::Published => offer.status == ProductStatus::Published,
                Assortment::Everything => offer.status != ProductStatus::Absent,
            })
        };

        let currency = self.rules.currency;
        let mut lines = Vec::with_capacity(wanted.len());
        let mut missing = Vec::new();
        for ((index, wanted), line_no) in wanted.iter().enumerate().zip(1_u32..) {
            match for_sale(&wanted.sku) {
                Some(offer) => lines.push(line(line_no, wanted, offer)?),
                None => missing.push((index, &wanted.sku)),
            }
        }
        if let Some((_, first)) = missing.first() {
            let problem = not_for_sale(first);
            return Err(missing
                .iter()
                .take(FAULTS_SHOWN)
                .fold(problem, |problem, (index, sku)| {
                    problem.field(format!("/lines/{index}/sku"), format!("{sku} is not for sale"))
                }));
        }
        let shipping = free_shipping(currency)?;
        let totals = order::totals(&lines, &shipping).map_err(money)?;
        Ok(Priced {
            lines,
            shipping,
            totals,
        })
    }

    /// 422 unless `sku` is for sale.
    pub(crate) async fn check_for_sale(&self, sku: &Sku) -> Result<(), Problem> {
        match self.offer(sku).await.map_err(access_problem)? {
            Some(offer) if offer.status == ProductStatus::Published => Ok(()),
            Some(_) | None => Err(not_for_sale(sku)),
        }
    }

    async fn offer(&self, sku: &Sku) -> Result<Option<Offer>, AccessError> {
        let executors = self.executors();
        let Some(product_id) = executors
            .inventory
            .with_state(sku, |item, _| item.product_id())
            .await?
        else {
            return Ok(None);
        };
        let sku = sku.clone();
        executors
            .products
            .with_state(product_id, move |product, _| offer(product_id, product, &sku))
            .await
    }
}

fn offer(product_id: ProductId, product: &Product, sku: &Sku) -> Option<Offer> {
    let variant = product.variants().get(sku)?;
    Some(Offer {
        product_id,
        title: product.details().title.clone(),
        price: variant.price,
        tracked: variant.tracked,
        status: product.status(),
    })
}

fn line(line_no: u32, wanted: &Wanted, offer: &Offer) -> Result<OrderLine, Problem> {
    let unit_price = wanted.unit_price.unwrap_or(offer.price);
    Ok(OrderLine {
        line_no,
        sku: wanted.sku.clone(),
        product_id: offer.product_id,
        title: offer.title.clone(),
        unit_price,
        quantity: wanted.quantity,
        discount: Money::zero(unit_price.currency()),
        tax: untaxed(unit_price.currency())?,
        tracked: offer.tracked,
    })
}

fn free_shipping(currency: Currency) -> Result<ShippingCharge, Problem> {
    let nothing = Money::zero(currency);
    Ok(ShippingCharge {
        price: nothing,
        discount: nothing,
        tax: untaxed(currency)?,
    })
}

fn untaxed(currency: Currency) -> Result<Tax, Problem> {
    let code = Code::new("none").map_err(Problem::internal)?;
    order::tax(Money::zero(currency), code, 0, true).map_err(money)
}

fn not_for_sale(sku: &Sku) -> Problem {
    Problem::refused("not-for-sale", "Not for sale")
        .detail("there is no such SKU for sale")
        .with("sku", sku)
}

/// 409 with the new total unless it is what the client expects.
pub(crate) fn check_total(totals: &Totals, expected: Option<Money>) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected != totals.total => {
            Err(Problem::conflict("total-changed", "The total has changed")
                .detail("prices or lines have changed since you looked; confirm the new total")
                .with("total", totals.total)
                .with("expected_total", expected))
        }
        Some(_) | None => Ok(()),
    }
}
