//! Where a subscriber's positions come from.

use std::pin::Pin;
use std::sync::Arc;

use crate::{BusError, Checkpoint, Checkpoints};

type Loading = Pin<Box<dyn Future<Output = Result<Option<Checkpoint>, String>> + Send>>;

/// Where a subscriber's positions are kept. They are asked for whenever the group gives it partitions.
#[derive(Clone)]
pub enum Positions {
    /// By this subscription: [`crate::Subscription::ack`] saves them.
    Kept(Checkpoints),
    /// By the caller, together with what it made of a batch. See [`Positions::callers`].
    Callers(Arc<dyn Fn() -> Loading + Send + Sync>),
}

impl Positions {
    /// `load` reads how far the caller has come in all partitions: its last stored checkpoints, merged.
    pub fn callers<F, L, E>(load: F) -> Self
    where
        F: Fn() -> L + Send + Sync + 'static,
        L: Future<Output = Result<Option<Checkpoint>, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        Self::Callers(Arc::new(move || {
            let loading = load();
            Box::pin(async move { loading.await.map_err(|error| error.to_string()) })
        }))
    }

    pub(super) async fn load(&self, subscriber: &Arc<str>) -> Result<Option<Checkpoint>, BusError> {
        match self {
            Self::Kept(checkpoints) => Ok(checkpoints.load(subscriber).await?),
            Self::Callers(load) => load().await.map_err(BusError::Positions),
        }
    }
}
