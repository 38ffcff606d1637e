//! All views, as the query side sees them.

use std::sync::Arc;

use event_bus::DeadLetters;
use event_schemas::{LogIdentity, Position, Sku};
use event_store::Log;
use sqlite_file::SqliteFile;
use tokio::time::Instant;

use crate::carts::Carts;
use crate::error::ViewError;
use crate::order_timeline::OrderTimeline;
use crate::orders::Orders;
use crate::payments::Payments;
use crate::product_detail::{Details, ProductDetail, join, tracked};
use crate::products::{ProductView, Products};
use crate::projector::subscriber;
use crate::reader::{ViewProgress, ViewReader};
use crate::sales::{Sales, SalesBy, SalesFilter, SalesReport, Summing};
use crate::served::Served;
use crate::stock::Stock;
use crate::store::{SqliteViewStore, ViewSchema};
use crate::verify::{Verification, VerifyError, verify};
use crate::view::{DocId, View};

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
    details: Details,
    log: LogIdentity,
    file: SqliteFile,
    store: SqliteViewStore,
}

/// The names of all views.
pub const VIEW_NAMES: [&str; 7] = [
    Products::NAME,
    Stock::NAME,
    Carts::NAME,
    Orders::NAME,
    OrderTimeline::NAME,
    Payments::NAME,
    Sales::NAME,
];

impl Views {
    /// Opens the read models of the log `log` in `file`. A view that is new, has another version, or was folded from
    /// another log or epoch begins anew, empty, in a new generation.
    pub async fn open(file: &SqliteFile, log: LogIdentity) -> Result<Self, ViewError> {
        let store = SqliteViewStore::open(file)?;
        let inner = Inner {
            products: open(&store, log).await?,
            stock: open(&store, log).await?,
            carts: open(&store, log).await?,
            orders: open(&store, log).await?,
            order_timeline: open(&store, log).await?,
            payments: open(&store, log).await?,
            sales: open(&store, log).await?,
            details: Details::new(),
            log,
            file: file.clone(),
            store,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
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
        let Some(product) = self.inner.products.get(id).await? else {
            return Ok(None);
        };
        let skus: Vec<DocId> = tracked(&product.doc).map(DocId::from).collect();
        let stock = self.inner.stock.get_many(&skus).await?;
        self.inner
            .details
            .of(&product, &stock, self.inner.stock.generation())
            .map(Some)
    }

    /// The product whose variant `sku` is, if any.
    pub async fn product_of_sku(&self, sku: &Sku) -> Result<Option<Arc<Served<ProductView>>>, ViewError> {
        let Some(stock) = self.inner.stock.get(&sku.into()).await? else {
            return Ok(None);
        };
        let Some(product_id) = stock.doc.product_id else {
            return Ok(None);
        };
        let product = self.inner.products.get(&product_id.into()).await?;
        // The SKU is assigned before the variant is added, and stays assigned when it is removed.
        Ok(product.filter(|product| product.doc.variants.iter().any(|variant| variant.sku == *sku)))
    }

    /// The products with the availability of their variants, in one read of the stock.
    pub async fn with_availability(
        &self,
        products: &[Arc<Served<ProductView>>],
    ) -> Result<Vec<ProductView>, ViewError> {
        let skus: Vec<DocId> = products
            .iter()
            .flat_map(|product| tracked(&product.doc))
            .map(DocId::from)
            .collect();
        let mut stock = self.inner.stock.get_many(&skus).await?.into_iter();
        let joined = products.iter().map(|product| {
            let count = tracked(&product.doc).count();
            join(&product.doc, &stock.by_ref().take(count).collect::<Vec<_>>())
        });
        Ok(joined.collect())
    }

    /// Sums the sales that `filter` picks; a span longer than [`MAX_REPORT_DAYS`] ends early.
    pub async fn sales_report(&self, filter: &SalesFilter, by: SalesBy) -> Result<SalesReport, ViewError> {
        let mut sum = Summing::new(by);
        let mut after = None;
        loop {
            let page = self.inner.sales.find(&filter.page(after)).await?;
            page.items.iter().for_each(|sale| sum.add(&sale.doc));
            after = page.next;
            if after.is_none() {
                return Ok(sum.finish());
            }
        }
    }

    /// How far each view has come.
    pub fn progress(&self) -> Vec<ViewProgress> {
        let inner = &self.inner;
        vec![
            inner.products.progress(),
            inner.stock.progress(),
            inner.carts.progress(),
            inner.orders.progress(),
            inner.order_timeline.progress(),
            inner.payments.progress(),
            inner.sales.progress(),
        ]
    }

    /// Waits until every view has everything up to `position`; false if time ran out first.
    pub async fn reach(&self, position: Position, deadline: Instant) -> bool {
        let inner = &self.inner;
        let reached = tokio::join!(
            inner.products.reach_position(position, deadline),
            inner.stock.reach_position(position, deadline),
            inner.carts.reach_position(position, deadline),
            inner.orders.reach_position(position, deadline),
            inner.order_timeline.reach_position(position, deadline),
            inner.payments.reach_position(position, deadline),
            inner.sales.reach_position(position, deadline),
        );
        let (products, stock, carts, orders, timeline, payments, sales) = reached;
        [products, stock, carts, orders, timeline, payments, sales]
            .iter()
            .all(Result::is_ok)
    }

    /// Folds the log in memory and compares with what the view `name` has stored, while commands may keep coming.
    pub async fn verify(&self, log: &Log, name: &str) -> Result<Verification, VerifyError> {
        let progress = self.progress().into_iter().find(|progress| progress.view == name);
        let generation = progress
            .ok_or_else(|| VerifyError::UnknownView(name.to_owned()))?
            .generation;
        let letters = DeadLetters::open(&self.inner.file, &subscriber(name, generation))
            .await
            .map_err(ViewError::from)?;
        let (inner, letters) = (&self.inner, &letters);
        match name {
            Products::NAME => verify(&inner.products, log, letters).await,
            Stock::NAME => verify(&inner.stock, log, letters).await,
            Carts::NAME => verify(&inner.carts, log, letters).await,
            Orders::NAME => verify(&inner.orders, log, letters).await,
            OrderTimeline::NAME => verify(&inner.order_timeline, log, letters).await,
            Payments::NAME => verify(&inner.payments, log, letters).await,
            Sales::NAME => verify(&inner.sales, log, letters).await,
            other => Err(VerifyError::UnknownView(other.to_owned())),
        }
    }

    /// The log that the views are folded from.
    pub fn log(&self) -> LogIdentity {
        self.inner.log
    }

    pub(crate) fn file(&self) -> &SqliteFile {
        &self.inner.file
    }

    pub(crate) fn store(&self) -> &SqliteViewStore {
        &self.inner.store
    }
}

async fn open<V: View>(store: &SqliteViewStore, log: LogIdentity) -> Result<ViewReader<V>, ViewError> {
    let (table, position) = store.serving(ViewSchema::of::<V>(), log).await?;
    Ok(ViewReader::new(store.clone(), table, position))
}
