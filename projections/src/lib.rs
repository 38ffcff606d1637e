//! What is shown: one pure fold per view, the projector that runs them, and the store and cache they are read from.
//!
//! * A view is a module: a [`View`] with its part, its document as it is read, and its filters.
//! * [`Views`] is the query side: typed reads, lists, waiting for what was just written, watching a document.
//! * The projector is the write side: it follows the stream, folds by document, and stores each document with a guard.
//! * Documents are in SQLite, cached in the process that projects them; or, with the feature `cluster`, in MongoDB, cached
//!   in Redis, projected and read by any number of processes.
//!
//! Read models are derived. Nothing here decides, and all of it can be folded again from the log.

mod cache;
pub mod carts;
mod changes;
mod coverage;
mod document;
mod error;
pub mod order_timeline;
pub mod orders;
pub mod payments;
mod product_detail;
pub mod products;
mod projector;
pub mod query;
mod reader;
mod rebuild;
pub mod sales;
mod schema;
mod served;
pub mod stock;
mod store;
#[cfg(all(test, feature = "cluster"))]
mod testing;
mod verify;
mod view;
mod views;

pub use cache::CacheState;
#[cfg(feature = "cluster")]
pub use cache::{Redis, RedisError, RedisOptions};
pub use changes::DocWatch;
pub use document::{Document, Source};
pub use error::{ViewError, WaitError};
pub use product_detail::ProductDetail;
pub use projector::{DeadLetterError, Projector, ProjectorSource, ProjectorState, ViewStatus};
pub use query::{After, MAX_PAGE, Query};
pub use reader::{Found, ViewProgress, ViewReader};
pub use rebuild::{
    Comparison, DocumentDifference, DropError, FieldDifference, GenerationStatus, RebuildError,
    RebuildOptions, RebuildPhase, RebuildProgress, Rebuilds, Rebuilt,
};
pub use served::{ConsistencyPoint, Served};
#[cfg(feature = "cluster")]
pub use store::{Mongo, MongoError, MongoOptions};
pub use verify::{Difference, Verification, VerifyError};
pub use view::{DocId, FoldError, View};
#[cfg(feature = "cluster")]
pub use views::ViewsCluster;
pub use views::{VIEW_NAMES, Views};
