//! Load on a system: a closed loop that finds its peak, an open one that shows what its users would feel.
//!
//! In a **closed** loop each caller begins its next step when the one before has ended. A system that stalls is asked
//! less, so its worst times are measured least: what is called coordinated omission. In an **open** loop steps arrive at
//! a rate, evenly, whatever the system does, and the latency of each counts from when it should have begun.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The longest latency that is told apart, in microseconds.
const MAX_MICROS: u64 = 600_000_000;
/// Seconds after the load's end that are told apart; what ends later counts to the last one.
const SECONDS_AFTER: u64 = 120;

/// How steps follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the answers come.
    Closed,
    /// So many arrivals a second.
    Open { per_second: u64 },
}

/// What load there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub pace: Pace,
    /// Steps that may be under way at once. In an open loop, arrivals beyond it wait for one of these to end, and their
    /// latency grows.
    pub callers: usize,
    /// How long steps begin.
    pub duration: Duration,
    /// No more steps than that, where there is so much to do and no more.
    pub at_most: u64,
}

/// What became of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The system said that it has no room (429, 503).
    Shed,
    /// Any other answer that is not the right one, or none.
    Failed,
}

/// What one step answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub outcome: Outcome,
    /// Steps of different kinds are told apart.
    pub kind: &'static str,
    /// What was done in it, such as the lines of an order.
    pub units: u64,
}

/// Latencies of steps that were done, in microseconds.
pub type Latencies = Histogram<u64>;

/// What load came to.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Of steps that were done: those that were shed or failed are no service, however fast.
    pub latencies: Latencies,
    /// The same, by kind.
    pub kinds: BTreeMap<&'static str, Latencies>,
    pub completed: u64,
    pub shed: u64,
    pub failed: u64,
    /// Arrivals that were still waiting for their turn at the end.
    pub not_started: u64,
    /// Of steps that were done.
    pub units: u64,
    /// By the second in which steps ended. The last may be from after the end of the load, and hold more than a second.
    pub seconds: Vec<Second>,
    /// Over which rates are taken: the load's duration, or less if there was no more to do.
    pub window: Duration,
}

/// One second of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Second {
    pub completed: u64,
    pub shed: u64,
    pub failed: u64,
    pub units: u64,
    /// Microseconds; 0 where nothing was completed.
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// A histogram of latencies in microseconds.
///
/// # Panics
/// Never: its bounds are right.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("the bounds are right")
}

/// Runs `step` as `load` says. A step is given its place, below [`Load::callers`], which no other step has meanwhile, and
/// its number among all. Returns when the last one that began has ended.
///
/// # Panics
/// If a step does.
pub async fn run<F, Fut>(load: Load, step: F) -> Measured
where
    F: Fn(usize, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Step> + Send + 'static,
{
    let began = Instant::now();
    let arrivals = Arc::new(Arrivals {
        load,
        began,
        end: began + load.duration,
        taken: AtomicU64::new(0),
    });
    let recorder = Arc::new(Mutex::new(Recorder::new(load, began)));
    let mut callers = JoinSet::new();
    for place in 0..load.callers.max(1) {
        let (arrivals, recorder, step) = (Arc::clone(&arrivals), Arc::clone(&recorder), step.clone());
        callers.spawn(async move {
            let mut steps = 0;
            while let Some((number, intended)) = arrivals.next().await {
                steps += 1;
                let done = step(place, number).await;
                lock(&recorder).record(intended, done);
            }
            steps
        });
    }
    let steps = callers.join_all().await.into_iter().sum();
    let measured = lock(&recorder).finish();
    Measured {
        not_started: arrivals.in_all(steps) - steps,
        ..measured
    }
}

fn lock(recorder: &Mutex<Recorder>) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Arrivals {
    load: Load,
    began: Instant,
    end: Instant,
    taken: AtomicU64,
}

impl Arrivals {
    /// The next step's number and when it should begin, once that is; none if the load is over.
    async fn next(&self) -> Option<(u64, Instant)> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number >= self.load.at_most {
            return None;
        }
        let intended = match self.load.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => self.began + after(number, per_second),
        };
        if intended >= self.end {
            return None;
        }
        sleep_until(intended).await;
        (Instant::now() < self.end).then_some((number, intended))
    }

    /// How many arrivals there were within the load's duration; in a closed loop, the `steps` that were begun.
    fn in_all(&self, steps: u64) -> u64 {
        match self.load.pace {
            Pace::Closed => steps,
            Pace::Open { per_second } => {
                let wanted = self.load.duration.as_nanos() * u128::from(per_second);
                u64::try_from(wanted.div_ceil(NANOS))
                    .unwrap_or(u64::MAX)
                    .min(self.load.at_most)
                    .max(steps)
            }
        }
    }
}

const NANOS: u128 = 1_000_000_000;

/// When arrival `number` is due, from the beginning.
fn after(number: u64, per_second: u64) -> Duration {
    let nanos = u128::from(number) * NANOS / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Adds up what steps came to.
pub struct Recorder {
    load: Load,
    began: Instant,
    measured: Measured,
    /// Of the second that is under way.
    second: Latencies,
    /// When the last step ended.
    last: Instant,
}

impl Recorder {
    /// Of a load that began at `began`.
    pub fn new(load: Load, began: Instant) -> Self {
        let measured = Measured {
            latencies: latencies(),
            kinds: BTreeMap::new(),
            completed: 0,
            shed: 0,
            failed: 0,
            not_started: 0,
            units: 0,
            seconds: vec![Second::default()],
            window: load.duration,
        };
        Self {
            load,
            began,
            measured,
            second: latencies(),
            last: began,
        }
    }

    /// A step that should have begun at `intended` has ended now.
    pub fn record(&mut self, intended: Instant, step: Step) {
        let now = Instant::now();
        self.last = now;
        self.go_on_to(now);
        let measured = &mut self.measured;
        let Some(second) = measured.seconds.last_mut() else {
            return;
        };
        match step.outcome {
            Outcome::Done => {
                let micros = u64::try_from((now - intended).as_micros()).unwrap_or(u64::MAX);
                measured.latencies.saturating_record(micros);
                let kind = measured.kinds.entry(step.kind).or_insert_with(latencies);
                kind.saturating_record(micros);
                self.second.saturating_record(micros);
                second.completed += 1;
                second.units += step.units;
                measured.completed += 1;
                measured.units += step.units;
            }
            Outcome::Shed => {
                second.shed += 1;
                measured.shed += 1;
            }
            Outcome::Failed => {
                second.failed += 1;
                measured.failed += 1;
            }
        }
    }

    /// Closes the seconds that have passed.
    fn go_on_to(&mut self, now: Instant) {
        let at = (now - self.began)
            .as_secs()
            .min(self.load.duration.as_secs() + SECONDS_AFTER);
        while (self.measured.seconds.len() as u64) <= at {
            self.close_second();
            self.measured.seconds.push(Second::default());
        }
    }

    fn close_second(&mut self) {
        if let Some(second) = self.measured.seconds.last_mut() {
            second.p50 = self.second.value_at_quantile(0.5);
            second.p99 = self.second.value_at_quantile(0.99);
            second.max = self.second.max();
        }
        self.second.reset();
    }

    /// The sum.
    pub fn finish(&mut self) -> Measured {
        self.close_second();
        self.measured.window = self.load.duration.min(self.last - self.began);
        self.measured.clone()
    }
}

impl Measured {
    /// Steps a second that were done.
    pub fn goodput(&self) -> f64 {
        self.rate(|second| second.completed)
    }

    /// Steps a second that were answered, with whatever.
    pub fn throughput(&self) -> f64 {
        self.rate(|second| second.completed + second.shed + second.failed)
    }

    /// Units a second of what was done.
    pub fn units_per_second(&self) -> f64 {
        self.rate(|second| second.units)
    }

    /// By what ended within the window: what is waited for at the end would make a short load look slow.
    fn rate(&self, count: impl Fn(&Second) -> u64) -> f64 {
        let whole = self.window.as_secs() as usize;
        let part = self.window.subsec_nanos() > 0;
        let counted = self.seconds.iter().take(whole + usize::from(part));
        counted.map(count).sum::<u64>() as f64 / self.window.as_secs_f64().max(0.001)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const DONE: Step = Step {
        outcome: Outcome::Done,
        kind: "step",
        units: 2,
    };

    fn load(pace: Pace, callers: usize, seconds: u64) -> Load {
        Load {
            pace,
            callers,
            duration: Duration::from_secs(seconds),
            at_most: u64::MAX,
        }
    }

    /// A system that answers within a millisecond, but stands still from the second second to the third.
    async fn stalling(began: Instant) -> Step {
        let (from, to) = (began + Duration::from_secs(2), began + Duration::from_secs(3));
        if (from..to).contains(&Instant::now()) {
            sleep_until(to).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        DONE
    }

    fn millis(latencies: &Latencies, quantile: f64) -> u64 {
        latencies.value_at_quantile(quantile) / 1_000
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_shows_a_stall_to_all_who_came_meanwhile() {
        let began = Instant::now();
        let open = load(Pace::Open { per_second: 100 }, 4, 10);
        let measured = run(open, move |_, _| stalling(began)).await;
        assert_eq!(measured.completed, 1_000);
        assert_eq!(millis(&measured.latencies, 0.5), 1);
        // A tenth came while it stood still: half of them waited for half a second or more.
        assert!((400..=600).contains(&millis(&measured.latencies, 0.95)));
        assert!(millis(&measured.latencies, 0.99) >= 850);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_hides_it() {
        let began = Instant::now();
        let measured = run(load(Pace::Closed, 4, 10), move |_, _| stalling(began)).await;
        assert!(measured.completed > 10_000);
        assert!(millis(&measured.latencies, 0.999) <= 2);
        assert!(measured.latencies.max() >= 990_000, "each caller saw it once");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_there_are_callers() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        let step = move |place: usize, _| {
            assert!(place < 3);
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                DONE
            }
        };
        let measured = run(load(Pace::Open { per_second: 60 }, 3, 2), step).await;
        assert_eq!(seen.load(Ordering::SeqCst), 3);
        // 120 arrived, and three callers can do thirty a second.
        assert_eq!((measured.completed, measured.not_started), (60, 60));
        assert!(
            measured.latencies.max() >= 900_000,
            "the last that began had waited for a second"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_told_apart_and_the_seconds_add_up() {
        let step = |_, number: u64| async move {
            tokio::time::sleep(Duration::from_millis(7)).await;
            let (outcome, kind) = match number % 10 {
                0 => (Outcome::Shed, "read"),
                1 => (Outcome::Failed, "read"),
                2 => (Outcome::Done, "write"),
                _ => (Outcome::Done, "read"),
            };
            Step {
                outcome,
                kind,
                units: 2,
            }
        };
        let measured = run(load(Pace::Open { per_second: 50 }, 8, 4), step).await;
        assert_eq!(
            (measured.completed, measured.shed, measured.failed),
            (160, 20, 20)
        );
        assert_eq!(measured.latencies.len(), 160);
        assert_eq!(
            (measured.kinds["read"].len(), measured.kinds["write"].len()),
            (140, 20)
        );
        let sum = |count: fn(&Second) -> u64| measured.seconds.iter().map(count).sum::<u64>();
        assert_eq!(sum(|second| second.completed), measured.completed);
        assert_eq!(sum(|second| second.shed), measured.shed);
        assert_eq!(sum(|second| second.failed), measured.failed);
        assert_eq!((sum(|second| second.units), measured.units), (320, 320));
        assert!((measured.throughput() - 50.0).abs() < 1.0);
        assert!((measured.goodput() - 40.0).abs() < 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_ends_when_there_is_no_more_to_do() {
        let few = Load {
            at_most: 10,
            ..load(Pace::Closed, 4, 60)
        };
        let step = |_, _| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            DONE
        };
        let measured = run(few, step).await;
        assert_eq!((measured.completed, measured.not_started), (10, 0));
        assert_eq!(measured.window.as_millis(), 1_500);
    }
}
