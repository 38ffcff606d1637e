#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aggregates::Decide;
use aggregates::inventory::{InventoryCommand as Command, InventoryError as Error, StockItem};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::InventoryEvent as Event;
use event_schemas::{Code, OrderId, ProductId, Reference, ReleaseReason, ReturnCondition, Timestamp};

fn given(events: Vec<Event>) -> AggregateTestExecutor<StockItem> {
    TestFramework::with(()).given(events)
}

fn product(number: u8) -> ProductId {
    ProductId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn order(number: u8) -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn reference() -> Reference {
    Reference::new("delivery 1").unwrap()
}

fn assigned() -> Event {
    Event::SkuAssigned {
        product_id: product(1),
    }
}

fn received(quantity: u32) -> Event {
    Event::StockReceived {
        quantity,
        reference: reference(),
    }
}

fn adjusted(delta: i64) -> Event {
    Event::StockAdjusted {
        delta,
        reason: code("count"),
    }
}

fn reserved(number: u8, quantity: u32) -> Event {
    Event::StockReserved {
        order_id: order(number),
        quantity,
    }
}

fn rejected(number: u8, quantity: u32, available: u64) -> Event {
    Event::ReservationRejected {
        order_id: order(number),
        quantity,
        available,
    }
}

fn released(number: u8, quantity: u32) -> Event {
    Event::ReservationReleased {
        order_id: order(number),
        quantity,
        reason: ReleaseReason::OrderCancelled,
    }
}

fn committed(number: u8, quantity: u32) -> Event {
    Event::ReservationCommitted {
        order_id: order(number),
        quantity,
    }
}

fn returned(number: u8, quantity: u32, condition: ReturnCondition) -> Event {
    Event::StockReturned {
        order_id: order(number),
        quantity,
        condition,
    }
}

fn limit(limit: u32) -> Event {
    Event::BackorderLimitSet { limit }
}

fn receive(quantity: u32) -> Command {
    Command::Receive {
        quantity,
        reference: reference(),
    }
}

fn adjust(delta: i64) -> Command {
    Command::Adjust {
        delta,
        reason: code("count"),
    }
}

fn reserve(number: u8, quantity: u32) -> Command {
    Command::Reserve {
        order_id: order(number),
        quantity,
    }
}

fn release(number: u8) -> Command {
    Command::Release {
        order_id: order(number),
        reason: ReleaseReason::OrderCancelled,
    }
}

fn commit(number: u8, quantity: u32) -> Command {
    Command::Commit {
        order_id: order(number),
        quantity,
    }
}

fn take_back(number: u8, quantity: u32, condition: ReturnCondition) -> Command {
    Command::Return {
        order_id: order(number),
        quantity,
        condition,
    }
}

#[test]
fn a_sku_belongs_to_one_product_and_the_other_hears_whose_it_is() {
    let assign = |number| Command::AssignSku {
        product_id: product(number),
    };
    given(vec![]).when(assign(1)).then_expect_events(vec![assigned()]);
    given(vec![assigned()]).when(assign(1)).then_expect_events(vec![]);
    given(vec![assigned()])
        .when(assign(2))
        .then_expect_error(Error::AssignedTo {
            product_id: product(1),
        });
}

#[test]
fn stock_is_received_once_the_sku_is_assigned() {
    given(vec![assigned()])
        .when(receive(5))
        .then_expect_events(vec![received(5)]);
    given(vec![])
        .when(receive(5))
        .then_expect_error(Error::NotAssigned);
    given(vec![assigned()])
        .when(receive(0))
        .then_expect_error(Error::QuantityOutOfRange);
    let full = i64::try_from(StockItem::MAX_ON_HAND).unwrap();
    given(vec![assigned(), adjusted(full)])
        .when(receive(1))
        .then_expect_error(Error::Overflow);
    given(vec![assigned(), adjusted(full - 1)])
        .when(receive(1))
        .then_expect_events(vec![received(1)]);
}

#[test]
fn an_adjustment_breaks_no_promise() {
    let held = || vec![assigned(), received(5), reserved(1, 3)];
    given(held())
        .when(adjust(-2))
        .then_expect_events(vec![adjusted(-2)]);
    given(held())
        .when(adjust(-3))
        .then_expect_error(Error::BelowReserved { available: 2 });
    given(held())
        .when(adjust(i64::MIN))
        .then_expect_error(Error::BelowReserved { available: 2 });
    given(held())
        .when(adjust(i64::MAX))
        .then_expect_error(Error::Overflow);
    given(held())
        .when(adjust(0))
        .then_expect_error(Error::QuantityOutOfRange);
    given(vec![])
        .when(adjust(1))
        .then_expect_error(Error::NotAssigned);
    // A backorder limit may cover the promise, and goods that are not there still can't be taken away.
    let backordered = || vec![assigned(), limit(10), received(5), reserved(1, 3)];
    given(backordered())
        .when(adjust(-5))
        .then_expect_events(vec![adjusted(-5)]);
    given(backordered())
        .when(adjust(-6))
        .then_expect_error(Error::BelowReserved { available: 5 });
}

#[test]
fn the_last_unit_is_promised_once() {
    given(vec![assigned(), received(2)])
        .when(reserve(1, 2))
        .then_expect_events(vec![reserved(1, 2)]);
    given(vec![assigned(), received(2), reserved(1, 2)])
        .when(reserve(2, 1))
        .then_expect_events(vec![rejected(2, 1, 0)]);
    given(vec![assigned(), received(2)])
        .when(reserve(1, 3))
        .then_expect_events(vec![rejected(1, 3, 2)]);
    given(vec![assigned(), received(2)])
        .when(reserve(1, u32::MAX))
        .then_expect_events(vec![rejected(1, u32::MAX, 2)]);
    given(vec![assigned(), received(2)])
        .when(reserve(1, 0))
        .then_expect_error(Error::QuantityOutOfRange);
}

#[test]
fn a_sku_of_nobody_has_nothing_to_promise() {
    given(vec![])
        .when(reserve(1, 1))
        .then_expect_events(vec![rejected(1, 1, 0)]);
}

#[test]
fn units_beyond_the_stock_are_promised_up_to_the_backorder_limit() {
    let item = || vec![assigned(), limit(3), received(2)];
    given(item())
        .when(reserve(1, 5))
        .then_expect_events(vec![reserved(1, 5)]);
    given(item())
        .when(reserve(1, 6))
        .then_expect_events(vec![rejected(1, 6, 5)]);
}

#[test]
fn an_order_holds_at_most_one_reservation() {
    let held = || vec![assigned(), received(5), reserved(1, 2)];
    given(held()).when(reserve(1, 2)).then_expect_events(vec![]);
    given(held())
        .when(reserve(1, 3))
        .then_expect_error(Error::AlreadyReserved {
            order_id: order(1),
            reserved: 2,
        });
}

/// See the module's notes on repeats: the item remembers no order that holds nothing.
#[test]
fn a_reserve_after_a_rejection_or_a_release_is_decided_like_a_new_one() {
    given(vec![assigned(), rejected(1, 2, 0), received(2)])
        .when(reserve(1, 2))
        .then_expect_events(vec![reserved(1, 2)]);
    given(vec![assigned(), received(2), reserved(1, 2), released(1, 2)])
        .when(reserve(1, 2))
        .then_expect_events(vec![reserved(1, 2)]);
}

#[test]
fn a_release_gives_back_all_that_the_order_holds_and_nothing_twice() {
    let held = || vec![assigned(), received(5), reserved(1, 2), reserved(2, 1)];
    given(held())
        .when(release(1))
        .then_expect_events(vec![released(1, 2)]);
    given(held())
        .and(vec![released(1, 2)])
        .when(release(1))
        .then_expect_events(vec![]);
    given(held()).when(release(3)).then_expect_events(vec![]);
    given(held())
        .and(vec![committed(1, 1)])
        .when(release(1))
        .then_expect_events(vec![released(1, 1)]);
    given(vec![]).when(release(1)).then_expect_events(vec![]);
}

#[test]
fn what_was_released_can_be_promised_again() {
    given(vec![assigned(), received(2), reserved(1, 2), released(1, 2)])
        .when(reserve(2, 2))
        .then_expect_events(vec![reserved(2, 2)]);
}

#[test]
fn only_what_is_reserved_leaves_the_building() {
    let held = || vec![assigned(), received(5), reserved(1, 3)];
    let not_reserved = |reserved| Error::NotReserved {
        order_id: order(1),
        reserved,
    };
    given(held())
        .when(commit(1, 3))
        .then_expect_events(vec![committed(1, 3)]);
    given(held())
        .when(commit(1, 1))
        .then_expect_events(vec![committed(1, 1)]);
    given(held())
        .when(commit(1, 4))
        .then_expect_error(not_reserved(3));
    given(held())
        .and(vec![committed(1, 3)])
        .when(commit(1, 1))
        .then_expect_error(not_reserved(0));
    given(held())
        .and(vec![released(1, 3)])
        .when(commit(1, 1))
        .then_expect_error(not_reserved(0));
    given(held())
        .when(commit(1, 0))
        .then_expect_error(Error::QuantityOutOfRange);
}

#[test]
fn a_backorder_leaves_once_its_goods_have_come() {
    let promised = || vec![assigned(), limit(3), reserved(1, 3), received(1)];
    given(promised())
        .when(commit(1, 2))
        .then_expect_error(Error::NotOnHand { on_hand: 1 });
    given(promised())
        .when(commit(1, 1))
        .then_expect_events(vec![committed(1, 1)]);
}

#[test]
fn committing_frees_nothing_for_others() {
    given(vec![assigned(), received(2), reserved(1, 2), committed(1, 2)])
        .when(reserve(2, 1))
        .then_expect_events(vec![rejected(2, 1, 0)]);
}

#[test]
fn no_more_comes_back_than_ever_left() {
    use ReturnCondition::{Damaged, Resaleable};
    let sent = || vec![assigned(), received(5), reserved(1, 3), committed(1, 2)];
    given(sent())
        .when(take_back(1, 2, Resaleable))
        .then_expect_events(vec![returned(1, 2, Resaleable)]);
    given(sent())
        .when(take_back(1, 2, Damaged))
        .then_expect_events(vec![returned(1, 2, Damaged)]);
    given(sent())
        .when(take_back(1, 3, Resaleable))
        .then_expect_error(Error::NotSent { order_id: order(1) });
    given(sent())
        .and(vec![returned(1, 2, Damaged)])
        .when(take_back(1, 1, Resaleable))
        .then_expect_error(Error::NotSent { order_id: order(1) });
    given(sent())
        .when(take_back(1, 0, Resaleable))
        .then_expect_error(Error::QuantityOutOfRange);
}

#[test]
fn only_resaleable_returns_can_be_sold_again() {
    use ReturnCondition::{Damaged, Resaleable};
    let sold_out = || vec![assigned(), received(1), reserved(1, 1), committed(1, 1)];
    given(sold_out())
        .and(vec![returned(1, 1, Resaleable)])
        .when(reserve(2, 1))
        .then_expect_events(vec![reserved(2, 1)]);
    given(sold_out())
        .and(vec![returned(1, 1, Damaged)])
        .when(reserve(2, 1))
        .then_expect_events(vec![rejected(2, 1, 0)]);
}

#[test]
fn the_backorder_limit_keeps_what_was_promised() {
    let set = |limit| Command::SetBackorderLimit { limit };
    let promised = || vec![assigned(), limit(5), received(1), reserved(1, 4)];
    given(vec![assigned()])
        .when(set(5))
        .then_expect_events(vec![limit(5)]);
    given(vec![assigned(), limit(5)])
        .when(set(5))
        .then_expect_events(vec![]);
    given(promised()).when(set(3)).then_expect_events(vec![limit(3)]);
    given(promised())
        .when(set(2))
        .then_expect_error(Error::BelowReserved { available: 2 });
    given(promised())
        .when(set(u32::MAX))
        .then_expect_events(vec![limit(u32::MAX)]);
    given(vec![]).when(set(1)).then_expect_error(Error::NotAssigned);
}

/// Race 1 of the design: decided again on what another process left, neither order gets the units.
#[test]
fn reservations_decided_again_after_an_adjustment_are_rejected() {
    given(vec![assigned(), received(2), adjusted(-2)])
        .when(reserve(1, 1))
        .then_expect_events(vec![rejected(1, 1, 0)]);
    given(vec![assigned(), received(2), adjusted(-2), rejected(1, 1, 0)])
        .when(reserve(2, 1))
        .then_expect_events(vec![rejected(2, 1, 0)]);
}

#[test]
fn the_state_says_who_holds_what() {
    let mut item = StockItem::default();
    for event in [
        assigned(),
        received(9),
        reserved(1, 3),
        reserved(2, 4),
        committed(1, 1),
        limit(2),
    ] {
        item.evolve(&event);
    }
    assert_eq!(item.product_id(), Some(product(1)));
    assert_eq!(
        (
            item.on_hand(),
            item.reserved_total(),
            item.available(),
            item.sent()
        ),
        (8, 6, 4, 1)
    );
    assert_eq!(
        (
            item.reserved_by(order(1)),
            item.reserved_by(order(2)),
            item.reserved_by(order(3))
        ),
        (2, 4, 0)
    );
}
