use aggregates::product::ProductError;
use http_conventions::Problem;

use crate::execute::Refusal;

impl Refusal for ProductError {
    fn problem(self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::NotFound => Problem::not_found(),
            Self::AlreadyExists => Problem::conflict("product-exists", "The product exists already"),
            Self::Archived => Problem::conflict("product-archived", "The product is archived"),
            Self::UnknownVariant { sku } => Problem::refused("unknown-variant", "No such variant")
                .detail(detail)
                .with("sku", sku),
            Self::DuplicateVariant { sku } => {
                Problem::conflict("variant-exists", "The variant exists already")
                    .detail(detail)
                    .with("sku", sku)
            }
            Self::NoVariants => {
                Problem::conflict("no-variants", "The product has nothing to sell").detail(detail)
            }
            Self::NegativePrice => {
                Problem::refused("invalid-price", "Invalid price").field("/price/amount", detail)
            }
            Self::CurrencyMismatch => {
                Problem::refused("currency-mismatch", "Wrong currency").field("/price/currency", detail)
            }
            Self::TooManyVariants { max } => Problem::refused("too-many-variants", "Too many variants")
                .detail(detail)
                .with("max", max),
            Self::InvalidDetail { field } => {
                Problem::refused("invalid-input", "Invalid input").field(format!("/{field}"), detail)
            }
        }
    }
}
