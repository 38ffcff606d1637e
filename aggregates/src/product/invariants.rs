//! What holds of a product after every event.

use super::{Product, ProductStatus, limits};

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Product) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    (
        "a published product has something to sell",
        a_published_product_has_something_to_sell,
    ),
    ("no price is negative", no_price_is_negative),
    ("all prices are in one currency", all_prices_are_in_one_currency),
    ("it is within its limits", it_is_within_its_limits),
    ("an absent product has nothing", an_absent_product_has_nothing),
];

/// At least one variant.
pub fn a_published_product_has_something_to_sell(product: &Product) -> bool {
    product.status != ProductStatus::Published || !product.variants.is_empty()
}

/// Free is allowed.
pub fn no_price_is_negative(product: &Product) -> bool {
    product
        .variants
        .values()
        .all(|variant| !variant.price.is_negative())
}

/// A shop has one; within a product this is where it holds.
pub fn all_prices_are_in_one_currency(product: &Product) -> bool {
    let mut currencies = product.variants.values().map(|variant| variant.price.currency());
    currencies
        .next()
        .is_none_or(|first| currencies.all(|currency| currency == first))
}

/// Variants, texts and lists.
pub fn it_is_within_its_limits(product: &Product) -> bool {
    product.variants.len() <= limits::MAX_VARIANTS
        && (product.status == ProductStatus::Absent || limits::check_details(&product.details).is_ok())
}

/// Nothing happens before its creation.
pub fn an_absent_product_has_nothing(product: &Product) -> bool {
    product.status != ProductStatus::Absent || *product == Product::default()
}
