//! The executors of all aggregates of one log.

use aggregates::cart::Cart;
use aggregates::inventory::StockItem;
use aggregates::order::Order;
use aggregates::payment::Payment;
use aggregates::product::Product;

use crate::{Executor, ExecutorOptions, Log};

/// One executor per type of aggregate: whoever gives commands gets this. Cheap to clone.
#[derive(Clone)]
pub struct Executors {
    pub products: Executor<Product>,
    pub inventory: Executor<StockItem>,
    pub carts: Executor<Cart>,
    pub orders: Executor<Order>,
    pub payments: Executor<Payment>,
}

impl Executors {
    /// Starts them on the current Tokio runtime, each with `options`; they end with the last clone.
    pub fn start(log: &Log, options: &ExecutorOptions) -> Self {
        Self {
            products: Executor::start(log, options),
            inventory: Executor::start(log, options),
            carts: Executor::start(log, options),
            orders: Executor::start(log, options),
            payments: Executor::start(log, options),
        }
    }
}
