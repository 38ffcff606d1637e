use aggregates::cart::CartError;
use http_conventions::Problem;

use crate::execute::Refusal;

impl Refusal for CartError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::CheckedOut { order_id } => Problem::conflict("cart-checked-out", "The cart is checked out")
                .detail(detail)
                .with("order_id", order_id),
            Self::QuantityOutOfRange { sku, max } => {
                Problem::refused("quantity-out-of-range", "Quantity out of range")
                    .detail(detail)
                    .with("sku", sku)
                    .with("max", max)
            }
            Self::TooManyLines { max } => Problem::refused("too-many-lines", "Too many lines")
                .detail(detail)
                .with("max", max),
            Self::UnknownItem { sku } => Problem::not_found().detail(detail).with("sku", sku),
            Self::Empty => Problem::refused("cart-empty", "The cart is empty"),
            Self::PricedOtherwise => Problem::conflict("cart-changed", "The cart has changed")
                .detail("the cart kept changing while it was priced; look at it and try again"),
            Self::Agreement(error) => error.problem(),
            Self::NotTheOwner => Problem::not_found(),
            Self::MergedIntoItself => Problem::refused("same-cart", "Nothing to merge").detail(detail),
        }
    }
}
