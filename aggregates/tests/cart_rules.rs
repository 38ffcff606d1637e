#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aggregates::Decide;
use aggregates::cart::{
    Cart, CartCommand as Command, CartError as Error, CartStatus, CheckOut, MAX_LINES, MAX_QUANTITY,
};
use aggregates::order::{AgreementError, totals};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::CartEvent as Event;
use event_schemas::{
    CartCheckedOut, CartId, CartLine, Code, CountryCode, Currency, CustomerId, Money, OrderId, OrderLine,
    PaymentMethod, ProductId, ShippingCharge, Sku, Tax, Timestamp,
};

const SEED: Timestamp = Timestamp::UNIX_EPOCH;

fn given(events: Vec<Event>) -> AggregateTestExecutor<Cart> {
    TestFramework::with(()).given(events)
}

/// All events so far, each list decided on the state that the lists before it leave.
fn story(steps: &[Command]) -> Vec<Event> {
    let (mut cart, mut events) = (Cart::default(), Vec::new());
    for step in steps {
        for event in cart.decide(step).unwrap() {
            cart.evolve(&event);
            events.push(event);
        }
    }
    events
}

fn after(steps: &[Command]) -> Cart {
    let mut cart = Cart::default();
    for event in story(steps) {
        cart.evolve(&event);
    }
    cart
}

fn customer(number: u8) -> CustomerId {
    CustomerId::generate(SEED, &[number; 10])
}

fn owner() -> CustomerId {
    customer(1)
}

fn order(attempt: u32) -> OrderId {
    OrderId::for_checkout(CartId::for_owner(owner()), attempt)
}

fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn lines(lines: &[(&str, u32)]) -> Vec<CartLine> {
    lines
        .iter()
        .map(|(text, quantity)| CartLine {
            sku: sku(text),
            quantity: *quantity,
        })
        .collect()
}

fn add(text: &str, quantity: u32) -> Command {
    Command::AddItem {
        owner: owner(),
        sku: sku(text),
        quantity,
    }
}

fn change(text: &str, quantity: u32) -> Command {
    Command::ChangeQuantity {
        sku: sku(text),
        quantity,
    }
}

fn remove(text: &str) -> Command {
    Command::RemoveItem { sku: sku(text) }
}

fn merge(merged: &[(&str, u32)]) -> Command {
    Command::Merge {
        owner: owner(),
        from: CartId::for_owner(customer(9)),
        lines: lines(merged),
    }
}

fn merge_into_second() -> Command {
    Command::MergeInto {
        target_owner: customer(2),
    }
}

fn reopen(attempt: u32) -> Command {
    Command::Reopen {
        order_id: order(attempt),
        reason: code("out-of-stock"),
    }
}

fn renew(attempt: u32) -> Command {
    Command::Renew {
        order_id: order(attempt),
    }
}

fn priced(priced: &[(&str, u32)]) -> CheckOut {
    let no_tax = Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: pounds(0),
        included: false,
    };
    let lines: Vec<OrderLine> = priced
        .iter()
        .zip(1..)
        .map(|((text, quantity), line_no)| OrderLine {
            line_no,
            sku: sku(text),
            product_id: ProductId::generate(SEED, &[7; 10]),
            title: "Mug".to_owned(),
            unit_price: pounds(100),
            quantity: *quantity,
            discount: pounds(0),
            tax: no_tax.clone(),
            tracked: true,
        })
        .collect();
    let shipping = ShippingCharge {
        price: pounds(0),
        discount: pounds(0),
        tax: no_tax,
    };
    CheckOut {
        totals: totals(&lines, &shipping).unwrap(),
        lines,
        shipping,
        country: CountryCode::new("GB").unwrap(),
        payment: PaymentMethod {
            method: code("card"),
            provider: code("sandbox"),
            secret_ref: None,
        },
        occurred_at: SEED,
        payment_deadline: SEED,
    }
}

fn check_out(lines: &[(&str, u32)]) -> Command {
    Command::CheckOut(Box::new(priced(lines)))
}

fn checked_out(steps: &[Command]) -> Vec<Command> {
    [
        vec![add("A", 2), add("B", 1), check_out(&[("A", 2), ("B", 1)])],
        steps.to_vec(),
    ]
    .concat()
}

fn out_of_range(text: &str) -> Error {
    Error::QuantityOutOfRange {
        sku: sku(text),
        max: MAX_QUANTITY,
    }
}

#[test]
fn the_first_item_opens_the_cart() {
    given(vec![]).when(add("A", 2)).then_expect_events(vec![
        Event::CartOpened { owner: owner() },
        Event::ItemAdded {
            sku: sku("A"),
            quantity: 2,
        },
    ]);
    given(story(&[add("A", 2)]))
        .when(add("B", 1))
        .then_expect_events(vec![Event::ItemAdded {
            sku: sku("B"),
            quantity: 1,
        }]);
    let foreign = Command::AddItem {
        owner: customer(2),
        sku: sku("A"),
        quantity: 1,
    };
    given(story(&[add("A", 2)]))
        .when(foreign)
        .then_expect_error(Error::NotTheOwner);
}

#[test]
fn adding_sums_and_stays_within_the_limits() {
    assert_eq!(
        after(&[add("A", 2), add("B", 1), add("A", 3)]).lines(),
        lines(&[("A", 5), ("B", 1)])
    );
    for quantity in [0, MAX_QUANTITY + 1, u32::MAX] {
        given(vec![])
            .when(add("A", quantity))
            .then_expect_error(out_of_range("A"));
        given(story(&[add("A", 1)]))
            .when(add("A", quantity))
            .then_expect_error(out_of_range("A"));
    }
    given(story(&[add("A", MAX_QUANTITY)]))
        .when(add("A", 1))
        .then_expect_error(out_of_range("A"));

    let full: Vec<Command> = (0..MAX_LINES)
        .map(|number| add(&format!("SKU-{number}"), 1))
        .collect();
    given(story(&full))
        .when(add("A", 1))
        .then_expect_error(Error::TooManyLines { max: MAX_LINES });
    assert_eq!(
        after(&[full, vec![add("SKU-0", 1)]].concat()).lines()[0].quantity,
        2
    );
}

#[test]
fn quantities_change_and_items_leave() {
    let cart = || story(&[add("A", 2), add("B", 1)]);
    given(cart())
        .when(change("A", 5))
        .then_expect_events(vec![Event::ItemQuantityChanged {
            sku: sku("A"),
            quantity: 5,
        }]);
    given(cart()).when(change("A", 2)).then_expect_events(vec![]);
    for quantity in [0, MAX_QUANTITY + 1] {
        given(cart())
            .when(change("A", quantity))
            .then_expect_error(out_of_range("A"));
    }
    given(cart())
        .when(change("Z", 1))
        .then_expect_error(Error::UnknownItem { sku: sku("Z") });
    given(cart())
        .when(remove("A"))
        .then_expect_events(vec![Event::ItemRemoved { sku: sku("A") }]);
    given(cart())
        .when(remove("Z"))
        .then_expect_error(Error::UnknownItem { sku: sku("Z") });
    given(cart())
        .when(Command::Clear)
        .then_expect_events(vec![Event::CartCleared {}]);
    given(vec![]).when(Command::Clear).then_expect_events(vec![]);
    assert_eq!(after(&[add("A", 2), Command::Clear]).lines(), lines(&[]));
}

#[test]
fn a_check_out_makes_the_order_of_its_attempt() {
    let CheckOut {
        lines: order_lines,
        shipping,
        totals,
        country,
        payment,
        occurred_at,
        payment_deadline,
    } = priced(&[("A", 2), ("B", 1)]);
    let expected = CartCheckedOut {
        order_id: order(1),
        attempt: 1,
        customer: owner(),
        lines: order_lines,
        shipping,
        totals,
        country,
        payment,
        occurred_at,
        payment_deadline,
    };
    given(story(&[add("A", 2), add("B", 1)]))
        .when(check_out(&[("A", 2), ("B", 1)]))
        .then_expect_events(vec![Event::CartCheckedOut(Box::new(expected))]);

    let second = checked_out(&[reopen(1), check_out(&[("A", 2), ("B", 1)])]);
    assert_eq!(after(&second).checked_out_as(), Some(order(2)));
    assert_eq!(after(&second).attempts(), 2);
}

/// Race 6: checkout prices {a}; another tab adds b; the check-out is appended.
#[test]
fn a_check_out_of_other_lines_than_the_cart_s_is_refused() {
    for other in [
        &[("A", 2)][..],
        &[("A", 2), ("B", 1), ("C", 1)],
        &[("A", 2), ("B", 2)],
        &[("A", 2), ("C", 1)],
        &[("A", 2), ("B", 1), ("A", 2)],
        &[],
    ] {
        given(story(&[add("A", 2), add("B", 1)]))
            .when(check_out(other))
            .then_expect_error(Error::PricedOtherwise);
    }
    for empty in [vec![], vec![add("A", 1), remove("A")]] {
        given(story(&empty))
            .when(check_out(&[]))
            .then_expect_error(Error::Empty);
    }
}

#[test]
fn a_check_out_that_would_make_no_order_is_refused() {
    let mut wrong = priced(&[("A", 2)]);
    wrong.totals.total = pounds(1);
    let error = Error::Agreement(AgreementError::Totals {
        expected: pounds(200),
    });
    given(story(&[add("A", 2)]))
        .when(Command::CheckOut(Box::new(wrong)))
        .then_expect_error(error);
}

#[test]
fn a_checked_out_cart_accepts_nothing_from_its_owner() {
    let error = Error::CheckedOut { order_id: order(1) };
    let again = check_out(&[("A", 2), ("B", 1)]);
    for command in [
        add("C", 1),
        change("A", 1),
        remove("A"),
        Command::Clear,
        merge_into_second(),
        again,
    ] {
        given(story(&checked_out(&[])))
            .when(command)
            .then_expect_error(error.clone());
    }
}

#[test]
fn a_failed_order_gives_the_lines_back_and_a_paid_one_takes_them() {
    given(story(&checked_out(&[])))
        .when(reopen(1))
        .then_expect_events(vec![Event::CartReopened {
            order_id: order(1),
            reason: code("out-of-stock"),
        }]);
    let reopened = after(&checked_out(&[reopen(1)]));
    assert_eq!(
        (reopened.status(), reopened.lines()),
        (&CartStatus::Open, &*lines(&[("A", 2), ("B", 1)]))
    );

    given(story(&checked_out(&[])))
        .when(renew(1))
        .then_expect_events(vec![Event::CartRenewed { order_id: order(1) }]);
    let renewed = after(&checked_out(&[renew(1)]));
    assert_eq!(
        (renewed.status(), renewed.lines()),
        (&CartStatus::Open, &*lines(&[]))
    );
}

#[test]
fn a_word_about_another_order_than_the_current_one_changes_nothing() {
    let second = checked_out(&[reopen(1), check_out(&[("A", 2), ("B", 1)])]);
    for steps in [vec![], vec![add("A", 1)], checked_out(&[renew(1)]), second] {
        given(story(&steps)).when(reopen(1)).then_expect_events(vec![]);
        given(story(&steps)).when(renew(1)).then_expect_events(vec![]);
    }
}

#[test]
fn a_merge_empties_one_cart_and_fills_the_other() {
    let source = [add("A", 2), add("B", 1)];
    given(story(&source))
        .when(merge_into_second())
        .then_expect_events(vec![Event::CartMergedInto {
            target: CartId::for_owner(customer(2)),
            target_owner: customer(2),
            lines: lines(&[("A", 2), ("B", 1)]),
        }]);
    let emptied = [source.to_vec(), vec![merge_into_second()]].concat();
    assert_eq!(after(&emptied).lines(), lines(&[]));
    given(story(&emptied))
        .when(merge_into_second())
        .then_expect_events(vec![]);
    given(vec![]).when(merge_into_second()).then_expect_events(vec![]);
    let itself = Command::MergeInto {
        target_owner: owner(),
    };
    given(story(&source))
        .when(itself)
        .then_expect_error(Error::MergedIntoItself);

    let merged = Event::CartMerged {
        from: CartId::for_owner(customer(9)),
        lines: lines(&[("A", 3), ("C", 4)]),
    };
    given(vec![])
        .when(merge(&[("A", 3), ("C", 4)]))
        .then_expect_events(vec![Event::CartOpened { owner: owner() }, merged]);
    let filled = after(&[add("A", 2), add("B", 1), merge(&[("A", 3), ("C", 4)])]);
    assert_eq!(filled.lines(), lines(&[("A", 5), ("B", 1), ("C", 4)]));
    given(vec![]).when(merge(&[])).then_expect_events(vec![]);
    given(vec![])
        .when(merge(&[("A", 0)]))
        .then_expect_error(out_of_range("A"));
    let foreign = Command::Merge {
        owner: customer(2),
        from: CartId::for_owner(customer(9)),
        lines: lines(&[("A", 1)]),
    };
    given(story(&source))
        .when(foreign)
        .then_expect_error(Error::NotTheOwner);
}

#[test]
fn a_merge_into_a_checked_out_cart_is_kept_and_added_then() {
    let merged = checked_out(&[merge(&[("A", 3), ("C", 4)]), merge(&[("C", 1)])]);
    let waiting = after(&merged);
    assert_eq!(
        waiting.lines(),
        lines(&[("A", 2), ("B", 1)]),
        "what was checked out stays as it was"
    );
    assert_eq!(waiting.checked_out_as(), Some(order(1)));
    let reopened = after(&[merged.clone(), vec![reopen(1)]].concat());
    assert_eq!(reopened.lines(), lines(&[("A", 5), ("B", 1), ("C", 5)]));
    let renewed = after(&[merged, vec![renew(1)]].concat());
    assert_eq!(renewed.lines(), lines(&[("A", 3), ("C", 5)]));
}

#[test]
fn a_merge_loses_nothing_even_beyond_the_limits() {
    let brimful = [add("A", MAX_QUANTITY), merge(&[("A", MAX_QUANTITY)])];
    assert_eq!(after(&brimful).lines(), lines(&[("A", 2 * MAX_QUANTITY)]));
    given(story(&brimful))
        .when(add("A", 1))
        .then_expect_error(out_of_range("A"));
    // Fewer is always accepted, and all of it can be bought.
    assert_eq!(
        story(&brimful).len() + 1,
        story(&[brimful.to_vec(), vec![change("A", 1500)]].concat()).len()
    );
    let bought = [brimful.to_vec(), vec![check_out(&[("A", 2 * MAX_QUANTITY)])]].concat();
    assert_eq!(after(&bought).checked_out_as(), Some(order(1)));

    let names: Vec<String> = (0..MAX_LINES).map(|number| format!("SKU-{number}")).collect();
    let full: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let over = after(&[merge(&full), merge(&[("A", 1)])]);
    assert_eq!(over.lines().len(), MAX_LINES + 1);
}

#[test]
fn whoever_begins_a_merge_can_ask_for_room_first() {
    let cart = after(&[add("A", MAX_QUANTITY - 1), add("B", 1)]);
    assert!(cart.has_room_for(&lines(&[("A", 1), ("C", MAX_QUANTITY)])));
    assert!(!cart.has_room_for(&lines(&[("A", 2)])));
    let names: Vec<String> = (0..MAX_LINES - 2).map(|number| format!("SKU-{number}")).collect();
    let many: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    assert!(cart.has_room_for(&lines(&many)));
    assert!(!cart.has_room_for(&[lines(&many), lines(&[("C", 1)])].concat()));
    // What is kept for later takes room too.
    let waiting = after(&checked_out(&[merge(&[("C", MAX_QUANTITY)])]));
    assert!(!waiting.has_room_for(&lines(&[("C", 1)])));
    assert!(waiting.has_room_for(&lines(&[("A", MAX_QUANTITY - 2)])));
}
