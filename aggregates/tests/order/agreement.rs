//! What adds up to an order.

use aggregates::order::{
    AgreementError, MAX_LINES, MAX_QUANTITY, OrderError as Error, check_agreement, tax, totals,
};
use event_schemas::OrderEvent as Event;
use event_schemas::{Currency, Money, MoneyError, OrderPlaced, ShippingCharge};

use super::given::{TOTAL, code, free_shipping, given, line, no_tax, order, order_of, place_this, pounds};

#[test]
fn totals_are_summed_with_discounts_and_both_kinds_of_tax() {
    let mut taxed = line(1, "A", 1000, 3);
    taxed.discount = pounds(500);
    taxed.tax = tax(pounds(2500), code("standard"), 200_000, false).unwrap();
    assert_eq!(taxed.tax.amount, pounds(500));
    let mut gross = line(2, "B", 1200, 1);
    gross.tax = tax(pounds(1200), code("standard"), 200_000, true).unwrap();
    assert_eq!(gross.tax.amount, pounds(200));
    let shipping = ShippingCharge {
        price: pounds(400),
        discount: pounds(100),
        tax: no_tax(),
    };
    let sums = totals(&[taxed.clone(), gross.clone()], &shipping).unwrap();
    assert_eq!(sums.items, pounds(4200));
    assert_eq!(sums.shipping, pounds(400));
    assert_eq!(sums.discount, pounds(600));
    assert_eq!(sums.tax_included, pounds(200));
    assert_eq!(sums.tax_added, pounds(500));
    assert_eq!(sums.total, pounds(4200 + 400 - 600 + 500));
    assert_eq!(check_agreement(&[taxed, gross], &shipping, &sums), Ok(()));
}

#[test]
fn tax_is_rounded_half_to_even() {
    let on_top = |net, rate_ppm| tax(pounds(net), code("t"), rate_ppm, false).unwrap().amount;
    assert_eq!(on_top(25, 100_000), pounds(2), "2.5");
    assert_eq!(on_top(35, 100_000), pounds(4), "3.5");
    assert_eq!(on_top(26, 100_000), pounds(3), "2.6");
    let contained = |net, rate_ppm| tax(pounds(net), code("t"), rate_ppm, true).unwrap().amount;
    assert_eq!(contained(15, 200_000), pounds(2), "2.5");
    assert_eq!(contained(21, 200_000), pounds(4), "3.5");
}

#[test]
fn what_does_not_add_up_is_not_placed() {
    let refused = |change: &dyn Fn(&mut OrderPlaced), error: AgreementError| {
        let mut placed = order();
        change(&mut placed);
        given(vec![])
            .when(place_this(placed))
            .then_expect_error(Error::Agreement(error));
    };
    refused(
        &|order| order.lines.clear(),
        AgreementError::LineCount { max: MAX_LINES },
    );
    refused(
        &|order| order.lines = (1..=2001).map(|line_no| line(line_no, "A", 1, 1)).collect(),
        AgreementError::LineCount { max: MAX_LINES },
    );
    refused(
        &|order| order.lines[1].line_no = 1,
        AgreementError::LineNumber { expected: 2 },
    );
    refused(
        &|order| order.lines[0].line_no = 0,
        AgreementError::LineNumber { expected: 1 },
    );
    let quantity = |line_no| AgreementError::Quantity {
        line_no,
        max: MAX_QUANTITY,
    };
    refused(&|order| order.lines[0].quantity = 0, quantity(1));
    refused(&|order| order.lines[2].quantity = MAX_QUANTITY + 1, quantity(3));
    refused(
        &|order| order.lines[0].unit_price = pounds(-1),
        AgreementError::Price { line_no: 1 },
    );
    refused(
        &|order| order.lines[0].discount = pounds(-1),
        AgreementError::Price { line_no: 1 },
    );
    refused(
        &|order| order.lines[0].discount = pounds(601),
        AgreementError::Price { line_no: 1 },
    );
    refused(
        &|order| order.shipping.price = pounds(-1),
        AgreementError::Price { line_no: 0 },
    );
    let untaxed = |line_no| AgreementError::Tax {
        line_no,
        expected: pounds(0),
    };
    refused(&|order| order.lines[1].tax.amount = pounds(1), untaxed(2));
    refused(&|order| order.shipping.tax.amount = pounds(-1), untaxed(0));
    let other_totals = AgreementError::Totals {
        expected: pounds(TOTAL),
    };
    refused(
        &|order| order.totals.total = pounds(TOTAL - 1),
        other_totals.clone(),
    );
    refused(&|order| order.totals.items = pounds(TOTAL + 1), other_totals);
    let dollars = Money::new(300, Currency::USD).unwrap();
    let two_currencies = || AgreementError::Money(MoneyError::CurrencyMismatch);
    refused(&|order| order.lines[0].unit_price = dollars, two_currencies());
    refused(
        &|order| order.lines[0].tax.amount = Money::zero(Currency::USD),
        AgreementError::Tax {
            line_no: 1,
            expected: pounds(0),
        },
    );
    refused(
        &|order| order.lines[0].unit_price = pounds(Money::MAX_AMOUNT),
        AgreementError::Money(MoneyError::OutOfRange),
    );
}

#[test]
fn the_largest_order_is_placed() {
    let lines = (1..=2000)
        .map(|line_no| line(line_no, &format!("SKU-{line_no}"), 1, MAX_QUANTITY))
        .collect();
    let placed = order_of(lines, free_shipping());
    assert_eq!(placed.totals.total, pounds(200_000_000));
    given(vec![])
        .when(place_this(placed.clone()))
        .then_expect_events(vec![Event::OrderPlaced(Box::new(placed))]);
}
