//! Which staff and admin tokens are still good. An account's epoch goes up whenever its role, status or password
//! changes; a token carries the epoch that it was made under.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use database::{Database, DatabaseError};
use event_schemas::{AccountId, Clock, Timestamp};
use tokio::sync::Mutex;

use crate::accounts;

/// How old the snapshot may be: the longest that a demotion made by another process goes unnoticed.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The epochs of all active staff and admin accounts, which are few; whoever is not in here is neither.
pub(crate) struct Epochs {
    /// None where others look.
    database: Option<Database>,
    snapshot: RwLock<Snapshot>,
    /// Held while reading, so that a snapshot never overwrites one read after it.
    refreshing: Mutex<()>,
}

/// What is known of a staff or admin token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// The account is no active staff or admin any more, or has changed since the token was made.
    Revoked,
    /// The snapshot is too old to say.
    Unknown,
}

#[derive(Default)]
struct Snapshot {
    read_at: Option<Timestamp>,
    epochs: HashMap<AccountId, u64>,
}

impl Epochs {
    pub(crate) fn in_database(database: Database) -> Self {
        Self::of(Some(database))
    }

    /// Every token counts as good here.
    #[cfg(feature = "cluster")]
    pub(crate) fn elsewhere() -> Self {
        Self::of(None)
    }

    fn of(database: Option<Database>) -> Self {
        Self {
            database,
            snapshot: RwLock::default(),
            refreshing: Mutex::new(()),
        }
    }

    /// Whether a token of `account` that was made under `epoch` is still good.
    pub(crate) fn standing(&self, account: AccountId, epoch: u64, now: Timestamp) -> Standing {
        if self.database.is_none() {
            return Standing::Good;
        }
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        if !snapshot.fresh(now) {
            Standing::Unknown
        } else if snapshot.epochs.get(&account) == Some(&epoch) {
            Standing::Good
        } else {
            Standing::Revoked
        }
    }

    pub(super) async fn refresh_if_stale(&self, clock: &Clock) -> Result<(), DatabaseError> {
        let _refreshing = self.refreshing.lock().await;
        if self
            .snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .fresh(clock.now())
        {
            return Ok(());
        }
        self.read(clock.now()).await
    }

    /// Reads what is committed; call it after every change.
    pub(crate) async fn refresh(&self, clock: &Clock) -> Result<(), DatabaseError> {
        let _refreshing = self.refreshing.lock().await;
        self.read(clock.now()).await
    }

    async fn read(&self, now: Timestamp) -> Result<(), DatabaseError> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let epochs = database.read(accounts::privileged_epochs).await?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Snapshot {
            read_at: Some(now),
            epochs,
        };
        Ok(())
    }
}

impl Snapshot {
    fn fresh(&self, now: Timestamp) -> bool {
        self.read_at.is_some_and(|read_at| now <= read_at + MAX_AGE)
    }
}
