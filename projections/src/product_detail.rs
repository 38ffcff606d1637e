//! Products joined with the stock of their variants, when read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ViewError;
use crate::products::{ProductView, Products};
use crate::served::Served;
use crate::stock::StockView;
use crate::view::{DocId, View};

/// Bytes of serialised products that are kept.
const CAPACITY_BYTES: u64 = 4 << 20;

/// A product with the stock of its variants.
#[derive(Debug)]
pub struct ProductDetail {
    /// With `available` filled in for tracked variants.
    pub product: ProductView,
    etag: String,
    json: Bytes,
}

impl ProductDetail {
    /// The entity tag, with its quotes: changes with the product and with the stock of each variant.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The product as JSON.
    pub fn json(&self) -> Bytes {
        self.json.clone()
    }
}

/// The details that were built last.
pub(crate) struct Details {
    entries: moka::sync::Cache<DocId, Arc<ProductDetail>>,
}

impl Details {
    pub(crate) fn new() -> Self {
        let weigher =
            |_: &DocId, detail: &Arc<ProductDetail>| u32::try_from(detail.json.len()).unwrap_or(u32::MAX);
        Self {
            entries: moka::sync::Cache::builder()
                .max_capacity(CAPACITY_BYTES)
                .weigher(weigher)
                .build(),
        }
    }

    /// The detail of `product` with the stock of its tracked variants, in their order.
    pub(crate) fn of(
        &self,
        product: &Served<ProductView>,
        stock: &[Option<Arc<Served<StockView>>>],
    ) -> Result<Arc<ProductDetail>, ViewError> {
        // Which SKUs they are changes with the product only, and each revision only grows: their sum tells them apart.
        let stock_generation = stock.iter().flatten().map(|stock| stock.generation).max();
        let stock_generation = stock_generation.unwrap_or_default();
        let stock_revs: u64 = stock.iter().flatten().map(|stock| stock.rev).sum();
        let etag = format!(
            "\"{}.{}.{stock_generation}.{stock_revs}\"",
            product.generation, product.rev
        );
        if let Some(detail) = self.entries.get(&product.id)
            && detail.etag == etag
        {
            return Ok(detail);
        }
        let joined = join(&product.doc, stock);
        let json = serde_json::to_vec(&joined).map_err(|error| ViewError::Corrupt {
            view: Products::NAME,
            id: product.id.to_string(),
            message: error.to_string(),
        })?;
        let detail = Arc::new(ProductDetail {
            product: joined,
            etag,
            json: json.into(),
        });
        self.entries.insert(product.id.clone(), Arc::clone(&detail));
        Ok(detail)
    }
}

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Details").finish_non_exhaustive()
    }
}

/// The SKUs that stock is kept for, in the order of the variants.
pub(crate) fn tracked(product: &ProductView) -> impl Iterator<Item = &str> {
    product
        .variants
        .iter()
        .filter(|variant| variant.tracked)
        .map(|variant| variant.sku.as_str())
}

/// The product with its tracked variants' availability; `stock` is in the order of [`tracked`].
pub(crate) fn join(product: &ProductView, stock: &[Option<Arc<Served<StockView>>>]) -> ProductView {
    let mut product = product.clone();
    let tracked = product.variants.iter_mut().filter(|variant| variant.tracked);
    for (variant, stock) in tracked.zip(stock) {
        // What has never been received is not there.
        variant.available = Some(stock.as_ref().map_or(0, |stock| stock.doc.available));
    }
    product
}
