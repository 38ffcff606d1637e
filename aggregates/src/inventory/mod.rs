//! One SKU's stock: the last unit is promised once.

mod aggregate;
mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use commands::InventoryCommand;
pub use error::InventoryError;
pub use state::StockItem;
