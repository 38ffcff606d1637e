//! How far a subscriber is behind.

use event_schemas::{Position, Timestamp};
use event_store::Log;

use crate::BusError;

/// How far a subscriber is behind the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lag {
    /// Positions of the log between what was handled and what there is. Of a member of a consumer group, the most that
    /// any of its partitions has, and how far the relay is behind: some of it may be nothing that it reads.
    pub positions: u64,
    /// How long, in seconds, an event has waited at least; 0 if none does.
    pub seconds: f64,
}

/// The lag of whoever has everything of `log` up to `position`.
pub(crate) async fn of_log(log: &Log, position: Position, now: Timestamp) -> Result<Lag, BusError> {
    let head = *log.watch().borrow();
    if head <= position {
        return Ok(Lag::default());
    }
    let first = log.read_raw(position, 1).await.map_err(BusError::Log)?;
    Ok(Lag {
        positions: head.0 - position.0,
        seconds: first.first().map_or(0.0, |event| since(event.recorded_at, now)),
    })
}

/// Seconds from `then` to `now`; 0 if a clock was set back.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64().max(0.0)
}
