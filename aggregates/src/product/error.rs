use event_schemas::Sku;

/// Why a product refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    #[error("there is no such product")]
    NotFound,
    #[error("the product exists already")]
    AlreadyExists,
    #[error("the product is archived")]
    Archived,
    #[error("the product has no variant {sku}")]
    UnknownVariant { sku: Sku },
    #[error("the product has the variant {sku} already")]
    DuplicateVariant { sku: Sku },
    /// Published, or being published, without anything to sell.
    #[error("a published product has at least one variant")]
    NoVariants,
    #[error("a price is 0 or more")]
    NegativePrice,
    #[error("all prices of a product are in one currency")]
    CurrencyMismatch,
    #[error("a product has at most {max} variants")]
    TooManyVariants { max: usize },
    /// `field` names the detail, such as `title`.
    #[error("{field} is empty, too long or too many")]
    InvalidDetail { field: &'static str },
}
