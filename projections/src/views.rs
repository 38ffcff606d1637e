//! All views, as the query side sees them.

use std::sync::Arc;

use event_schemas::{LogIdentity, Position, Sku};
use sqlite_file::SqliteFile;

use crate::carts::Carts;
use crate::error::ViewError;
use crate::order_timeline::OrderTimeline;
use crate::orders::Orders;
use crate::payments::Payments;
use crate::products::{ProductView, Products};
use crate::reader::ViewReader;
use crate::sales::{Sales, SalesBy, SalesFilter, SalesReport};
use crate::served::Served;
use crate::stock::{Stock, StockView};
use crate::view::DocId;

/// The read models. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Views {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    products: ViewReader<Products>,
    stock: ViewReader<Stock>,
    carts: ViewReader<Carts>,
    orders: ViewReader<Orders>,
    order_timeline: ViewReader<OrderTimeline>,
    payments: ViewReader<Payments>,
    sales: ViewReader<Sales>,
}

/// How far one view has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewProgress {
    pub view: &'static str,
    pub generation: u32,
    pub position: Position,
}

/// A product with the stock of its variants.
#[derive(Debug)]
pub struct ProductDetail {
    /// With `available` filled in for tracked variants.
    pub product: ProductView,
    etag: String,
    json: bytes::Bytes,
}

impl Views {
    /// Opens the read models of the log `log` in `file`. A view that is new, has another version, or was folded from
    /// another log or epoch begins anew, empty, in a new generation.
    pub async fn open(file: &SqliteFile, log: LogIdentity) -> Result<Self, ViewError> {
        let _ = (file, log);
        todo!()
    }

    /// The catalogue.
    pub fn products(&self) -> &ViewReader<Products> {
        &self.inner.products
    }

    /// Stock per SKU.
    pub fn stock(&self) -> &ViewReader<Stock> {
        &self.inner.stock
    }

    /// Carts by cart id.
    pub fn carts(&self) -> &ViewReader<Carts> {
        &self.inner.carts
    }

    /// Orders.
    pub fn orders(&self) -> &ViewReader<Orders> {
        &self.inner.orders
    }

    /// What happened to each order.
    pub fn order_timeline(&self) -> &ViewReader<OrderTimeline> {
        &self.inner.order_timeline
    }

    /// Payments.
    pub fn payments(&self) -> &ViewReader<Payments> {
        &self.inner.payments
    }

    /// What reports are summed from.
    pub fn sales(&self) -> &ViewReader<Sales> {
        &self.inner.sales
    }

    /// A product with the availability of its variants, ready to serve; built again only when one of them changed.
    pub async fn product(&self, id: &DocId) -> Result<Option<Arc<ProductDetail>>, ViewError> {
        let _ = id;
        todo!()
    }

    /// The product whose variant `sku` is, if any.
    pub async fn product_of_sku(&self, sku: &Sku) -> Result<Option<Arc<Served<ProductView>>>, ViewError> {
        let _ = sku;
        todo!()
    }

    /// The products with the availability of their variants, in one read of the stock.
    pub async fn with_availability(
        &self,
        products: &[Arc<Served<ProductView>>],
    ) -> Result<Vec<ProductView>, ViewError> {
        let _ = products;
        todo!()
    }

    /// Sums the sales that `filter` picks.
    pub async fn sales_report(&self, filter: &SalesFilter, by: SalesBy) -> Result<SalesReport, ViewError> {
        let _ = (filter, by);
        todo!()
    }

    /// How far each view has come.
    pub fn progress(&self) -> Vec<ViewProgress> {
        todo!()
    }
}

impl ProductDetail {
    /// The entity tag, with its quotes: changes with the product and with the stock of each variant.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The product as JSON.
    pub fn json(&self) -> bytes::Bytes {
        self.json.clone()
    }
}

const _: fn(&StockView) = |_| ();
