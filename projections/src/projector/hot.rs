//! Documents that were written lately, so that a hot one is not read and parsed with every batch. The guard on each
//! write makes this safe: a document that moved since is noticed then.

use lru::LruCache;

use super::fold::keys_of;
use crate::document::Document;
use crate::query::KeyValue;
use crate::view::{DocId, View};

/// Bytes of stored documents that one view keeps parsed; in memory they take a few times that.
const CAPACITY_BYTES: usize = 4 << 20;

/// A document as it is stored, parsed.
pub(super) struct Hot<V: View> {
    pub(super) document: Document<V::Part>,
    /// 0 if it is not stored yet.
    pub(super) rev: u64,
    /// The stored keys; none if it is not stored yet.
    pub(super) keys: Option<Vec<KeyValue>>,
    pub(super) bytes: usize,
}

impl<V: View> Hot<V> {
    pub(super) fn absent() -> Self {
        Self {
            document: Document::default(),
            rev: 0,
            keys: None,
            bytes: 0,
        }
    }

    pub(super) fn stored(document: Document<V::Part>, rev: u64, bytes: usize) -> Self {
        let mut hot = Self {
            document,
            rev,
            keys: None,
            bytes,
        };
        hot.keys = Some(keys_of(&hot));
        hot
    }
}

/// The documents written last, bounded by their bytes.
pub(super) struct HotDocuments<V: View> {
    documents: LruCache<DocId, Hot<V>>,
    bytes: usize,
}

impl<V: View> HotDocuments<V> {
    pub(super) fn new() -> Self {
        Self {
            documents: LruCache::unbounded(),
            bytes: 0,
        }
    }

    pub(super) fn take(&mut self, id: &DocId) -> Option<Hot<V>> {
        let hot = self.documents.pop(id)?;
        self.bytes -= hot.bytes;
        Some(hot)
    }

    pub(super) fn put(&mut self, id: DocId, hot: Hot<V>) {
        self.bytes += hot.bytes;
        if let Some(before) = self.documents.put(id, hot) {
            self.bytes -= before.bytes;
        }
        while self.bytes > CAPACITY_BYTES {
            let Some((_, oldest)) = self.documents.pop_lru() else {
                break;
            };
            self.bytes -= oldest.bytes;
        }
    }
}
