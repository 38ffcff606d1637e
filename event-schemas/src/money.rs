//! Money as integer minor units with a currency. No floats, no implicit conversion, checked arithmetic.

use std::num::NonZeroU128;

use iso_currency::Currency;
use serde::{Deserialize, Serialize};

/// An amount in the minor unit of its currency (pence for GBP, yen for JPY); |amount| ≤ 2⁵³−1, so that JSON readers
/// that use doubles read it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawMoney")]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// Why a calculation with money has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The result is beyond ±(2⁵³−1) minor units.
    #[error("the amount is out of range")]
    OutOfRange,
    /// The operands are of two currencies.
    #[error("the amounts are in two currencies")]
    CurrencyMismatch,
}

impl schemars::JsonSchema for Money {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "An amount in the minor unit of its currency: pence for GBP, yen for JPY.",
            "type": "object",
            "properties": {
                "amount": { "type": "integer", "minimum": -Self::MAX_AMOUNT, "maximum": Self::MAX_AMOUNT },
                "currency": { "description": "ISO 4217.", "type": "string", "pattern": "^[A-Z]{3}$" },
            },
            "required": ["amount", "currency"],
            "additionalProperties": false,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMoney {
    amount: i64,
    currency: Currency,
}

impl TryFrom<RawMoney> for Money {
    type Error = MoneyError;

    fn try_from(raw: RawMoney) -> Result<Self, Self::Error> {
        Self::new(raw.amount, raw.currency)
    }
}

impl Money {
    /// The largest magnitude of an amount: 2⁵³−1.
    pub const MAX_AMOUNT: i64 = (1 << 53) - 1;

    /// `amount` minor units of `currency`.
    pub const fn new(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount > Self::MAX_AMOUNT || amount < -Self::MAX_AMOUNT {
            return Err(MoneyError::OutOfRange);
        }
        Ok(Self { amount, currency })
    }

    /// Nothing, in `currency`.
    pub const fn zero(currency: Currency) -> Self {
        Self { amount: 0, currency }
    }

    /// Minor units.
    pub const fn amount(self) -> i64 {
        self.amount
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// True for exactly nothing.
    pub const fn is_zero(self) -> bool {
        self.amount == 0
    }

    /// True below nothing.
    pub const fn is_negative(self) -> bool {
        self.amount < 0
    }

    /// The sum, in the one currency of both.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::new(
            self.amount
                .checked_add(other.amount)
                .ok_or(MoneyError::OutOfRange)?,
            self.currency,
        )
    }

    /// The difference, in the one currency of both.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Self::new(
            self.amount
                .checked_sub(other.amount)
                .ok_or(MoneyError::OutOfRange)?,
            self.currency,
        )
    }

    /// The price of `quantity` units.
    pub fn checked_mul(self, quantity: u32) -> Result<Self, MoneyError> {
        Self::new(
            self.amount
                .checked_mul(i64::from(quantity))
                .ok_or(MoneyError::OutOfRange)?,
            self.currency,
        )
    }

    /// `amount · numerator / denominator`, rounded half to even (the rule for one line's share or tax).
    /// A denominator of zero is out of range.
    pub fn scale_half_even(self, numerator: u64, denominator: u64) -> Result<Self, MoneyError> {
        if denominator == 0 {
            return Err(MoneyError::OutOfRange);
        }
        let product = i128::from(self.amount) * i128::from(numerator);
        let divisor = i128::from(denominator);
        let (quotient, remainder) = (product.div_euclid(divisor), product.rem_euclid(divisor));
        let round_up = match (2 * remainder).cmp(&divisor) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => quotient % 2 != 0,
            std::cmp::Ordering::Less => false,
        };
        let amount = i64::try_from(quotient + i128::from(round_up)).map_err(|_| MoneyError::OutOfRange)?;
        Self::new(amount, self.currency)
    }

    /// Splits into shares proportional to `weights` that add up exactly, by largest remainder (ties to the earlier share).
    /// All weights zero gives everything to the first share; no weights gives no shares.
    pub fn split(self, weights: &[u64]) -> Result<Vec<Self>, MoneyError> {
        if weights.is_empty() {
            return Ok(Vec::new());
        }
        let magnitude = u128::from(self.amount.unsigned_abs());
        let mut shares: Vec<u128> = vec![0; weights.len()];
        if let Some(total) = NonZeroU128::new(weights.iter().map(|weight| u128::from(*weight)).sum()) {
            let mut remainders = Vec::with_capacity(weights.len());
            for (index, weight) in weights.iter().enumerate() {
                let product = magnitude * u128::from(*weight);
                shares[index] = product / total;
                remainders.push((product % total, index));
            }
            let left = magnitude - shares.iter().sum::<u128>();
            remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            for (_, index) in remainders
                .into_iter()
                .take(usize::try_from(left).unwrap_or(usize::MAX))
            {
                shares[index] += 1;
            }
        } else {
            shares[0] = magnitude;
        }
        let sign = self.amount.signum();
        shares
            .into_iter()
            .map(|share| {
                let share = i64::try_from(share).map_err(|_| MoneyError::OutOfRange)?;
                Self::new(sign * share, self.currency)
            })
            .collect()
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch)
        }
    }
}

/// `-?major.minor CODE`, for people; programs read `amount` and `currency`.
impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = u32::from(self.currency.exponent().unwrap_or(0));
        let unit = 10_u64.pow(digits);
        let magnitude = self.amount.unsigned_abs();
        let sign = if self.amount < 0 { "-" } else { "" };
        if digits == 0 {
            write!(f, "{sign}{magnitude} {}", self.currency.code())
        } else {
            let width = digits as usize;
            write!(
                f,
                "{sign}{}.{:0width$} {}",
                magnitude / unit,
                magnitude % unit,
                self.currency.code()
            )
        }
    }
}
