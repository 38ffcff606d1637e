//! All views, as the query side sees them.

use std::sync::Arc;

use database::Database;
#[cfg(feature = "cluster")]
use event_bus::Checkpoint;
use event_bus::{DeadLetters, Partitioning};
use event_schemas::{LogIdentity, Position, Sku};
use event_store::Log;
use sqlite_file::SqliteFile;
#[cfg(feature = "cluster")]
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::CacheState;
#[cfg(feature = "cluster")]
use crate::cache::{Redis, RedisCache};
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
#[cfg(feature = "cluster")]
use crate::store::{Mongo, MongoViewStore, Table};
use crate::store::{SqliteViewStore, ViewSchema, ViewStore};
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
    /// Where the dead letters are.
    database: Database,
    store: ViewStore,
    cache: Caching,
    partitioning: Partitioning,
    /// Why this process has to begin again.
    #[cfg(feature = "cluster")]
    gone: watch::Sender<Option<String>>,
}

/// What documents are cached in.
#[derive(Debug, Clone)]
enum Caching {
    InProcess,
    #[cfg(feature = "cluster")]
    Redis(Redis),
}

/// Where the read models of a cluster are.
#[cfg(feature = "cluster")]
#[derive(Debug, Clone)]
pub struct ViewsCluster {
    /// The documents.
    pub mongo: Mongo,
    /// The cache in front of them.
    pub redis: Redis,
    /// The log's database, which keeps the dead letters.
    pub database: Database,
    /// How the stream is split: progress is kept for each part.
    pub partitioning: Partitioning,
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
    /// Opens the read models of the log `log` in `file`: the embedded profile. A view that is new, has another version, or
    /// was folded from another log or epoch begins anew, empty, in a new generation.
    pub async fn open_sqlite(file: &SqliteFile, log: LogIdentity) -> Result<Self, ViewError> {
        let store = ViewStore::Sqlite(SqliteViewStore::open(file)?);
        Self::open(store, Caching::InProcess, file.into(), Partitioning::Log, log).await
    }

    /// Opens the read models of the log `log` in a cluster, to read them or to run a projector on them; any number of
    /// processes may. As [`Views::open_sqlite`]; old generations stay, for processes that still run another version.
    #[cfg(feature = "cluster")]
    pub async fn open_cluster(cluster: ViewsCluster, log: LogIdentity) -> Result<Self, ViewError> {
        let store = ViewStore::Mongo(MongoViewStore::new(cluster.mongo));
        let cache = Caching::Redis(cluster.redis);
        Self::open(store, cache, cluster.database, cluster.partitioning, log).await
    }

    async fn open(
        store: ViewStore,
        cache: Caching,
        database: Database,
        partitioning: Partitioning,
        log: LogIdentity,
    ) -> Result<Self, ViewError> {
        let inner = Inner {
            products: reader(&store, &cache, partitioning, log).await?,
            stock: reader(&store, &cache, partitioning, log).await?,
            carts: reader(&store, &cache, partitioning, log).await?,
            orders: reader(&store, &cache, partitioning, log).await?,
            order_timeline: reader(&store, &cache, partitioning, log).await?,
            payments: reader(&store, &cache, partitioning, log).await?,
            sales: reader(&store, &cache, partitioning, log).await?,
            details: Details::new(),
            log,
            database,
            store,
            cache,
            partitioning,
            #[cfg(feature = "cluster")]
            gone: watch::Sender::new(None),
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

    /// How far each view has come. Asks the store where projectors may run in other processes.
    pub async fn progress(&self) -> Result<Vec<ViewProgress>, ViewError> {
        let inner = &self.inner;
        Ok(vec![
            inner.products.progress().await?,
            inner.stock.progress().await?,
            inner.carts.progress().await?,
            inner.orders.progress().await?,
            inner.order_timeline.progress().await?,
            inner.payments.progress().await?,
            inner.sales.progress().await?,
        ])
    }

    /// How far each view has come, as far as this process knows: what its own projector has done.
    pub fn known_progress(&self) -> Vec<ViewProgress> {
        let inner = &self.inner;
        vec![
            inner.products.known_progress(),
            inner.stock.known_progress(),
            inner.carts.known_progress(),
            inner.orders.known_progress(),
            inner.order_timeline.known_progress(),
            inner.payments.known_progress(),
            inner.sales.known_progress(),
        ]
    }

    /// How far the view `name` has come, as stored: where a projector goes on.
    #[cfg(feature = "cluster")]
    pub(crate) async fn stored_progress(&self, name: &str) -> Result<Option<Checkpoint>, ViewError> {
        let table = self.tables().into_iter().find(|table| table.schema.name == name);
        match table {
            Some(table) => Ok(Some(self.inner.store.reached(&table, self.inner.log).await?)),
            None => Ok(None),
        }
    }

    #[cfg(feature = "cluster")]
    fn tables(&self) -> [Arc<Table>; VIEW_NAMES.len()] {
        let inner = &self.inner;
        [
            Arc::clone(&inner.products.table),
            Arc::clone(&inner.stock.table),
            Arc::clone(&inner.carts.table),
            Arc::clone(&inner.orders.table),
            Arc::clone(&inner.order_timeline.table),
            Arc::clone(&inner.payments.table),
            Arc::clone(&inner.sales.table),
        ]
    }

    /// Fails if the documents were dropped since the views were opened; then [`Views::gone`] says so.
    #[cfg(feature = "cluster")]
    pub(crate) async fn still_there(&self) -> Result<(), ViewError> {
        let there = self.inner.store.still_there(&self.tables()).await;
        if let Err(error) = &there
            && error.is_gone()
        {
            self.inner.gone.send_replace(Some(error.to_string()));
        }
        there
    }

    /// Resolves, with the reason, once the documents turn out to have been dropped under this process. It has to end:
    /// opened again, the views are folded from the log anew. Found out by projectors and by [`Views::check`].
    #[cfg(feature = "cluster")]
    pub async fn gone(&self) -> String {
        let mut gone = self.inner.gone.subscribe();
        let reason = match gone.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            // The sender is ours.
            None => std::future::pending().await,
        }
    }

    /// Whether the cache can be used; if it cannot, reads are slower.
    pub fn cache_state(&self) -> CacheState {
        match &self.inner.cache {
            Caching::InProcess => CacheState::Up,
            #[cfg(feature = "cluster")]
            Caching::Redis(redis) => redis.state(),
        }
    }

    /// Asks the store, and the cache, whether they answer: for readiness. Only the store has to, and have the documents.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, reason = "only servers are waited for")
    )]
    pub async fn check(&self) -> Result<CacheState, ViewError> {
        #[cfg(feature = "cluster")]
        if let Caching::Redis(redis) = &self.inner.cache {
            let (store, cache) = tokio::join!(self.still_there(), redis.ping());
            store?;
            return Ok(cache);
        }
        Ok(CacheState::Up)
    }

    /// Waits until every view has everything up to `position`; false if time ran out first. For the embedded profile: a
    /// partition in which nothing happens says nothing of a position.
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
        let progress = self
            .known_progress()
            .into_iter()
            .find(|progress| progress.view == name);
        let generation = progress
            .ok_or_else(|| VerifyError::UnknownView(name.to_owned()))?
            .generation;
        let letters = DeadLetters::open(self.database(), &subscriber(name, generation))
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

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn store(&self) -> &ViewStore {
        &self.inner.store
    }

    pub(crate) fn partitioning(&self) -> Partitioning {
        self.inner.partitioning
    }
}

async fn reader<V: View>(
    store: &ViewStore,
    cache: &Caching,
    partitioning: Partitioning,
    log: LogIdentity,
) -> Result<ViewReader<V>, ViewError> {
    let (table, reached) = store.serving(ViewSchema::of::<V>(), log).await?;
    Ok(match cache {
        Caching::InProcess => {
            let _ = partitioning;
            ViewReader::in_process(store.clone(), table, reached)
        }
        #[cfg(feature = "cluster")]
        Caching::Redis(redis) => {
            let redis = RedisCache::new(redis.clone(), &table);
            ViewReader::shared(store.clone(), table, reached, redis, partitioning)
        }
    })
}
