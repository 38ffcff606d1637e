//! When to leave a replica alone. Closed: requests pass, failures in a row are counted. Open: none pass for a while.
//! Then one passes as a probe, and it decides.

use std::time::Duration;

use tokio::time::Instant;

use crate::PoolOptions;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    failures_max: u32,
    open_min: Duration,
    open_max: Duration,
}

impl Breaker {
    pub(crate) fn new(options: &PoolOptions) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            failures_max: options.failures_max.max(1),
            open_min: options.open_min,
            open_max: options.open_max.max(options.open_min),
        }
    }

    /// Whether a request may pass now; one that does is to be followed by `succeeded`, `failed` or `abandoned`.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, pause } if now >= until => {
                self.state = State::Probing { pause };
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// The replica answered, whatever it said.
    pub(crate) fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// It could not be reached, or did not answer.
    pub(crate) fn failed(&mut self, now: Instant) {
        let open = |pause: Duration| State::Open {
            until: now + pause,
            pause,
        };
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.failures_max => State::Closed {
                failures: failures + 1,
            },
            State::Closed { .. } => open(self.open_min),
            State::Probing { pause } => open((pause * 2).min(self.open_max)),
            // A request from before it opened.
            State::Open { .. } => self.state,
        };
    }

    /// The caller left before it was known: the next one probes.
    pub(crate) fn abandoned(&mut self, now: Instant) {
        if let State::Probing { pause } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    /// There is a sign of life: the next request may probe at once.
    pub(crate) fn revived(&mut self, now: Instant) {
        if let State::Open { pause, .. } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        let mut options = PoolOptions::new("test", Vec::new());
        (options.failures_max, options.open_min, options.open_max) = (3, 100 * MS, 300 * MS);
        Breaker::new(&options)
    }

    fn open_at(now: Instant) -> Breaker {
        let mut breaker = breaker();
        for _ in 0..3 {
            assert!(breaker.admit(now));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (now, mut breaker) = (Instant::now(), breaker());
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
        assert!(!open_at(now).admit(now + 99 * MS));
    }

    #[test]
    fn one_probe_passes_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = open_at(now);
        assert!(breaker.admit(now + 100 * MS));
        assert!(!breaker.admit(now + 1_000 * MS), "one at a time");
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.admit(now));
    }

    #[test]
    fn a_failed_probe_opens_for_twice_as_long_up_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = open_at(now);
        for pause in [100, 200, 300, 300] {
            assert!(!breaker.admit(now + (pause - 1) * MS));
            now += pause * MS;
            assert!(breaker.admit(now));
            // A request from before fails too: nothing changes twice.
            breaker.failed(now);
            breaker.failed(now);
        }
    }

    #[test]
    fn an_abandoned_probe_leaves_it_to_the_next_and_a_sign_of_life_shortens_the_pause() {
        let now = Instant::now();
        let mut breaker = open_at(now);
        breaker.revived(now);
        assert!(breaker.admit(now));
        breaker.abandoned(now);
        assert!(breaker.admit(now));
        breaker.succeeded();
        breaker.abandoned(now);
        breaker.revived(now);
        assert!(breaker.is_closed());
    }
}
