//! `sales`: one document per order with what a report needs; reports are summed when asked.

mod report;

use event_schemas::{
    AggregateType, CountryCode, Currency, Event, Money, OrderEvent, OrderLine, OrderPlaced, RecordedEvent,
    Sku,
};
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

pub(crate) use report::Summing;
pub use report::{MAX_REPORT_DAYS, SalesBy, SalesFilter, SalesReport, SalesRow};

use crate::document::Document;
use crate::payments::in_range;
use crate::query::{Key, KeyValue};
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by order id.
#[derive(Debug)]
pub struct Sales;

/// What an order contributes to reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SalePart {
    /// The UTC day on which the sale took place.
    day: Date,
    country: CountryCode,
    currency: Currency,
    lines: Vec<SaleLine>,
    /// Minor units; none before it was paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paid: Option<i64>,
    /// Minor units.
    #[serde(default)]
    refunded: i64,
    #[serde(default)]
    cancelled: bool,
}

/// A line as reports see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaleLine {
    #[serde(rename = "s")]
    pub sku: Sku,
    #[serde(rename = "q")]
    pub quantity: u32,
    /// Minor units: unit price · quantity − discount + tax not included.
    #[serde(rename = "a")]
    pub amount: i64,
}

/// A sale as reports read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SaleView {
    pub day: Date,
    pub country: CountryCode,
    pub currency: Currency,
    pub lines: Vec<SaleLine>,
    /// Minor units.
    pub paid: i64,
    /// Minor units.
    pub refunded: i64,
}

const DAY: &str = "day";
const COUNTRY: &str = "country";

impl View for Sales {
    const NAME: &'static str = "sales";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Order];
    const KEYS: &'static [Key] = &[Key::text(DAY), Key::text(COUNTRY)];
    const INDEXES: &'static [&'static [&'static str]] = &[&[DAY]];

    type Part = SalePart;
    type Doc = SaleView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        match &event.event {
            Event::Order(
                OrderEvent::OrderPlaced(_)
                | OrderEvent::OrderPaid { .. }
                | OrderEvent::OrderCancelled { .. }
                | OrderEvent::RefundRecorded { .. },
            ) => Some(event.stream.aggregate_id.clone()),
            _ => None,
        }
    }

    fn apply(part: Option<SalePart>, recorded: &RecordedEvent) -> Result<SalePart, FoldError> {
        let event_type = recorded.event.name();
        let Event::Order(event) = &recorded.event else {
            return Err(FoldError::Misrouted {
                event_type,
                view: Self::NAME,
            });
        };
        if let OrderEvent::OrderPlaced(placed) = event {
            return sale(placed, event_type);
        }
        let mut part = part.ok_or(FoldError::NotBegun { event_type })?;
        let out_of_range = || FoldError::OutOfRange { event_type };
        match event {
            OrderEvent::OrderPaid { amount, .. } => {
                let paid = part
                    .paid
                    .unwrap_or(0)
                    .checked_add(amount.amount())
                    .ok_or_else(out_of_range)?;
                part.paid = Some(paid);
            }
            OrderEvent::RefundRecorded { amount, .. } => {
                part.refunded = part
                    .refunded
                    .checked_add(amount.amount())
                    .ok_or_else(out_of_range)?;
            }
            OrderEvent::OrderCancelled { .. } => part.cancelled = true,
            _ => {
                return Err(FoldError::Misrouted {
                    event_type,
                    view: Self::NAME,
                });
            }
        }
        Ok(part)
    }

    /// None for what is no sale: not paid (yet), or cancelled.
    fn combine(_: &DocId, document: &Document<SalePart>) -> Option<SaleView> {
        let part = &document.source(AggregateType::Order)?.part;
        let paid = part.paid.filter(|_| !part.cancelled)?;
        Some(SaleView {
            day: part.day,
            country: part.country.clone(),
            currency: part.currency,
            lines: part.lines.clone(),
            paid,
            refunded: part.refunded,
        })
    }

    fn keys(document: &Document<SalePart>) -> Option<Vec<KeyValue>> {
        let part = &document.source(AggregateType::Order)?.part;
        part.paid.filter(|_| !part.cancelled)?;
        Some(vec![part.day.to_string().into(), part.country.as_str().into()])
    }
}

fn sale(placed: &OrderPlaced, event_type: &'static str) -> Result<SalePart, FoldError> {
    let lines = placed.lines.iter().map(|line| {
        let amount = in_range(line_amount(line), event_type)?.amount();
        Ok(SaleLine {
            sku: line.sku.clone(),
            quantity: line.quantity,
            amount,
        })
    });
    Ok(SalePart {
        day: Offset::UTC.to_datetime(placed.occurred_at).date(),
        country: placed.country.clone(),
        currency: placed.totals.total.currency(),
        lines: lines.collect::<Result<_, FoldError>>()?,
        paid: None,
        refunded: 0,
        cancelled: false,
    })
}

fn line_amount(line: &OrderLine) -> Result<Money, event_schemas::MoneyError> {
    let amount = line
        .unit_price
        .checked_mul(line.quantity)?
        .checked_sub(line.discount)?;
    if line.tax.included {
        Ok(amount)
    } else {
        amount.checked_add(line.tax.amount)
    }
}
