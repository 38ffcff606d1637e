//! Events to JSON and back, as the log, the stream and every reader do it: one example of each event type.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the inputs are constants")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use event_schemas::{Metadata, Upcasters, decode};

fn events(criterion: &mut Criterion) {
    let examples = common::examples();
    let stored: Vec<String> = examples
        .iter()
        .map(|event| event.to_json().expect("an example"))
        .collect();
    let mut group = criterion.benchmark_group("every example once");
    group.throughput(Throughput::Elements(examples.len() as u64));
    group.bench_function("serialise", |bencher| {
        bencher.iter(|| {
            for event in &examples {
                let _ = black_box(black_box(event).to_json());
            }
        });
    });
    let upcasters = Upcasters::shipped();
    group.bench_function("deserialise", |bencher| {
        bencher.iter(|| {
            for (event, json) in examples.iter().zip(&stored) {
                let read = decode(
                    event.aggregate_type(),
                    event.name(),
                    event.schema_version(),
                    black_box(json),
                    &upcasters,
                );
                let _ = black_box(read);
            }
        });
    });
    group.finish();
    let metadata = serde_json::to_string(&common::metadata()).expect("an example");
    criterion.bench_function("metadata: deserialise", |bencher| {
        bencher.iter(|| serde_json::from_str::<Metadata>(black_box(&metadata)));
    });
}

criterion_group!(benches, events);
criterion_main!(benches);
