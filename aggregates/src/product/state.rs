use std::collections::BTreeMap;

use event_schemas::{Money, ProductDetails, ProductEvent, Sku};
use serde::{Deserialize, Serialize};

/// Where a product is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProductStatus {
    /// Not created yet.
    #[default]
    Absent,
    Draft,
    Published,
    Archived,
}

/// One thing of a product that can be bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Option name → value.
    pub option_values: BTreeMap<String, String>,
    pub price: Money,
    /// Whether stock is kept and reserved for it.
    pub tracked: bool,
}

/// A product of the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    pub(super) status: ProductStatus,
    pub(super) details: ProductDetails,
    pub(super) variants: BTreeMap<Sku, Variant>,
}

impl Product {
    /// Where it is in its life.
    pub const fn status(&self) -> ProductStatus {
        self.status
    }

    /// What shoppers read about it.
    pub const fn details(&self) -> &ProductDetails {
        &self.details
    }

    /// What can be bought, by SKU.
    pub const fn variants(&self) -> &BTreeMap<Sku, Variant> {
        &self.variants
    }
}

pub(super) fn evolve(product: &mut Product, event: &ProductEvent) {
    match event {
        ProductEvent::ProductCreated { details } => {
            product.status = ProductStatus::Draft;
            product.details = details.clone();
        }
        ProductEvent::ProductDetailsChanged { details } => product.details = details.clone(),
        ProductEvent::VariantAdded {
            sku,
            option_values,
            price,
            tracked,
        } => {
            let variant = Variant {
                option_values: option_values.clone(),
                price: *price,
                tracked: *tracked,
            };
            product.variants.insert(sku.clone(), variant);
        }
        ProductEvent::VariantRemoved { sku } => {
            product.variants.remove(sku);
        }
        ProductEvent::PriceChanged { sku, price } => {
            if let Some(variant) = product.variants.get_mut(sku) {
                variant.price = *price;
            }
        }
        ProductEvent::ProductPublished {} => product.status = ProductStatus::Published,
        ProductEvent::ProductUnpublished {} => product.status = ProductStatus::Draft,
        ProductEvent::ProductArchived { .. } => product.status = ProductStatus::Archived,
    }
}
