//! One SKU's stock: `available = on_hand − Σ reserved + backorder_limit`, and never below 0.
//!
//! | command | accepted when | event | a no-op when |
//! |---|---|---|---|
//! | `AssignSku` | no product has the SKU | `SkuAssigned` | this product has it |
//! | `Receive` | assigned | `StockReceived` | |
//! | `Adjust` | assigned; not below 0, not below what is promised | `StockAdjusted` | |
//! | `Reserve` | enough is available | `StockReserved` | the order holds that many |
//! | | too little is available | `ReservationRejected` | |
//! | `Release` | the order holds some | `ReservationReleased` (all of it) | it holds none |
//! | `Commit` | the order holds that many and they are on hand | `ReservationCommitted` | |
//! | `Return` | as many have left | `StockReturned` | |
//! | `SetBackorderLimit` | assigned; not below what is promised | `BackorderLimitSet` | it is that already |
//!
//! # What is guaranteed about repeats
//!
//! An order holds at most one reservation of a SKU. An item remembers the orders that hold some, and only them: it would
//! otherwise grow with every order ever, and a flash sale's rejections with it. So a `Reserve` that comes again *after*
//! a rejection, a release or a commit is decided like a new one. Two things keep that harmless:
//!
//! - The policy sends `Reserve` under an id derived from `OrderPlaced`; the log answers a known id with its first receipt
//!   and this module is never asked. A `Reserve` of a rejected or released order cannot come again by redelivery.
//! - Should one come late (its order was cancelled before it ran), `StockReserved` makes the policy record it on the order,
//!   the order refuses because it is cancelled, and that refusal releases the reservation.

mod commands;
mod decide;
mod error;
pub mod invariants;
mod state;

pub use commands::InventoryCommand;
pub use error::InventoryError;
pub use state::StockItem;

aggregate!(
    StockItem,
    Inventory,
    InventoryCommand,
    event_schemas::InventoryEvent,
    InventoryError
);
