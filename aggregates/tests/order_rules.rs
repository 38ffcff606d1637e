#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aggregates::Decide;
use aggregates::order::{
    AgreementError, MAX_LINES, MAX_QUANTITY, Order, OrderCommand as Command, OrderError as Error,
    OrderStatus, check_agreement, tax, totals, tracked_units,
};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::OrderEvent as Event;
use event_schemas::{
    ActorKind, CancelReason, Code, CountryCode, Currency, CustomerId, LineQuantity, Money, MoneyError,
    OrderId, OrderLine, OrderPlaced, OrderStage, PaymentId, PaymentMethod, ProductId, RefundId,
    ReturnCondition, ReturnId, ReturnedLine, ShipmentId, ShippingCharge, Sku, Tax, Timestamp,
};

fn given(events: Vec<Event>) -> AggregateTestExecutor<Order> {
    TestFramework::with(()).given(events)
}

/// All events so far, each list decided on the state that the lists before it leave.
fn story(steps: &[Command]) -> Vec<Event> {
    let (mut order, mut events) = (Order::default(), Vec::new());
    for step in steps {
        for event in order.decide(step).unwrap() {
            order.evolve(&event);
            events.push(event);
        }
    }
    events
}

fn status(steps: &[Command]) -> OrderStatus {
    let mut order = Order::default();
    for event in story(steps) {
        order.evolve(&event);
    }
    order.status()
}

const SEED: Timestamp = Timestamp::UNIX_EPOCH;

fn order_id() -> OrderId {
    OrderId::generate(SEED, &[1; 10])
}

fn payment_id() -> PaymentId {
    PaymentId::for_order(order_id())
}

fn shipment(number: u8) -> ShipmentId {
    ShipmentId::generate(SEED, &[number; 10])
}

fn return_id(number: u8) -> ReturnId {
    ReturnId::generate(SEED, &[number; 10])
}

fn refund_id(number: u8) -> RefundId {
    RefundId::generate(SEED, &[number; 10])
}

fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: pounds(0),
        included: false,
    }
}

fn line(line_no: u32, text: &str, unit_price: i64, quantity: u32) -> OrderLine {
    OrderLine {
        line_no,
        sku: sku(text),
        product_id: ProductId::generate(SEED, &[7; 10]),
        title: "Mug".to_owned(),
        unit_price: pounds(unit_price),
        quantity,
        discount: pounds(0),
        tax: no_tax(),
        tracked: true,
    }
}

fn free_shipping() -> ShippingCharge {
    ShippingCharge {
        price: pounds(0),
        discount: pounds(0),
        tax: no_tax(),
    }
}

fn order_of(lines: Vec<OrderLine>, shipping: ShippingCharge) -> OrderPlaced {
    OrderPlaced {
        order_id: order_id(),
        customer: CustomerId::generate(SEED, &[2; 10]),
        totals: totals(&lines, &shipping).unwrap(),
        lines,
        shipping,
        country: CountryCode::new("GB").unwrap(),
        cart_id: None,
        payment: PaymentMethod {
            method: code("card"),
            provider: code("sandbox"),
            secret_ref: None,
        },
        occurred_at: SEED,
        payment_deadline: SEED,
    }
}

/// Two units of A, one of B, and A once more at another price: 2·300 + 500 + 200 = 1300.
fn order() -> OrderPlaced {
    order_of(
        vec![line(1, "A", 300, 2), line(2, "B", 500, 1), line(3, "A", 200, 1)],
        free_shipping(),
    )
}

const TOTAL: i64 = 1300;

fn place_this(order: OrderPlaced) -> Command {
    Command::Place(Box::new(order))
}

fn place() -> Command {
    place_this(order())
}

fn reserved(text: &str) -> Command {
    Command::RecordLineReserved { sku: sku(text) }
}

fn paid_by(attempt: u32) -> Command {
    Command::MarkPaid {
        payment_id: payment_id(),
        attempt,
        amount: pounds(TOTAL),
    }
}

fn cancel(reason: CancelReason) -> Command {
    Command::Cancel {
        reason,
        by: ActorKind::Customer,
    }
}

fn by_customer() -> Command {
    cancel(CancelReason::CustomerRequest)
}

fn out_of_stock() -> Command {
    cancel(CancelReason::OutOfStock {
        sku: sku("A"),
        available: 0,
    })
}

fn units(lines: &[(u32, u32)]) -> Vec<LineQuantity> {
    lines
        .iter()
        .map(|(line_no, quantity)| LineQuantity {
            line_no: *line_no,
            quantity: *quantity,
        })
        .collect()
}

fn dispatch(number: u8, lines: &[(u32, u32)]) -> Command {
    Command::Dispatch {
        shipment_id: shipment(number),
        lines: units(lines),
        carrier: code("royal-mail"),
        tracking_number: None,
    }
}

fn delivered(number: u8) -> Command {
    Command::RecordDelivered {
        shipment_id: shipment(number),
        delivered_at: SEED,
    }
}

fn request_return(number: u8, lines: &[(u32, u32)]) -> Command {
    Command::RequestReturn {
        return_id: return_id(number),
        lines: units(lines),
        reason: code("broken"),
        note: None,
    }
}

fn approve(number: u8) -> Command {
    Command::ApproveReturn {
        return_id: return_id(number),
    }
}

fn reject(number: u8) -> Command {
    Command::RejectReturn {
        return_id: return_id(number),
        reason: code("worn"),
    }
}

fn receive(number: u8, lines: &[(u32, u32)], refund: i64) -> Command {
    let lines = units(lines)
        .into_iter()
        .map(|LineQuantity { line_no, quantity }| ReturnedLine {
            line_no,
            quantity,
            condition: ReturnCondition::Resaleable,
        })
        .collect();
    Command::ReceiveReturn {
        return_id: return_id(number),
        lines,
        refund: pounds(refund),
    }
}

fn record_refund(number: u8, attempt: u32, amount: i64) -> Command {
    let refund_id = refund_id(number);
    Command::RecordRefund {
        payment_id: payment_id(),
        attempt,
        refund_id,
        amount: pounds(amount),
    }
}

fn to_awaiting() -> Vec<Command> {
    vec![place(), reserved("A"), reserved("B")]
}

fn to_paid() -> Vec<Command> {
    with(to_awaiting(), &[paid_by(1)])
}

fn to_shipped() -> Vec<Command> {
    with(to_paid(), &[dispatch(1, &[(1, 2), (2, 1), (3, 1)])])
}

fn to_delivered() -> Vec<Command> {
    with(to_shipped(), &[delivered(1)])
}

fn to_cancelled() -> Vec<Command> {
    vec![place(), by_customer()]
}

fn with(mut steps: Vec<Command>, more: &[Command]) -> Vec<Command> {
    steps.extend_from_slice(more);
    steps
}

#[test]
fn the_last_reservation_requires_the_payment_in_the_same_breath() {
    given(story(&[place()]))
        .when(reserved("A"))
        .then_expect_events(vec![Event::LineReserved { sku: sku("A") }]);
    given(story(&[place(), reserved("A")]))
        .when(reserved("B"))
        .then_expect_events(vec![
            Event::LineReserved { sku: sku("B") },
            Event::OrderReserved {},
            Event::PaymentRequired {
                payment_id: payment_id(),
                amount: pounds(TOTAL),
                method: order().payment,
            },
        ]);
}

#[test]
fn a_reservation_counts_once() {
    given(story(&[place(), reserved("A")]))
        .when(reserved("A"))
        .then_expect_events(vec![]);
    given(story(&to_paid()))
        .when(reserved("A"))
        .then_expect_events(vec![]);
    let unknown = Error::UnknownSku { sku: sku("Z") };
    given(story(&[place()]))
        .when(reserved("Z"))
        .then_expect_error(unknown);
}

/// Race 7: a reservation that comes after the cancel has to be released.
#[test]
fn a_reservation_of_a_cancelled_order_is_refused_by_name() {
    given(story(&to_cancelled()))
        .when(reserved("A"))
        .then_expect_error(Error::Cancelled);
    let steps = [place(), reserved("A"), out_of_stock()];
    given(story(&steps))
        .when(reserved("B"))
        .then_expect_error(Error::Cancelled);
}

#[test]
fn untracked_lines_are_not_reserved() {
    let mut service = order();
    service.lines[1].tracked = false;
    assert_eq!(tracked_units(&service.lines), [(sku("A"), 3)].into());
    let steps = [place_this(service.clone()), reserved("A")];
    assert_eq!(status(&steps), OrderStatus::AwaitingPayment);
    let waits = Error::NotReserved { pending: 1 };
    given(story(&steps[..1]))
        .when(Command::RecordReserved)
        .then_expect_error(waits);
    given(story(&steps[..1]))
        .when(reserved("B"))
        .then_expect_error(Error::UnknownSku { sku: sku("B") });

    for line in &mut service.lines {
        line.tracked = false;
    }
    let place = place_this(service);
    assert_eq!(
        status(&[place.clone(), Command::RecordReserved]),
        OrderStatus::AwaitingPayment
    );
    let again = story(&[place.clone(), Command::RecordReserved]);
    given(again)
        .when(Command::RecordReserved)
        .then_expect_events(vec![]);
    let cancelled = story(&[place, by_customer()]);
    given(cancelled)
        .when(Command::RecordReserved)
        .then_expect_events(vec![]);
}

#[test]
fn an_order_is_placed_once() {
    given(vec![])
        .when(place())
        .then_expect_events(vec![Event::OrderPlaced(Box::new(order()))]);
    given(story(&to_paid())).when(place()).then_expect_events(vec![]);
    let mut other = order();
    other.country = CountryCode::new("FR").unwrap();
    given(story(&to_paid()))
        .when(place_this(other))
        .then_expect_error(Error::AlreadyPlaced);
    for command in [
        reserved("A"),
        Command::RecordReserved,
        paid_by(1),
        by_customer(),
        Command::Complete,
    ] {
        given(vec![]).when(command).then_expect_error(Error::NotFound);
    }
}

#[test]
fn an_order_is_paid_once_and_by_its_own_payment() {
    let paid = Event::OrderPaid {
        payment_id: payment_id(),
        attempt: 2,
        amount: pounds(TOTAL),
    };
    given(story(&to_awaiting()))
        .when(paid_by(2))
        .then_expect_events(vec![paid]);
    given(story(&to_paid()))
        .when(paid_by(1))
        .then_expect_events(vec![]);
    given(story(&to_delivered()))
        .when(paid_by(1))
        .then_expect_events(vec![]);
    // Race 11: attempt 1 is captured after attempt 2 has paid.
    let by_second = story(&with(to_awaiting(), &[paid_by(2)]));
    given(by_second)
        .when(paid_by(1))
        .then_expect_error(Error::PaidByAnotherAttempt { attempt: 2 });
    given(story(&[place()]))
        .when(paid_by(1))
        .then_expect_error(Error::WrongStatus {
            status: OrderStatus::Placed,
        });

    let by = |payment_id, attempt, amount| Command::MarkPaid {
        payment_id,
        attempt,
        amount: pounds(amount),
    };
    let not_enough = by(payment_id(), 1, TOTAL - 1);
    given(story(&to_awaiting()))
        .when(not_enough)
        .then_expect_error(Error::WrongAmount {
            expected: pounds(TOTAL),
        });
    let of_another = by(PaymentId::generate(SEED, &[9; 10]), 1, TOTAL);
    given(story(&to_awaiting()))
        .when(of_another)
        .then_expect_error(Error::WrongPayment);
    let for_nothing = by(payment_id(), 0, TOTAL);
    given(story(&to_awaiting()))
        .when(for_nothing)
        .then_expect_error(Error::WrongPayment);
}

/// Race 9 and 13: the money of a cancelled order has to be given back.
#[test]
fn the_payment_of_a_cancelled_order_is_refused_by_name() {
    let unpaid = story(&with(to_awaiting(), &[cancel(CancelReason::PaymentTimeout)]));
    given(unpaid).when(paid_by(1)).then_expect_error(Error::Cancelled);
    // It had paid before the cancel, which gives it back already.
    let paid = story(&with(to_paid(), &[by_customer()]));
    given(paid.clone()).when(paid_by(1)).then_expect_events(vec![]);
    given(paid)
        .when(paid_by(2))
        .then_expect_error(Error::PaidByAnotherAttempt { attempt: 1 });
}

#[test]
fn an_order_that_costs_nothing_is_paid_by_attempt_0() {
    let gift = place_this(order_of(vec![line(1, "A", 0, 1)], free_shipping()));
    let steps = [gift, reserved("A")];
    let nothing = |attempt| Command::MarkPaid {
        payment_id: payment_id(),
        attempt,
        amount: pounds(0),
    };
    assert_eq!(status(&with(steps.to_vec(), &[nothing(0)])), OrderStatus::Paid);
    given(story(&steps))
        .when(nothing(1))
        .then_expect_error(Error::WrongPayment);
}

#[test]
fn an_order_is_cancelled_once_and_only_before_anything_ships() {
    let cancelled = |stage| {
        vec![Event::OrderCancelled {
            reason: CancelReason::CustomerRequest,
            by: ActorKind::Customer,
            stage,
        }]
    };
    given(story(&[place()]))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::Placed));
    given(story(&to_awaiting()))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::AwaitingPayment));
    given(story(&to_paid()))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::Paid));
    let partly = with(to_paid(), &[dispatch(1, &[(1, 1)])]);
    for steps in [partly, to_shipped(), to_delivered()] {
        given(story(&steps))
            .when(by_customer())
            .then_expect_error(Error::AlreadyShipped);
    }
    // Race 8: two SKUs are rejected; the second cancel is a no-op.
    given(story(&[place(), out_of_stock()]))
        .when(out_of_stock())
        .then_expect_events(vec![]);
}

/// Race 13: the deadline fires after the payment.
#[test]
fn a_cancel_whose_cause_is_gone_is_a_no_op() {
    let too_late = || cancel(CancelReason::PaymentTimeout);
    assert_eq!(status(&[place(), too_late()]), OrderStatus::Cancelled);
    assert_eq!(
        status(&with(to_awaiting(), &[too_late()])),
        OrderStatus::Cancelled
    );
    for steps in [
        to_paid(),
        to_shipped(),
        to_delivered(),
        with(to_delivered(), &[Command::Complete]),
    ] {
        given(story(&steps)).when(too_late()).then_expect_events(vec![]);
        given(story(&steps))
            .when(out_of_stock())
            .then_expect_events(vec![]);
    }
    given(story(&to_awaiting()))
        .when(out_of_stock())
        .then_expect_events(vec![]);
}

#[test]
fn shipments_stay_within_the_order() {
    let wrong = |steps: Vec<Command>, lines: &[(u32, u32)], error| {
        given(story(&steps))
            .when(dispatch(2, lines))
            .then_expect_error(error);
    };
    wrong(
        to_awaiting(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::AwaitingPayment,
        },
    );
    wrong(
        to_cancelled(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::Cancelled,
        },
    );
    wrong(
        to_shipped(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::Shipped,
        },
    );
    wrong(to_paid(), &[], Error::InvalidLine { line_no: 0 });
    wrong(to_paid(), &[(4, 1)], Error::InvalidLine { line_no: 4 });
    wrong(to_paid(), &[(0, 1)], Error::InvalidLine { line_no: 0 });
    wrong(to_paid(), &[(1, 0)], Error::InvalidLine { line_no: 1 });
    wrong(to_paid(), &[(1, 1), (1, 1)], Error::InvalidLine { line_no: 1 });
    wrong(to_paid(), &[(1, 3)], Error::TooManyUnits { line_no: 1, left: 2 });
    let partly = || with(to_paid(), &[dispatch(1, &[(1, 1)])]);
    assert_eq!(status(&partly()), OrderStatus::PartiallyShipped);
    wrong(partly(), &[(1, 2)], Error::TooManyUnits { line_no: 1, left: 1 });
    given(story(&partly()))
        .when(dispatch(1, &[(1, 1)]))
        .then_expect_error(Error::DuplicateShipment {
            shipment_id: shipment(1),
        });
    assert_eq!(
        status(&with(partly(), &[dispatch(2, &[(1, 1), (2, 1), (3, 1)])])),
        OrderStatus::Shipped
    );
}

#[test]
fn an_order_is_delivered_when_all_of_it_is() {
    let partly = with(to_paid(), &[dispatch(1, &[(1, 2)]), delivered(1)]);
    assert_eq!(status(&partly), OrderStatus::PartiallyShipped);
    given(story(&partly))
        .when(delivered(1))
        .then_expect_events(vec![]);
    given(story(&partly))
        .when(delivered(2))
        .then_expect_error(Error::UnknownShipment {
            shipment_id: shipment(2),
        });
    let shipped = with(partly, &[dispatch(2, &[(2, 1), (3, 1)])]);
    assert_eq!(status(&shipped), OrderStatus::Shipped);
    assert_eq!(status(&with(shipped, &[delivered(2)])), OrderStatus::Delivered);
}

#[test]
fn an_order_is_complete_after_delivery_and_without_an_open_return() {
    given(story(&to_delivered()))
        .when(Command::Complete)
        .then_expect_events(vec![Event::OrderCompleted {}]);
    let done = with(to_delivered(), &[Command::Complete]);
    given(story(&done))
        .when(Command::Complete)
        .then_expect_events(vec![]);
    let early = Error::WrongStatus {
        status: OrderStatus::Shipped,
    };
    given(story(&to_shipped()))
        .when(Command::Complete)
        .then_expect_error(early);
    let returning = with(to_delivered(), &[request_return(1, &[(1, 1)])]);
    given(story(&returning))
        .when(Command::Complete)
        .then_expect_error(Error::ReturnOpen);
    let rejected = with(returning, &[reject(1)]);
    given(story(&rejected))
        .when(Command::Complete)
        .then_expect_events(vec![Event::OrderCompleted {}]);
    let too_late = Error::WrongStatus {
        status: OrderStatus::Completed,
    };
    given(story(&done))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(too_late);
}

#[test]
fn a_return_is_requested_decided_and_received() {
    let requested = with(to_delivered(), &[request_return(1, &[(1, 2), (2, 1)])]);
    assert_eq!(status(&requested), OrderStatus::ReturnRequested);
    let wrong_state = || Error::ReturnState {
        return_id: return_id(1),
    };
    given(story(&requested))
        .when(receive(1, &[(1, 1)], 300))
        .then_expect_error(wrong_state());
    given(story(&requested))
        .when(request_return(2, &[(3, 1)]))
        .then_expect_error(Error::ReturnOpen);
    given(story(&requested))
        .when(approve(2))
        .then_expect_error(Error::UnknownReturn {
            return_id: return_id(2),
        });

    let rejected = with(requested.clone(), &[reject(1)]);
    assert_eq!(status(&rejected), OrderStatus::Delivered);
    given(story(&rejected)).when(reject(1)).then_expect_events(vec![]);
    given(story(&rejected))
        .when(approve(1))
        .then_expect_error(wrong_state());
    let again = Error::DuplicateReturn {
        return_id: return_id(1),
    };
    given(story(&rejected))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(again);

    let approved = with(requested, &[approve(1)]);
    given(story(&approved))
        .when(approve(1))
        .then_expect_events(vec![]);
    assert_eq!(
        status(&with(approved.clone(), &[reject(1)])),
        OrderStatus::Delivered
    );
    let wrong = |lines: &[(u32, u32)], refund, error| {
        given(story(&approved))
            .when(receive(1, lines, refund))
            .then_expect_error(error);
    };
    wrong(&[], 0, Error::InvalidLine { line_no: 0 });
    wrong(&[(3, 1)], 0, Error::InvalidLine { line_no: 3 });
    wrong(&[(1, 2), (1, 0)], 0, Error::InvalidLine { line_no: 1 });
    wrong(&[(1, 2), (1, 1)], 0, Error::TooManyUnits { line_no: 1, left: 2 });
    wrong(
        &[(1, 1)],
        TOTAL + 1,
        Error::RefundExceedsPaid { left: pounds(TOTAL) },
    );
    wrong(&[(1, 1)], -1, Error::RefundExceedsPaid { left: pounds(TOTAL) });
    // Fewer came than were announced, one of them in another condition.
    let received = with(approved, &[receive(1, &[(1, 1), (1, 1)], 600)]);
    assert_eq!(status(&received), OrderStatus::Returned);
    given(story(&received))
        .when(receive(1, &[(1, 1), (1, 1)], 600))
        .then_expect_events(vec![]);
    given(story(&received))
        .when(reject(1))
        .then_expect_error(wrong_state());
    given(story(&received))
        .when(Command::Complete)
        .then_expect_events(vec![]);
}

#[test]
fn a_return_stays_within_what_was_shipped() {
    let wrong = |lines: &[(u32, u32)], error| {
        given(story(&to_delivered()))
            .when(request_return(1, lines))
            .then_expect_error(error);
    };
    wrong(&[], Error::InvalidLine { line_no: 0 });
    wrong(&[(4, 1)], Error::InvalidLine { line_no: 4 });
    wrong(&[(1, 3)], Error::TooManyUnits { line_no: 1, left: 2 });
    let early = Error::WrongStatus {
        status: OrderStatus::Shipped,
    };
    given(story(&to_shipped()))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(early);
}

#[test]
fn refunds_of_the_attempt_that_paid_are_recorded_once_and_within_what_was_paid() {
    let recorded = Event::RefundRecorded {
        payment_id: payment_id(),
        attempt: 1,
        refund_id: refund_id(1),
        amount: pounds(1000),
    };
    for steps in [to_paid(), to_delivered(), with(to_paid(), &[by_customer()])] {
        given(story(&steps))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![recorded.clone()]);
        let once = with(steps, &[record_refund(1, 1, 1000)]);
        given(story(&once))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![]);
        let too_much = Error::RefundExceedsPaid { left: pounds(300) };
        given(story(&once))
            .when(record_refund(2, 1, 301))
            .then_expect_error(too_much);
        let nothing = Error::Money(MoneyError::OutOfRange);
        given(story(&once))
            .when(record_refund(2, 1, 0))
            .then_expect_error(nothing);
        assert_eq!(
            story(&with(once.clone(), &[record_refund(2, 1, 300)])).len(),
            story(&once).len() + 1
        );
        // The surplus of another attempt is not this order's money.
        given(story(&once))
            .when(record_refund(3, 2, 300))
            .then_expect_events(vec![]);
    }
    for steps in [to_awaiting(), to_cancelled()] {
        given(story(&steps))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![]);
    }
}

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
