//! Events of a product of the catalogue.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::event_names;
use crate::money::Money;
use crate::values::{Code, Sku};

/// What shoppers read about a product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ProductDetails {
    pub title: String,
    pub description: String,
    /// The slug of the one category that lists the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub options: Vec<ProductOption>,
    /// URLs or paths, in the order to show them.
    #[serde(default)]
    pub images: Vec<String>,
}

/// A dimension that variants differ in, such as size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductOption {
    pub name: String,
    pub values: Vec<String>,
}

/// What can have happened to a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProductEvent {
    ProductCreated {
        #[serde(flatten)]
        details: ProductDetails,
    },
    /// All details as they are from now on.
    ProductDetailsChanged {
        #[serde(flatten)]
        details: ProductDetails,
    },
    VariantAdded {
        sku: Sku,
        /// Option name → value.
        option_values: BTreeMap<String, String>,
        price: Money,
        /// Whether stock is kept and reserved for it.
        tracked: bool,
    },
    VariantRemoved {
        sku: Sku,
    },
    PriceChanged {
        sku: Sku,
        price: Money,
    },
    ProductPublished {},
    ProductUnpublished {},
    ProductArchived {
        reason: Code,
    },
}

event_names!(ProductEvent, Product;
    ProductCreated = "1.0", ProductDetailsChanged = "1.0", VariantAdded = "1.0", VariantRemoved = "1.0",
    PriceChanged = "1.0", ProductPublished = "1.0", ProductUnpublished = "1.0", ProductArchived = "1.0");
