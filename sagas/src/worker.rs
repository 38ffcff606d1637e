//! Works off timers and effects, and hears the provider's reports. Wakes as soon as a row is added, else when the next
//! one falls due.

use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use event_bus::{DeadLetters, NewDeadLetter};
use event_schemas::{Clock, RecordedEvent, Timestamp};
use event_store::Log;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::SagasConfig;
use crate::dispatch::{Cause, Dispatcher, Failure, Stopped};
use crate::fault::{self, Faults};
use crate::folds::Folds;
use crate::policies::{self, Action, EffectKind, TimerKind};
use crate::provider::Provider;
use crate::secrets::SecretStore;
use crate::work::{Handed, ReadEventError, Table, Work, WorkItem, read_event};

/// The longest sleep: a machine's clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A clock that a test moves by hand tells nobody; only tests have one.
const MANUAL_CLOCK_LOOK: Duration = Duration::from_millis(2);
/// How often to look for rows that other processes may have added, or left behind.
const LOOK_FOR_OTHERS_EVERY: Duration = Duration::from_secs(1);
/// How often expired secrets are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Reports taken at once.
pub(crate) const REPORTS: usize = 64;

/// What a row came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Recorded, or moot.
    Done,
    Again(Timestamp),
    /// Recorded, but someone should know.
    Alert(String),
    /// Nothing more is done before someone has looked.
    Park(String),
}

impl Next {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again(_) => "again",
            Self::Alert(_) => "alert",
            Self::Park(_) => "parked",
        }
    }
}

/// What every row's work needs. Clones share everything.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) work: Work,
    pub(crate) log: Log,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) provider: Option<Provider>,
    pub(crate) secrets: SecretStore,
    pub(crate) letters: DeadLetters,
    pub(crate) config: SagasConfig,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    /// Counts what was finished: for those who wait until all is done.
    pub(crate) progress: watch::Sender<u64>,
}

/// What a task of the worker was.
enum Finished {
    Row,
    /// Whether all of them were recorded.
    Reports(bool),
}

impl Worker {
    /// Runs until it is cancelled; what is under way then comes to its end.
    pub(crate) async fn run(
        self,
        mut handed: mpsc::UnboundedReceiver<Handed>,
        cancel: CancellationToken,
    ) -> Result<(), Stopped> {
        let mut tasks: JoinSet<Result<Finished, Stopped>> = JoinSet::new();
        let most = self.config.work_in_flight.max(1);
        let (mut look, mut more, mut reporting) = (true, false, false);
        let mut next_at: Option<Timestamp> = None;
        let mut sweep_at = self.clock.now();
        // Reports that could not be recorded come again, but not at once.
        let mut reports_from = Timestamp::MIN;
        while !cancel.is_cancelled() {
            let now = self.clock.now();
            if now >= sweep_at {
                sweep_at = now.checked_add(SWEEP_EVERY).unwrap_or(Timestamp::MAX);
                self.sweep(now).await;
            }
            let report_at = if reporting {
                None
            } else {
                self.next_report_at().await
            };
            let report_at = report_at.map(|at| at.max(reports_from));
            if report_at.is_some_and(|at| at <= now) {
                let worker = self.clone();
                reporting = true;
                tasks.spawn(async move { worker.reports().await.map(Finished::Reports) });
                continue;
            }
            if (look || next_at.is_some_and(|at| at <= now)) && tasks.len() < most {
                let room = most - tasks.len();
                let lease_until = now.checked_add(self.config.lease).unwrap_or(Timestamp::MAX);
                match self.work.lease(now, lease_until, room).await {
                    Ok(due) => {
                        more = due.items.len() == room;
                        next_at = due.next_at.and_then(|at| Timestamp::from_microsecond(at).ok());
                        if !self.config.exclusive {
                            let look_at = now.checked_add(LOOK_FOR_OTHERS_EVERY).ok();
                            next_at = next_at.into_iter().chain(look_at).min();
                        }
                        for item in due.items {
                            let worker = self.clone();
                            tasks.spawn(async move { worker.row(item).await.map(|()| Finished::Row) });
                        }
                    }
                    Err(error) if error.is_closed() => return Err(Stopped::Cancelled),
                    Err(error) => {
                        tracing::warn!(%error, "due timers and effects cannot be read; trying again");
                        next_at = Some(self.config.effect_backoff.next(1, now));
                    }
                }
                look = false;
            }
            let wake_at = [next_at.filter(|_| tasks.len() < most), report_at, Some(sweep_at)];
            let sleep = self.sleep_until(wake_at.into_iter().flatten().min(), now);
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                Some(finished) = tasks.join_next() => {
                    match finished {
                        Ok(Ok(Finished::Row)) => look |= more,
                        Ok(Ok(Finished::Reports(all))) => {
                            reporting = false;
                            if !all {
                                reports_from = self.config.effect_backoff.next(1, self.clock.now());
                            }
                        }
                        Ok(Err(stopped)) => {
                            tasks.abort_all();
                            return Err(stopped);
                        }
                        Err(error) => {
                            // Its lease runs out, and the row is tried again.
                            tracing::error!(%error, "working on a timer or an effect panicked");
                            reporting = false;
                        }
                    }
                    self.progress.send_modify(|count| *count += 1);
                }
                Some(Handed { item, place }) = handed.recv(), if tasks.len() < most => {
                    let worker = self.clone();
                    tasks.spawn(async move {
                        let _place = place;
                        worker.row(item).await.map(|()| Finished::Row)
                    });
                }
                () = self.work.changed() => look = true,
                () = tokio::time::sleep(sleep) => {}
            }
        }
        while let Some(finished) = tasks.join_next().await {
            if let Ok(Err(stopped @ Stopped::Died(_))) = finished {
                return Err(stopped);
            }
        }
        Ok(())
    }

    fn sleep_until(&self, at: Option<Timestamp>, now: Timestamp) -> Duration {
        let wait = at.map_or(LONGEST_SLEEP, |at| {
            Duration::try_from(at.duration_since(now))
                .unwrap_or(Duration::ZERO)
                .min(LONGEST_SLEEP)
        });
        match self.clock {
            Clock::System => wait,
            Clock::Manual(_) => wait.min(MANUAL_CLOCK_LOOK),
        }
    }

    async fn sweep(&self, now: Timestamp) {
        if let Err(error) = self.secrets.sweep(now).await {
            tracing::warn!(%error, "expired secrets were not deleted");
        }
    }

    async fn next_report_at(&self) -> Option<Timestamp> {
        let next = self.provider.as_ref()?.next_report_at().await;
        next.unwrap_or_else(|error| {
            tracing::warn!(%error, "the provider's reports cannot be asked for; trying again");
            Some(self.config.effect_backoff.next(1, self.clock.now()))
        })
    }

    /// Works on one leased row and says in the table what came of it.
    async fn row(&self, item: WorkItem) -> Result<(), Stopped> {
        let found = match &item.recorded {
            Some(recorded) => Ok(Arc::clone(recorded)),
            None => read_event(&self.log, &item.event).await,
        };
        let recorded = match found {
            Ok(recorded) => recorded,
            Err(ReadEventError::Read(error)) => {
                tracing::warn!(%error, event = %item.event, "the event of a row cannot be read; trying again");
                return self.conclude(&item, Next::Again(self.backoff(&item))).await;
            }
            Err(error @ ReadEventError::Missing(_)) => {
                return self.conclude(&item, Next::Park(error.to_string())).await;
            }
        };
        let next = match item.table {
            Table::Timers => self.timer(&item, &recorded).await?,
            Table::Effects => self.effect(&item, &recorded).await?,
        };
        self.faults.visit(fault::BEFORE_DONE)?;
        self.conclude(&item, next).await
    }

    async fn conclude(&self, item: &WorkItem, next: Next) -> Result<(), Stopped> {
        if let (Table::Effects, Ok(kind)) = (item.table, item.kind.parse::<EffectKind>()) {
            metrics::counter!("omisys_effects_total", "kind" => kind.as_str(), "outcome" => next.as_str())
                .increment(1);
        }
        let concluded = match next {
            Next::Done => self.work.done(item).await,
            Next::Again(at) => self.work.again(item, at).await,
            Next::Alert(reason) => match self.alert(item, reason).await {
                Ok(()) => self.work.done(item).await,
                Err(error) => Err(error),
            },
            Next::Park(reason) => match self.alert(item, reason).await {
                Ok(()) => self.work.park(item).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = concluded {
            // The lease runs out, and the row is found to be done, or tried again.
            tracing::warn!(%error, event = %item.event, kind = item.kind, "a row was not updated");
        }
        Ok(())
    }

    async fn alert(&self, item: &WorkItem, reason: String) -> Result<(), DatabaseError> {
        tracing::error!(event = %item.event, kind = item.kind, reason, "a timer or an effect failed: dead letter");
        let letter = NewDeadLetter {
            scope: scope(item).into(),
            position: item.position,
            event_id: item.event.clone(),
            event_type: item.kind.clone(),
            reason: Some(reason),
            parked_at: self.clock.now(),
        };
        self.letters.park(letter).await
    }

    pub(crate) fn backoff(&self, item: &WorkItem) -> Timestamp {
        self.config.effect_backoff.next(item.attempts, self.clock.now())
    }

    async fn timer(&self, item: &WorkItem, recorded: &RecordedEvent) -> Result<Next, Stopped> {
        self.faults.visit(fault::BEFORE_TIMER)?;
        let Ok(kind) = item.kind.parse::<TimerKind>() else {
            return Ok(Next::Park(format!("no timer is called {}", item.kind)));
        };
        let actions = match kind {
            TimerKind::PaymentDeadline | TimerKind::AutoComplete => policies::react_to_timer(recorded, kind),
            TimerKind::PolicyAgain => {
                let mut folds = Folds::new(&self.log, 1);
                if let Err(error) = folds.prepare(recorded).await {
                    tracing::warn!(%error, event = %item.event, "the aggregate cannot be read; trying again");
                    return Ok(Next::Again(self.backoff(item)));
                }
                match policies::react(recorded, folds.state(recorded), &self.config.policies) {
                    Ok(actions) => actions,
                    Err(missing) => return Ok(Next::Park(missing.to_string())),
                }
            }
        };
        let cause = Cause::from(recorded);
        for action in actions {
            // Timers and effects of the event were stored when it was first seen.
            let Action::Command(command) = action else {
                continue;
            };
            match self.dispatcher.run(&cause, command).await {
                Ok(()) => {}
                Err(Failure::Later(_) | Failure::Upgrade(_)) => return Ok(Next::Again(self.backoff(item))),
                Err(Failure::Unforeseen(reason)) => return Ok(Next::Park(reason)),
                Err(Failure::Stopped(stopped)) => return Err(stopped),
            }
        }
        Ok(Next::Done)
    }
}

/// What the dead letter of a row is kept under: one row, one scope, since rows do not wait for each other.
pub(crate) fn scope(item: &WorkItem) -> String {
    format!("{}#{}", item.event, item.kind)
}
