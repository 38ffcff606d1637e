use aggregates::inventory::InventoryError;
use http_conventions::Problem;

use crate::execute::Refusal;

impl Refusal for InventoryError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotAssigned => Problem::not_found(),
            Self::AssignedTo { product_id } => {
                Problem::conflict("sku-taken", "The SKU belongs to another product")
                    .detail(detail)
                    .with("product_id", product_id)
            }
            Self::BelowReserved { available } => Problem::conflict("stock-promised", "The stock is promised")
                .detail(detail)
                .with("available", available),
            Self::NotOnHand { on_hand } => Problem::conflict("not-on-hand", "Not on hand")
                .detail(detail)
                .with("on_hand", on_hand),
            Self::AlreadyReserved { order_id, reserved } | Self::NotReserved { order_id, reserved } => {
                Problem::conflict("reservation-mismatch", "The reservation differs")
                    .detail(detail)
                    .with("order_id", order_id)
                    .with("reserved", reserved)
            }
            Self::NotSent { order_id } => Problem::conflict("not-sent", "More than was sent")
                .detail(detail)
                .with("order_id", order_id),
            Self::QuantityOutOfRange | Self::Overflow => {
                Problem::refused("quantity-out-of-range", "Quantity out of range").detail(detail)
            }
        }
    }
}
