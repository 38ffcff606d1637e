//! What is counted, and under which names.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use database::testing::TestDatabase;
use event_store::conformance::{Process, ShelfCommand, order, request};
use event_store::{Executor, ExecutorOptions, Log, LogOptions};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps counters, and how often a histogram was given a value.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, Arc<Count>>>);

#[derive(Default)]
struct Count(AtomicU64);

impl metrics::CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl metrics::HistogramFn for Count {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counts {
    fn count(&self, key: &Key) -> Arc<Count> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{}", key.name(), labels.concat());
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.count(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.count(key))
    }
}

/// The only test of this file: the recorder is the process's.
#[tokio::test]
async fn commands_are_counted_by_outcome_and_commits_by_size_and_time() {
    let counts: &'static Counts = Box::leak(Box::default());
    metrics::set_global_recorder(counts).unwrap();
    let database = TestDatabase::sqlite();
    let log = Log::open(database.database(), LogOptions::default())
        .await
        .unwrap();
    let shelves = Executor::start(&log, &ExecutorOptions::default());
    let process = Process { log, shelves };
    let put = request(ShelfCommand::Put(2));
    for _ in 0..2 {
        process.shelves.submit("mug", put.clone()).await.unwrap();
    }
    process
        .run("mug", ShelfCommand::Take(order(1), 3))
        .await
        .unwrap_err();
    let counted: Vec<_> = counts
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("omisys_"))
        .map(|(name, count)| (name.clone(), count.0.load(Ordering::SeqCst) > 0))
        .collect();
    let expected = [
        "omisys_commands_total aggregate=inventory outcome=accepted",
        "omisys_commands_total aggregate=inventory outcome=refused",
        "omisys_commands_total aggregate=inventory outcome=replayed",
        "omisys_journal_batch_events",
        "omisys_journal_commit_seconds",
    ];
    assert_eq!(counted, expected.map(|name| (name.to_owned(), true)));
}
