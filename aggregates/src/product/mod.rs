//! A product of the catalogue and its variants.

mod aggregate;
mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use commands::ProductCommand;
pub use error::ProductError;
pub use state::{Product, ProductStatus, Variant};
