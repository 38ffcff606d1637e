//! Sums over the sales of some days.

use std::collections::BTreeMap;

use event_schemas::{CountryCode, Currency};
use jiff::Span;
use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use super::{COUNTRY, DAY, SaleView};
use crate::query::{After, Direction, Query};

/// The longest time that one report spans.
pub const MAX_REPORT_DAYS: i32 = 1_000;

/// Documents read at a time, so that no snapshot of the store is held for long.
const PAGE: usize = 1_000;

/// What a report has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SalesBy {
    Day,
    Sku,
    Country,
}

/// Which sales a report sums: from the first day (inclusive) to the last (inclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalesFilter {
    pub from: Date,
    pub to: Date,
    /// None: all countries.
    pub country: Option<CountryCode>,
}

impl SalesFilter {
    /// The page of sales after `after`. Larger than what clients page through: it is summed, not sent.
    pub(crate) fn page(&self, after: Option<After>) -> Query {
        let last = self
            .from
            .saturating_add(Span::new().days(MAX_REPORT_DAYS))
            .min(self.to);
        // Days are compared as text, which orders them as long as years have four digits.
        let until = last.saturating_add(Span::new().days(1)).to_string();
        let mut query = Query::new(1)
            .range(DAY, Some(self.from.to_string().into()), Some(until.into()))
            .order_by(DAY, Direction::Ascending)
            .after(after);
        query.limit = PAGE;
        match &self.country {
            Some(country) => query.equals(COUNTRY, country.as_str()),
            None => query,
        }
    }
}

/// One row of a report. Amounts in minor units of the report's currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SalesRow {
    /// The day (`2011-06-01`), SKU or country.
    pub key: String,
    pub orders: u64,
    pub lines: u64,
    pub units: u64,
    /// What the lines came to: unit price · quantity − discount + tax that prices don't contain; without shipping.
    pub revenue: i64,
    /// What was paid for the orders, shipping included; by SKU, absent: a payment is for the whole order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid: Option<i64>,
    /// What was paid back; by SKU, absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refunded: Option<i64>,
}

/// Sums over paid orders that were not cancelled, a row for each key in the keys' order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SalesReport {
    /// Absent when nothing was sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
    pub rows: Vec<SalesRow>,
    /// Over all rows; an order counts once.
    pub total: SalesRow,
}

/// A report while it is summed.
pub(crate) struct Summing {
    by: SalesBy,
    currency: Option<Currency>,
    rows: BTreeMap<String, SalesRow>,
    total: SalesRow,
}

impl Summing {
    pub(crate) fn new(by: SalesBy) -> Self {
        let total = SalesRow {
            key: "total".to_owned(),
            paid: Some(0),
            refunded: Some(0),
            ..SalesRow::default()
        };
        Self {
            by,
            currency: None,
            rows: BTreeMap::new(),
            total,
        }
    }

    /// Adds one sale. A shop has one currency, so sums need no exchange.
    pub(crate) fn add(&mut self, sale: &SaleView) {
        self.currency = Some(sale.currency);
        match self.by {
            SalesBy::Day => self.row(sale.day.to_string()).add_order(sale),
            SalesBy::Country => self.row(sale.country.to_string()).add_order(sale),
            SalesBy::Sku => {
                let mut counted: Vec<&str> = Vec::with_capacity(sale.lines.len());
                for line in &sale.lines {
                    let first = !counted.contains(&line.sku.as_str());
                    counted.push(line.sku.as_str());
                    let row = self.rows.entry(line.sku.to_string()).or_default();
                    row.orders += u64::from(first);
                    row.lines += 1;
                    row.units += u64::from(line.quantity);
                    row.revenue = row.revenue.saturating_add(line.amount);
                }
            }
        }
        self.total.add_order(sale);
    }

    pub(crate) fn finish(self) -> SalesReport {
        let rows = self
            .rows
            .into_iter()
            .map(|(key, row)| SalesRow { key, ..row })
            .collect();
        SalesReport {
            currency: self.currency,
            rows,
            total: self.total,
        }
    }

    fn row(&mut self, key: String) -> &mut SalesRow {
        self.rows.entry(key).or_insert_with(|| SalesRow {
            paid: Some(0),
            refunded: Some(0),
            ..SalesRow::default()
        })
    }
}

impl SalesRow {
    fn add_order(&mut self, sale: &SaleView) {
        self.orders += 1;
        self.lines += sale.lines.len() as u64;
        self.units += sale
            .lines
            .iter()
            .map(|line| u64::from(line.quantity))
            .sum::<u64>();
        self.revenue = sale
            .lines
            .iter()
            .fold(self.revenue, |sum, line| sum.saturating_add(line.amount));
        self.paid = self.paid.map(|paid| paid.saturating_add(sale.paid));
        self.refunded = self
            .refunded
            .map(|refunded| refunded.saturating_add(sale.refunded));
    }
}
