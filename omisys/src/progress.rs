//! Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress through a known number of steps. Goes to stderr, so that stdout stays a program's.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    lines: bool,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// `total` steps of `what` (a plural, such as `orders`).
    pub fn new(what: &'static str, total: u64) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let target = if lines {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        };
        let template = format!("{{bar:30}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let now = Instant::now();
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        Self {
            bar,
            what,
            lines,
            started: now,
            last_line: now,
        }
    }

    /// One more step is done.
    pub fn step(&mut self) {
        self.bar.inc(1);
        self.line();
    }

    /// `done` steps of `total` are done, of which there may be more than there were.
    pub fn set(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.line();
    }

    fn line(&mut self) {
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let rate = done as f64 / self.started.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64((total.saturating_sub(done)) as f64 / rate.max(0.001));
            eprintln!(
                "{done}/{total} {}  {rate:.0}/s  {} left",
                self.what,
                HumanDuration(left)
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
