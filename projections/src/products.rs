//! `products`: the catalogue as shoppers read it. Stock is another view's; it is joined by SKU when read.

use std::collections::BTreeMap;

use event_schemas::{
    AggregateType, Code, Event, Money, ProductDetails, ProductEvent, ProductId, ProductOption, RecordedEvent,
    Sku, Timestamp, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::Document;
use crate::query::{After, Direction, Key, KeyValue, Query};
use crate::schema::{MoneySchema, OptionSchema};
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by product id.
#[derive(Debug)]
pub struct Products;

/// What a product's events add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductPart {
    details: ProductDetails,
    variants: Vec<VariantView>,
    status: ProductStatus,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// Where a product is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProductStatus {
    /// Staff see it, shoppers don't.
    Draft,
    Published,
    /// For good.
    Archived,
}

impl ProductStatus {
    /// The name in filters and in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Archived => "archived",
        }
    }
}

/// One thing of a product that can be bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Variant)]
pub struct VariantView {
    #[schema(value_type = String)]
    pub sku: Sku,
    /// Option name → value.
    pub option_values: BTreeMap<String, String>,
    #[schema(value_type = MoneySchema)]
    pub price: Money,
    /// Whether stock is kept for it; what isn't tracked is always available.
    pub tracked: bool,
    /// Units that can be bought now. Joined when read: absent in a stored document, and for what isn't tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
}

/// A product as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    #[schema(value_type = String, format = Uuid)]
    pub product_id: ProductId,
    #[schema(value_type = u64)]
    pub version: Version,
    pub status: ProductStatus,
    pub title: String,
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    pub tags: Vec<String>,
    #[schema(value_type = Vec<OptionSchema>)]
    pub options: Vec<ProductOption>,
    pub images: Vec<String>,
    /// In the order in which they were added.
    pub variants: Vec<VariantView>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

const STATUS: &str = "status";
const CATEGORY: &str = "category";
/// The beginning of the title, for order.
const TITLE: &str = "title";
/// The whole title, for words.
const SEARCH: &str = "search";
const CREATED_AT: &str = "created_at";
const PRICE: &str = "price";

/// So much of a title decides its place in a list: cursors carry it.
const TITLE_ORDER_CHARS: usize = 64;

impl View for Products {
    const NAME: &'static str = "products";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Product];
    const KEYS: &'static [Key] = &[
        Key::text(STATUS),
        Key::text(CATEGORY),
        Key::text(TITLE),
        Key::text(SEARCH),
        Key::integer(CREATED_AT),
        Key::integer(PRICE),
    ];
    const INDEXES: &'static [&'static [&'static str]] = &[
        &[STATUS, TITLE],
        &[STATUS, CREATED_AT],
        &[STATUS, PRICE],
        &[STATUS, CATEGORY, TITLE],
        &[STATUS, CATEGORY, CREATED_AT],
        &[STATUS, CATEGORY, PRICE],
    ];

    type Part = ProductPart;
    type Doc = ProductView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        matches!(event.event, Event::Product(_)).then(|| event.stream.aggregate_id.clone())
    }

    fn apply(part: Option<ProductPart>, recorded: &RecordedEvent) -> Result<ProductPart, FoldError> {
        let event_type = recorded.event.name();
        let Event::Product(event) = &recorded.event else {
            return Err(FoldError::Misrouted {
                event_type,
                view: Self::NAME,
            });
        };
        let Some(mut part) = part else {
            let ProductEvent::ProductCreated { details } = event else {
                return Err(FoldError::NotBegun { event_type });
            };
            return Ok(ProductPart {
                details: details.clone(),
                variants: Vec::new(),
                status: ProductStatus::Draft,
                created_at: recorded.recorded_at,
                updated_at: recorded.recorded_at,
            });
        };
        part.updated_at = recorded.recorded_at;
        match event {
            ProductEvent::ProductCreated { details } | ProductEvent::ProductDetailsChanged { details } => {
                part.details = details.clone();
            }
            ProductEvent::VariantAdded {
                sku,
                option_values,
                price,
                tracked,
            } => {
                part.variants.retain(|variant| variant.sku != *sku);
                part.variants.push(VariantView {
                    sku: sku.clone(),
                    option_values: option_values.clone(),
                    price: *price,
                    tracked: *tracked,
                    available: None,
                });
            }
            ProductEvent::VariantRemoved { sku } => part.variants.retain(|variant| variant.sku != *sku),
            ProductEvent::PriceChanged { sku, price } => {
                let variant = part.variants.iter_mut().find(|variant| variant.sku == *sku);
                variant
                    .ok_or_else(|| FoldError::Unknown {
                        event_type,
                        what: sku.to_string(),
                    })?
                    .price = *price;
            }
            ProductEvent::ProductPublished {} => part.status = ProductStatus::Published,
            ProductEvent::ProductUnpublished {} => part.status = ProductStatus::Draft,
            ProductEvent::ProductArchived { reason } => {
                let _: &Code = reason;
                part.status = ProductStatus::Archived;
            }
        }
        Ok(part)
    }

    fn combine(id: &DocId, document: &Document<ProductPart>) -> Option<ProductView> {
        let source = document.source(AggregateType::Product)?;
        let ProductPart {
            details,
            variants,
            status,
            created_at,
            updated_at,
        } = source.part.clone();
        Some(ProductView {
            product_id: id.as_str().parse().ok()?,
            version: source.version,
            status,
            title: details.title,
            description: details.description,
            category: details.category,
            tags: details.tags,
            options: details.options,
            images: details.images,
            variants,
            created_at,
            updated_at,
        })
    }

    fn keys(document: &Document<ProductPart>) -> Option<Vec<KeyValue>> {
        let part = &document.source(AggregateType::Product)?.part;
        let title = part.details.title.to_lowercase();
        let cheapest = part.variants.iter().map(|variant| variant.price.amount()).min();
        Some(vec![
            part.status.as_str().into(),
            part.details
                .category
                .as_deref()
                .map_or(KeyValue::Absent, Into::into),
            title.chars().take(TITLE_ORDER_CHARS).collect::<String>().into(),
            title.into(),
            part.created_at.as_microsecond().into(),
            // A draft without variants has no price yet; it comes first, where staff will see it.
            cheapest.unwrap_or(-1).into(),
        ])
    }
}

/// How a list of products is ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProductSort {
    #[default]
    Title,
    Newest,
    /// By the cheapest variant.
    PriceAscending,
    PriceDescending,
}

/// Which products to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductFilter {
    /// None: whatever their status (staff).
    pub status: Option<ProductStatus>,
    /// The slug of one category.
    pub category: Option<String>,
    /// Words of the title, in any order and case; parts of words match too.
    pub text: Option<String>,
    pub sort: ProductSort,
}

impl ProductFilter {
    /// The page of `limit` products after `after`.
    pub fn page(&self, after: Option<After>, limit: usize) -> Query {
        let (key, direction) = match self.sort {
            ProductSort::Title => (TITLE, Direction::Ascending),
            ProductSort::Newest => (CREATED_AT, Direction::Descending),
            ProductSort::PriceAscending => (PRICE, Direction::Ascending),
            ProductSort::PriceDescending => (PRICE, Direction::Descending),
        };
        let mut query = Query::new(limit).order_by(key, direction).after(after);
        if let Some(status) = &self.status {
            query = query.equals(STATUS, status.as_str());
        }
        if let Some(category) = &self.category {
            query = query.equals(CATEGORY, category.as_str());
        }
        if let Some(text) = &self.text {
            query = query.words(SEARCH, text);
        }
        query
    }
}
