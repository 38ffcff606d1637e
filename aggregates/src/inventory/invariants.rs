//! What holds of a stock item after every event.

use super::StockItem;

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&StockItem) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    ("no more is promised than may be", no_more_is_promised_than_may_be),
    (
        "the total is the sum of the reservations",
        the_total_is_the_sum_of_the_reservations,
    ),
    ("no reservation is empty", no_reservation_is_empty),
    (
        "only a SKU of a product has stock",
        only_a_sku_of_a_product_has_stock,
    ),
    ("counts are within range", counts_are_within_range),
];

/// Never oversold: `available ≥ 0`.
pub fn no_more_is_promised_than_may_be(item: &StockItem) -> bool {
    item.reserved_total <= item.promisable()
}

/// The running total that decisions rely on.
pub fn the_total_is_the_sum_of_the_reservations(item: &StockItem) -> bool {
    item.reserved_total
        == item
            .reserved
            .values()
            .map(|quantity| u64::from(*quantity))
            .sum::<u64>()
}

/// What was given up is forgotten.
pub fn no_reservation_is_empty(item: &StockItem) -> bool {
    item.reserved.values().all(|quantity| *quantity > 0)
}

/// Nothing is received, promised or sent before the SKU is assigned.
pub fn only_a_sku_of_a_product_has_stock(item: &StockItem) -> bool {
    item.product_id.is_some()
        || (item.on_hand, item.reserved_total, item.sent, item.backorder_limit) == (0, 0, 0, 0)
}

/// What was promised never exceeds what can be counted.
pub fn counts_are_within_range(item: &StockItem) -> bool {
    item.on_hand <= StockItem::MAX_ON_HAND && item.sent <= StockItem::MAX_ON_HAND
}
