use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use event_bus::Healing;
use event_schemas::{Clock, Code, Currency};
use event_store::{Executors, Log, ReadError};
use identity::{Fingerprinter, verifier::Verifier};
use sagas::SecretStore;

use crate::follow::{Follower, OrderChanges, UnpaidOrders};
use crate::random::Random;

/// What the routes work with.
#[derive(Clone)]
pub struct Services {
    pub executors: Executors,
    pub log: Log,
    pub secrets: SecretStore,
    /// What is parked anywhere, and how to ask for it to be tried again.
    pub healing: Healing,
    pub verifier: Verifier,
    pub fingerprinter: Fingerprinter,
    pub clock: Clock,
    pub random: Random,
}

/// What the shop has decided.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The one currency of the shop.
    pub currency: Currency,
    /// How long a customer has to pay an order before it is cancelled.
    pub payment_window: Duration,
    /// Payment method → provider. A method that is not here is refused.
    pub payment_methods: BTreeMap<Code, Code>,
}

impl Rules {
    /// No payment methods, and half an hour to pay.
    pub fn new(currency: Currency) -> Self {
        Self {
            currency,
            payment_window: Duration::from_secs(30 * 60),
            payment_methods: BTreeMap::new(),
        }
    }
}

/// The command API. Cheap to clone.
#[derive(Clone)]
pub struct CommandApi {
    pub(crate) services: Services,
    pub(crate) rules: Arc<Rules>,
    pub(crate) unpaid: UnpaidOrders,
    pub(crate) changes: OrderChanges,
    /// Follows the log as long as somebody holds the API.
    _follower: Arc<Follower>,
}

impl CommandApi {
    /// Catches up with the unpaid orders in the log, then follows it in a task of its own until the last clone is
    /// dropped. The task only reads.
    pub async fn start(services: Services, rules: Rules) -> Result<Self, ReadError> {
        let (unpaid, changes) = (UnpaidOrders::default(), OrderChanges::default());
        let follower = Follower::start(
            services.log.clone(),
            services.clock.clone(),
            rules.payment_window,
            unpaid.clone(),
            changes.clone(),
        )
        .await?;
        Ok(Self {
            services,
            rules: Arc::new(rules),
            unpaid,
            changes,
            _follower: Arc::new(follower),
        })
    }

    pub(crate) const fn executors(&self) -> &Executors {
        &self.services.executors
    }
}

impl FromRef<CommandApi> for Verifier {
    fn from_ref(api: &CommandApi) -> Self {
        api.services.verifier.clone()
    }
}
