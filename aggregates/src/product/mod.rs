//! A product of the catalogue and its variants.
//!
//! ```text
//! (absent) → Draft ⇄ Published
//!              └────────┴→ Archived
//! ```
//!
//! | command | Draft | Published | a no-op when |
//! |---|---|---|---|
//! | `ChangeDetails` | `ProductDetailsChanged` | same | nothing changes |
//! | `AddVariant` | `VariantAdded` | same | the variant is there and equal |
//! | `RemoveVariant` | `VariantRemoved` | same, but not the last one | |
//! | `ChangePrice` | `PriceChanged` | same | it is that already |
//! | `Publish` | `ProductPublished`, with a variant at least | | published |
//! | `Unpublish` | | `ProductUnpublished` | a draft |
//! | `Archive` | `ProductArchived` | same | archived |
//!
//! `Create` makes an absent product a draft (`ProductCreated`). An archived product never changes.
//!
//! That a SKU belongs to one product holds in [`inventory`](crate::inventory), where `SkuAssigned` precedes `VariantAdded`; a SKU
//! stays its product's after the variant is removed.

mod commands;
mod decide;
mod error;
pub mod invariants;
pub mod limits;
mod state;

pub use commands::ProductCommand;
pub use error::ProductError;
pub use state::{Product, ProductStatus, Variant};

aggregate!(
    Product,
    Product,
    ProductCommand,
    event_schemas::ProductEvent,
    ProductError
);
