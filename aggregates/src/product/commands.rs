use std::collections::BTreeMap;

use event_schemas::{Code, Money, ProductDetails, Sku};

/// What can be asked of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProductCommand {
    Create {
        details: ProductDetails,
    },
    /// Sets all details.
    ChangeDetails {
        details: ProductDetails,
    },
    /// The SKU has been assigned to this product by its stock item before.
    AddVariant {
        sku: Sku,
        /// Option name → value.
        option_values: BTreeMap<String, String>,
        price: Money,
        /// Whether stock is kept and reserved for it.
        tracked: bool,
    },
    RemoveVariant {
        sku: Sku,
    },
    ChangePrice {
        sku: Sku,
        price: Money,
    },
    Publish,
    Unpublish,
    /// For good: an archived product never changes.
    Archive {
        reason: Code,
    },
}

impl ProductCommand {
    /// The command's name, such as `Publish`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "Create",
            Self::ChangeDetails { .. } => "ChangeDetails",
            Self::AddVariant { .. } => "AddVariant",
            Self::RemoveVariant { .. } => "RemoveVariant",
            Self::ChangePrice { .. } => "ChangePrice",
            Self::Publish => "Publish",
            Self::Unpublish => "Unpublish",
            Self::Archive { .. } => "Archive",
        }
    }
}
