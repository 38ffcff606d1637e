//! What was acknowledged, kept until it is looked for in the log.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use event_schemas::{AggregateId, Position, Version};
use event_store::{Log, ReadError, Receipt};
use http_conventions::ConsistencyToken;

/// Receipts that are kept, 16 bytes each; those beyond are only counted.
const MOST: usize = 1 << 24;
/// Rows of the log that are read together.
const PAGE: usize = 5_000;

/// Acknowledged commands. Cheap to clone; clones share what they keep.
#[derive(Clone, Default)]
pub struct Receipts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The position of each command's last event, and a hash of which event that is.
    kept: Mutex<Vec<(Position, u64)>>,
    hasher: RandomState,
}

impl Receipts {
    /// Keeps a receipt of this process.
    pub fn keep(&self, receipt: &Receipt) {
        let stream = &receipt.stream;
        let hash = self.hash(
            stream.aggregate_type.as_str(),
            &stream.aggregate_id,
            receipt.version,
        );
        self.push(receipt.position, hash);
    }

    /// Keeps what a receipt over HTTP says; false if that is no consistency token.
    pub fn keep_token(&self, token: &str) -> bool {
        let Ok(token) = token.parse::<ConsistencyToken>() else {
            return false;
        };
        let stream = &token.stream;
        let hash = self.hash(
            stream.aggregate_type.as_str(),
            &stream.aggregate_id,
            token.version,
        );
        self.push(token.position, hash);
        true
    }

    fn push(&self, position: Position, hash: u64) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST {
            kept.push((position, hash));
        }
    }

    fn hash(&self, aggregate_type: &str, id: &AggregateId, version: Version) -> u64 {
        self.0.hasher.hash_one((aggregate_type, id.as_str(), version.0))
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many of them are not in the log at the place that they name.
    pub async fn missing(&self, log: &Log) -> Result<u64, ReadError> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.sort_unstable();
        kept.dedup();
        let mut kept = kept.into_iter().peekable();
        let (mut missing, head) = (0, log.head().await?);
        while let Some((first, _)) = kept.peek() {
            let after = Position(first.0.saturating_sub(1));
            if after >= head {
                break;
            }
            let page = log.read_raw(after, PAGE).await?;
            let Some(last) = page.last().map(|event| event.position) else {
                break;
            };
            for event in page {
                while let Some((position, hash)) = kept.next_if(|(position, _)| *position <= event.position) {
                    let found = self.hash(&event.aggregate_type, &event.aggregate_id, event.version);
                    missing += u64::from(position < event.position || hash != found);
                }
            }
            debug_assert!(kept.peek().is_none_or(|(position, _)| *position > last));
        }
        Ok(missing + kept.count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use aggregates::inventory::InventoryCommand;
    use database::testing::TestDatabase;
    use event_schemas::{Actor, CommandId, ProductId, derive_uuid};
    use event_store::{CommandRequest, ExecutorOptions, Executors, LogOptions};

    use super::*;

    #[tokio::test]
    async fn a_receipt_that_the_log_does_not_hold_is_found() {
        let database = TestDatabase::sqlite();
        let log = Log::open(database.database(), LogOptions::default())
            .await
            .unwrap();
        let inventory = Executors::start(&log, &ExecutorOptions::default()).inventory;
        let receipts = Receipts::default();
        for number in 0..5_u8 {
            let id = CommandId::from_uuid(derive_uuid("omisys/bench/test", &[&[number]]));
            let assign = InventoryCommand::AssignSku {
                product_id: ProductId::for_command(id),
            };
            let request = CommandRequest::new(id, Actor::system("bench"), assign);
            let receipt = inventory
                .submit(format!("SKU-{number}").as_str(), request)
                .await
                .unwrap();
            receipts.keep(&receipt);
        }
        assert_eq!((receipts.count(), receipts.missing(&log).await.unwrap()), (5, 0));
        // The place of another event, a version that never was, and a place beyond the head.
        assert!(receipts.keep_token("inventory/SKU-9@1.3"));
        assert!(receipts.keep_token("inventory/SKU-1@2.2"));
        assert!(receipts.keep_token("inventory/SKU-4@2.6"));
        assert!(!receipts.keep_token("nothing"));
        assert_eq!(receipts.missing(&log).await.unwrap(), 3);
    }
}
