//! The arithmetic of an order: what pricing uses to agree on one, and what placing it checks.

use std::collections::BTreeMap;

use event_schemas::{Code, Money, MoneyError, OrderLine, ShippingCharge, Sku, Tax, Totals};

use super::AgreementError;

/// The most lines of an order.
pub const MAX_LINES: usize = 2_000;
/// The most units of a line.
pub const MAX_QUANTITY: u32 = 100_000;

const PPM: u64 = 1_000_000;

/// The tax on `net` (a price less its discount) at `rate_ppm` millionths, rounded half to even. If `included`, `net` contains
/// it: net · rate / (1 + rate); else it comes on top: net · rate.
pub fn tax(net: Money, code: Code, rate_ppm: u32, included: bool) -> Result<Tax, MoneyError> {
    Ok(Tax {
        code,
        rate_ppm,
        amount: tax_amount(net, rate_ppm, included)?,
        included,
    })
}

fn tax_amount(net: Money, rate_ppm: u32, included: bool) -> Result<Money, MoneyError> {
    if rate_ppm == 0 {
        return Ok(Money::zero(net.currency()));
    }
    let rate = u64::from(rate_ppm);
    net.scale_half_even(rate, if included { PPM + rate } else { PPM })
}

/// Adds up an order: `total = items + shipping − discount + tax_added`. The currency is that of the shipping price.
pub fn totals(lines: &[OrderLine], shipping: &ShippingCharge) -> Result<Totals, MoneyError> {
    let zero = Money::zero(shipping.price.currency());
    let (mut items, mut discount) = (zero, zero.checked_add(shipping.discount)?);
    let (mut tax_included, mut tax_added) = (zero, zero);
    for line in lines {
        items = items.checked_add(line.unit_price.checked_mul(line.quantity)?)?;
        discount = discount.checked_add(line.discount)?;
    }
    for tax in lines.iter().map(|line| &line.tax).chain([&shipping.tax]) {
        let sum = if tax.included {
            &mut tax_included
        } else {
            &mut tax_added
        };
        *sum = sum.checked_add(tax.amount)?;
    }
    let total = items
        .checked_add(shipping.price)?
        .checked_sub(discount)?
        .checked_add(tax_added)?;
    Ok(Totals {
        items,
        shipping: shipping.price,
        discount,
        tax_included,
        tax_added,
        total,
    })
}

/// Whether these make an order: 1 to [`MAX_LINES`] lines numbered from 1, of 1 to [`MAX_QUANTITY`] units each, one currency,
/// nothing negative, taxes by their rates, and totals that add up.
pub fn check_agreement(
    lines: &[OrderLine],
    shipping: &ShippingCharge,
    agreed: &Totals,
) -> Result<(), AgreementError> {
    if lines.is_empty() || lines.len() > MAX_LINES {
        return Err(AgreementError::LineCount { max: MAX_LINES });
    }
    for (line, expected) in lines.iter().zip(1_u32..) {
        if line.line_no != expected {
            return Err(AgreementError::LineNumber { expected });
        }
        if line.quantity == 0 || line.quantity > MAX_QUANTITY {
            return Err(AgreementError::Quantity {
                line_no: expected,
                max: MAX_QUANTITY,
            });
        }
        check_price(
            expected,
            line.unit_price.checked_mul(line.quantity)?,
            line.discount,
            &line.tax,
        )?;
    }
    check_price(0, shipping.price, shipping.discount, &shipping.tax)?;
    let expected = totals(lines, shipping)?;
    if expected == *agreed {
        Ok(())
    } else {
        Err(AgreementError::Totals {
            expected: expected.total,
        })
    }
}

fn check_price(line_no: u32, price: Money, discount: Money, tax: &Tax) -> Result<(), AgreementError> {
    let net = price.checked_sub(discount)?;
    if price.is_negative() || discount.is_negative() || net.is_negative() {
        return Err(AgreementError::Price { line_no });
    }
    let expected = tax_amount(net, tax.rate_ppm, tax.included)?;
    if expected == tax.amount {
        Ok(())
    } else {
        Err(AgreementError::Tax { line_no, expected })
    }
}

/// What an order reserves: the units of its tracked lines, summed by SKU.
pub fn tracked_units(lines: &[OrderLine]) -> BTreeMap<Sku, u32> {
    let mut units = BTreeMap::new();
    for line in lines.iter().filter(|line| line.tracked) {
        let sum: &mut u32 = units.entry(line.sku.clone()).or_default();
        // In range: at most MAX_LINES · MAX_QUANTITY = 2 · 10⁸.
        *sum = sum.saturating_add(line.quantity);
    }
    units
}
