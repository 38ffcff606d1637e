#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use event_schemas::{Currency, Money, MoneyError};
use proptest::prelude::*;

fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

#[test]
fn amounts_end_at_what_a_double_holds_exactly() {
    assert_eq!(Money::MAX_AMOUNT, 9_007_199_254_740_991);
    assert!(Money::new(Money::MAX_AMOUNT, Currency::GBP).is_ok());
    assert!(Money::new(-Money::MAX_AMOUNT, Currency::GBP).is_ok());
    assert_eq!(
        Money::new(Money::MAX_AMOUNT + 1, Currency::GBP),
        Err(MoneyError::OutOfRange)
    );
    assert_eq!(Money::new(i64::MIN, Currency::GBP), Err(MoneyError::OutOfRange));
    assert_eq!(
        gbp(Money::MAX_AMOUNT).checked_add(gbp(1)),
        Err(MoneyError::OutOfRange)
    );
    assert_eq!(
        gbp(-Money::MAX_AMOUNT).checked_sub(gbp(1)),
        Err(MoneyError::OutOfRange)
    );
    assert_eq!(gbp(Money::MAX_AMOUNT).checked_mul(2), Err(MoneyError::OutOfRange));
    assert_eq!(
        gbp(Money::MAX_AMOUNT).checked_mul(u32::MAX),
        Err(MoneyError::OutOfRange)
    );
    assert_eq!(
        gbp(Money::MAX_AMOUNT).scale_half_even(u64::MAX, 1),
        Err(MoneyError::OutOfRange)
    );
}

#[test]
fn currencies_do_not_mix() {
    let usd = Money::zero(Currency::USD);
    assert_eq!(gbp(1).checked_add(usd), Err(MoneyError::CurrencyMismatch));
    assert_eq!(gbp(1).checked_sub(usd), Err(MoneyError::CurrencyMismatch));
    assert_ne!(Money::zero(Currency::GBP), usd);
}

#[test]
fn json_holds_minor_units_and_the_code_and_nothing_else() {
    assert_eq!(
        serde_json::to_string(&gbp(1050)).unwrap(),
        r#"{"amount":1050,"currency":"GBP"}"#
    );
    let read = |text: &str| serde_json::from_str::<Money>(text);
    assert_eq!(read(r#"{"currency":"GBP","amount":-5}"#).unwrap(), gbp(-5));
    for bad in [
        r#"{"amount":9007199254740992,"currency":"GBP"}"#,
        r#"{"amount":1.5,"currency":"GBP"}"#,
        r#"{"amount":1.0,"currency":"GBP"}"#,
        r#"{"amount":"1","currency":"GBP"}"#,
        r#"{"amount":1,"currency":"gbp"}"#,
        r#"{"amount":1,"currency":"ZZZ"}"#,
        r#"{"amount":1,"currency":"GBP","minor":2}"#,
        r#"{"amount":1}"#,
    ] {
        assert!(read(bad).is_err(), "{bad} was read as money");
    }
}

#[test]
fn a_half_is_rounded_to_the_even_neighbour() {
    let tenth = |amount| gbp(amount).scale_half_even(1, 10).unwrap().amount();
    assert_eq!([5, 15, 25, 35, 14, 16].map(tenth), [0, 2, 2, 4, 1, 2]);
    assert_eq!([-5, -15, -25, -35, -14, -16].map(tenth), [0, -2, -2, -4, -1, -2]);
    // 20 % contained in 15.30: 15.30 · 200 000 / 1 200 000.
    assert_eq!(gbp(1530).scale_half_even(200_000, 1_200_000), Ok(gbp(255)));
    assert_eq!(gbp(1).scale_half_even(1, 0), Err(MoneyError::OutOfRange));
}

#[test]
fn ties_in_a_split_go_to_the_earlier_share() {
    assert_eq!(gbp(10).split(&[1, 1, 1]), Ok(vec![gbp(4), gbp(3), gbp(3)]));
    assert_eq!(gbp(-10).split(&[1, 1, 1]), Ok(vec![gbp(-4), gbp(-3), gbp(-3)]));
    assert_eq!(gbp(7).split(&[0, 0]), Ok(vec![gbp(7), gbp(0)]));
    assert_eq!(gbp(7).split(&[]), Ok(vec![]));
    // The largest remainder is not the largest weight.
    assert_eq!(gbp(3).split(&[4, 1, 1]), Ok(vec![gbp(2), gbp(1), gbp(0)]));
}

#[test]
fn people_read_major_units() {
    assert_eq!(gbp(1050).to_string(), "10.50 GBP");
    assert_eq!(gbp(-5).to_string(), "-0.05 GBP");
    assert_eq!(Money::new(1050, Currency::JPY).unwrap().to_string(), "1050 JPY");
    assert_eq!(Money::new(1050, Currency::KWD).unwrap().to_string(), "1.050 KWD");
}

fn amounts() -> impl Strategy<Value = i64> {
    prop_oneof![-1000_i64..1000, -Money::MAX_AMOUNT..=Money::MAX_AMOUNT]
}

fn weights() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(
        prop_oneof![Just(0), 1..10_u64, Just(u64::MAX), any::<u64>()],
        1..20,
    )
}

proptest! {
    #[test]
    fn a_split_adds_up_and_is_fair(amount in amounts(), weights in weights()) {
        let shares = gbp(amount).split(&weights).unwrap();
        prop_assert_eq!(shares.len(), weights.len());
        prop_assert_eq!(shares.iter().map(|share| i128::from(share.amount())).sum::<i128>(), i128::from(amount));
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        prop_assume!(total > 0);
        for (share, weight) in shares.iter().zip(&weights) {
            // Less than one minor unit from the exact share, and on its side of nothing.
            let exact = u128::from(amount.unsigned_abs()) * u128::from(*weight);
            let given = u128::from(share.amount().unsigned_abs()) * total;
            prop_assert!(given.abs_diff(exact) < total, "{} of {} by {}", share, amount, weight);
            prop_assert!(share.amount() == 0 || share.amount().signum() == amount.signum());
        }
    }

    #[test]
    fn a_larger_weight_never_gets_less(amount in 0..=Money::MAX_AMOUNT, weights in weights()) {
        let shares = gbp(amount).split(&weights).unwrap();
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        for (a, b) in (0..weights.len()).zip(1..weights.len()) {
            if weights[a] > weights[b] {
                prop_assert!(shares[a].amount() >= shares[b].amount());
            }
        }
    }

    #[test]
    fn scaling_is_the_nearest_amount_and_even_between_two(
        amount in -1_000_000_000_i64..1_000_000_000,
        numerator in 0..2_000_000_u64,
        denominator in 1..2_000_000_u64,
    ) {
        let scaled = i128::from(gbp(amount).scale_half_even(numerator, denominator).unwrap().amount());
        let (exact, unit) = (i128::from(amount) * i128::from(numerator), i128::from(denominator));
        let twice_off = 2 * (scaled * unit - exact).abs();
        prop_assert!(twice_off <= unit);
        prop_assert!(twice_off < unit || scaled % 2 == 0, "a half went to the odd neighbour");
    }

    #[test]
    fn adding_and_taking_away_are_inverse(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000) {
        prop_assert_eq!(gbp(a).checked_add(gbp(b)).unwrap().checked_sub(gbp(b)), Ok(gbp(a)));
    }
}
