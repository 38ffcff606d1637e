//! All views, as the query side sees them.

use std::sync::Arc;
use std::time::Duration;

use database::Database;
#[cfg(feature = "cluster")]
use event_bus::Checkpoint;
use event_bus::{DeadLetters, Partitioning};
use event_schemas::{LogIdentity, Position, Sku};
use event_store::Log;
use sqlite_file::SqliteFile;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cache::CacheState;
#[cfg(feature = "cluster")]
use crate::cache::{Redis, RedisCache};
use crate::carts::Carts;
use crate::changes::Changes;
use crate::error::ViewError;
use crate::order_timeline::OrderTimeline;
use crate::orders::Orders;
use crate::payments::Payments;
use crate::product_detail::{Details, ProductDetail, join, tracked};
use crate::products::{ProductView, Products};
use crate::projector::subscriber;
use crate::reader::{Generation, ViewProgress, ViewReader};
use crate::sales::{Sales, SalesBy, SalesFilter, SalesReport, Summing};
use crate::served::Served;
use crate::stock::Stock;
use crate::store::{GenerationRow, SqliteViewStore, Table, ViewSchema, ViewStore, choose};
#[cfg(feature = "cluster")]
use crate::store::{Mongo, MongoViewStore};
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
    /// Where the dead letters are.
    database: Database,
    opening: Opening,
    /// Why this process has to begin again.
    gone: watch::Sender<Option<String>>,
}

/// What it takes to open a generation.
#[derive(Debug)]
struct Opening {
    store: ViewStore,
    cache: Caching,
    partitioning: Partitioning,
    log: LogIdentity,
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

/// Between two looks at which generations serve.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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

/// Does the same with the reader of each view; an array of what comes of it, in the order of [`VIEW_NAMES`].
macro_rules! each_view {
    ($views:expr, |$reader:ident| $body:expr) => {
        [
            {
                let $reader = $views.products();
                $body
            },
            {
                let $reader = $views.stock();
                $body
            },
            {
                let $reader = $views.carts();
                $body
            },
            {
                let $reader = $views.orders();
                $body
            },
            {
                let $reader = $views.order_timeline();
                $body
            },
            {
                let $reader = $views.payments();
                $body
            },
            {
                let $reader = $views.sales();
                $body
            },
        ]
    };
}

/// Does something with the reader of the view `$name`; none if there is no such view.
macro_rules! with_view {
    ($views:expr, $name:expr, |$reader:ident| $body:expr) => {
        match $name {
            <$crate::products::Products as $crate::view::View>::NAME => {
                let $reader = $views.products();
                Some($body)
            }
            <$crate::stock::Stock as $crate::view::View>::NAME => {
                let $reader = $views.stock();
                Some($body)
            }
            <$crate::carts::Carts as $crate::view::View>::NAME => {
                let $reader = $views.carts();
                Some($body)
            }
            <$crate::orders::Orders as $crate::view::View>::NAME => {
                let $reader = $views.orders();
                Some($body)
            }
            <$crate::order_timeline::OrderTimeline as $crate::view::View>::NAME => {
                let $reader = $views.order_timeline();
                Some($body)
            }
            <$crate::payments::Payments as $crate::view::View>::NAME => {
                let $reader = $views.payments();
                Some($body)
            }
            <$crate::sales::Sales as $crate::view::View>::NAME => {
                let $reader = $views.sales();
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use with_view;

/// What the stores have to know of each view.
pub(crate) const SCHEMAS: [ViewSchema; VIEW_NAMES.len()] = [
    ViewSchema::of::<Products>(),
    ViewSchema::of::<Stock>(),
    ViewSchema::of::<Carts>(),
    ViewSchema::of::<Orders>(),
    ViewSchema::of::<OrderTimeline>(),
    ViewSchema::of::<Payments>(),
    ViewSchema::of::<Sales>(),
];

/// What the stores have to know of the view `name`.
pub(crate) fn schema_of(name: &str) -> Option<ViewSchema> {
    SCHEMAS.into_iter().find(|schema| schema.name == name)
}

impl Views {
    /// Opens the read models of the log `log` in `file`: the embedded profile. A view that is new, or was folded from
    /// another log or epoch, begins anew, empty. One that another version of it folded is read as it is until it has been
    /// folded again: see [`Views::outdated`].
    pub async fn open_sqlite(file: &SqliteFile, log: LogIdentity) -> Result<Self, ViewError> {
        let store = ViewStore::Sqlite(SqliteViewStore::open(file)?);
        Self::open(store, Caching::InProcess, file.into(), Partitioning::Log, log).await
    }

    /// Opens the read models of the log `log` in a cluster, to read them or to run a projector on them; any number of
    /// processes may. As [`Views::open_sqlite`]; generations of other logs stay.
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
        let opening = Opening {
            store,
            cache,
            partitioning,
            log,
        };
        let inner = Inner {
            products: opening.reader().await?,
            stock: opening.reader().await?,
            carts: opening.reader().await?,
            orders: opening.reader().await?,
            order_timeline: opening.reader().await?,
            payments: opening.reader().await?,
            sales: opening.reader().await?,
            details: Details::new(),
            database,
            opening,
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
        self.inner.details.of(&product, &stock).map(Some)
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
        Ok(each_view!(self, |reader| reader.progress().await?).into())
    }

    /// How far each view has come, as far as this process knows: what its own projector has done.
    pub fn known_progress(&self) -> Vec<ViewProgress> {
        each_view!(self, |reader| reader.known_progress()).into()
    }

    /// The views whose documents were folded by another version of them, and so are read as they were then.
    pub fn outdated(&self) -> Vec<&'static str> {
        let names = each_view!(self, |reader| {
            let table = &reader.current().table;
            table.outdated.then_some(table.schema.name)
        });
        names.into_iter().flatten().collect()
    }

    /// Whether generation `number` of the view `name` is the one that is read.
    pub(crate) fn is_read(&self, name: &str, number: u32) -> bool {
        with_view!(self, name, |reader| reader.generation() == number).unwrap_or_default()
    }

    /// All generations of all views.
    pub(crate) async fn rows(&self) -> Result<Vec<GenerationRow>, ViewError> {
        self.store().generations().await
    }

    /// How far generation `number` of the view `name` has come, as stored: where a projector goes on.
    #[cfg(feature = "cluster")]
    pub(crate) async fn stored_progress(
        &self,
        name: &str,
        number: u32,
    ) -> Result<Option<Checkpoint>, ViewError> {
        let rows = self.rows().await?;
        let row = rows
            .into_iter()
            .find(|row| row.view == name && row.generation == number && row.reached.log == self.log());
        match (row, schema_of(name)) {
            (Some(row), _) => Ok(Some(row.reached)),
            (None, Some(schema)) => Err(ViewError::Gone {
                view: schema.name,
                generation: number,
            }),
            (None, None) => Ok(None),
        }
    }

    fn tables(&self) -> [Arc<Table>; VIEW_NAMES.len()] {
        each_view!(self, |reader| Arc::clone(&reader.current().table))
    }

    /// Fails if the documents that are read were dropped since the views were opened; then [`Views::gone`] says so.
    pub(crate) async fn still_there(&self) -> Result<(), ViewError> {
        let there = self.store().still_there(&self.tables()).await;
        if let Err(error) = &there
            && error.is_gone()
        {
            self.inner.gone.send_replace(Some(error.to_string()));
        }
        there
    }

    /// Resolves, with the reason, once the documents turn out to have been dropped under this process. It has to end:
    /// opened again, the views are folded from the log anew. Found out by projectors and by [`Views::check`].
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
        match &self.inner.opening.cache {
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
        if let Caching::Redis(redis) = &self.inner.opening.cache {
            let (store, cache) = tokio::join!(self.still_there(), redis.ping());
            store?;
            return Ok(cache);
        }
        Ok(CacheState::Up)
    }

    /// Waits until every view has everything up to `position`; false if time ran out first. For the embedded profile: a
    /// partition in which nothing happens says nothing of a position.
    pub async fn reach(&self, position: Position, deadline: Instant) -> bool {
        each_view!(self, |reader| reader.reach_position(position, deadline).await)
            .iter()
            .all(Result::is_ok)
    }

    /// Folds the log in memory and compares with what the view `name` has stored, while commands may keep coming.
    pub async fn verify(&self, log: &Log, name: &str) -> Result<Verification, VerifyError> {
        with_view!(self, name, |reader| {
            let generation = reader.current();
            let letters = DeadLetters::open(self.database(), &subscriber(name, generation.number()))
                .await
                .map_err(ViewError::from)?;
            verify(&generation, log, &letters).await
        })
        .unwrap_or_else(|| Err(VerifyError::UnknownView(name.to_owned())))
    }

    /// Makes this process read whichever generation serves, as it changes, until `cancel`. Ends by itself never.
    pub async fn follow_generations(&self, log: &Log, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.adopt(log).await {
                tracing::debug!(%error, "no look at the generations");
            }
        }
    }

    /// Reads what serves now, if that has changed and nothing that was read here would be missing from it.
    pub async fn adopt(&self, log: &Log) -> Result<(), ViewError> {
        let rows = self.rows().await?;
        let _ = each_view!(self, |reader| self
            .inner
            .opening
            .adopt(reader, &rows, log)
            .await?);
        Ok(())
    }

    /// The log that the views are folded from.
    pub fn log(&self) -> LogIdentity {
        self.inner.opening.log
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn store(&self) -> &ViewStore {
        &self.inner.opening.store
    }

    pub(crate) fn partitioning(&self) -> Partitioning {
        self.inner.opening.partitioning
    }

    /// The generation that `row` is of, shared with whoever else in this process reads or feeds it.
    pub(crate) fn generation<V: View>(
        &self,
        reader: &ViewReader<V>,
        row: &GenerationRow,
    ) -> Arc<Generation<V>> {
        self.inner.opening.generation(reader, row)
    }
}

impl Opening {
    async fn reader<V: View>(&self) -> Result<ViewReader<V>, ViewError> {
        let row = self.store.serving(ViewSchema::of::<V>(), self.log).await?;
        Ok(ViewReader::new(|changes| self.open(&row, changes)))
    }

    fn generation<V: View>(&self, reader: &ViewReader<V>, row: &GenerationRow) -> Arc<Generation<V>> {
        reader.generation_of(row.generation, |changes| self.open(row, changes))
    }

    fn open<V: View>(&self, row: &GenerationRow, changes: Changes) -> Generation<V> {
        let table = Arc::new(Table::of(ViewSchema::of::<V>(), row));
        let (store, reached) = (self.store.clone(), row.reached.clone());
        match &self.cache {
            Caching::InProcess => Generation::in_process(store, table, reached, changes),
            #[cfg(feature = "cluster")]
            Caching::Redis(redis) => {
                let redis = RedisCache::new(redis.clone(), &table);
                Generation::shared(store, table, reached, changes, redis, self.partitioning)
            }
        }
    }

    async fn adopt<V: View>(
        &self,
        reader: &ViewReader<V>,
        rows: &[GenerationRow],
        log: &Log,
    ) -> Result<(), ViewError> {
        let there: Vec<u32> = rows
            .iter()
            .filter(|row| row.view == V::NAME)
            .map(|row| row.generation)
            .collect();
        reader.forget_others(&there);
        let Some(row) = choose(rows, &ViewSchema::of::<V>(), self.log) else {
            return Ok(());
        };
        if row.generation == reader.generation() {
            return Ok(());
        }
        let next = self.generation(reader, row);
        if reader.switch(log, &next).await? {
            tracing::info!(view = V::NAME, generation = row.generation, "is read now");
        }
        Ok(())
    }
}
