//! Named points at which a test may end the process or a task, to show that what comes after a restart is right.
//!
//! Two kinds of death: `OMISYS_CRASH_AT=<point>[:<n>]` aborts the process at the n-th visit of a point (compiled in only
//! with the feature `fault-injection`), and a [`Faults`] script stops the sagas' tasks at the n-th visit of any point.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Between the two appends of a check-out: `CartCheckedOut` is durable, `Order.Place` has not been submitted.
pub const CHECKOUT_BETWEEN_APPENDS: &str = "checkout-between-appends";
/// A batch's commands are durable; its timers, effects and checkpoint are not.
pub const BEFORE_CHECKPOINT: &str = "before-checkpoint";
/// A policy's command was refused as foreseen; what follows from that has not been submitted.
pub const AFTER_REFUSAL: &str = "after-refusal";
/// An effect has its lease; the provider has not been called.
pub const BEFORE_PROVIDER: &str = "before-provider";
/// The provider has answered (it may have moved money); the fact is not recorded.
pub const AFTER_PROVIDER: &str = "after-provider";
/// The fact is recorded; the effect's row is still there.
pub const BEFORE_DONE: &str = "before-done";
/// A timer has its lease; its command has not been submitted.
pub const BEFORE_TIMER: &str = "before-timer";

/// Aborts the process here if `OMISYS_CRASH_AT` names this point; nothing without the feature `fault-injection`.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub const fn point(_name: &'static str) {}

/// Aborts the process here if `OMISYS_CRASH_AT` names this point (`<point>` or `<point>:<n>` for its n-th visit).
#[cfg(feature = "fault-injection")]
pub fn point(name: &'static str) {
    static ARMED: std::sync::OnceLock<Option<(String, u64)>> = std::sync::OnceLock::new();
    static VISITS: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("OMISYS_CRASH_AT").ok()?;
        let (point, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), nth.parse().unwrap_or(1)))
    });
    if let Some((point, nth)) = armed
        && point == name
        && VISITS.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        // As `kill -9`: no destructor, no flush.
        std::process::abort();
    }
}

/// The script said that this task dies here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fault was planted at {0}")]
pub struct Died(pub &'static str);

/// Where a test wants the sagas' tasks to stop; none by default.
#[derive(Debug, Clone, Default)]
pub struct Faults(Option<Arc<Script>>);

#[derive(Debug)]
struct Script {
    /// Counts visits of this point only; of all points if none.
    point: Option<&'static str>,
    nth: u64,
    visits: AtomicU64,
}

impl Faults {
    /// Everything stops from the `nth` visit (from 1) of any point on.
    pub fn die_at_visit(nth: u64) -> Self {
        Self(Some(Arc::new(Script {
            point: None,
            nth,
            visits: AtomicU64::new(0),
        })))
    }

    /// Everything stops from the `nth` visit (from 1) of `point` on.
    pub fn die_at(point: &'static str, nth: u64) -> Self {
        Self(Some(Arc::new(Script {
            point: Some(point),
            nth,
            visits: AtomicU64::new(0),
        })))
    }

    /// Whether the script has struck.
    pub fn struck(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|script| script.visits.load(Ordering::SeqCst) >= script.nth)
    }

    pub(crate) fn visit(&self, name: &'static str) -> Result<(), Died> {
        point(name);
        let Some(script) = &self.0 else { return Ok(()) };
        let counts = script.point.is_none_or(|point| point == name);
        let visits = if counts {
            script.visits.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            script.visits.load(Ordering::SeqCst)
        };
        // A dead process does nothing any more, whichever task reaches a point next.
        if visits >= script.nth {
            Err(Died(name))
        } else {
            Ok(())
        }
    }
}
