//! Executors against each other. The races are numbered as in the design's list of interleavings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_schemas::Version;

use super::{Fixture, Process, Shelf, ShelfCommand, TooFew, check_log, order, request, request_as};
use crate::conformance::command_id;
use crate::{ExecuteError, ExecutorOptions, LogOptions, Unavailable};

/// Race 1: neither reservation is committed as it was decided, and both are rejected.
pub async fn two_units_and_an_adjustment_by_another_process(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    ours.run("mug", ShelfCommand::Put(2)).await.unwrap();
    theirs.run("mug", ShelfCommand::Adjust(-2)).await.unwrap();
    let first = ours
        .shelves
        .submit("mug", request(ShelfCommand::Reserve(order(1), 1)));
    let second = ours
        .shelves
        .submit("mug", request(ShelfCommand::Reserve(order(2), 1)));
    assert_eq!(first.await.unwrap().version, Version(3));
    assert_eq!(second.await.unwrap().version, Version(4));
    let types: Vec<_> = check_log(fixture)
        .await
        .into_iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(
        types,
        [
            "StockReceived",
            "StockAdjusted",
            "ReservationRejected",
            "ReservationRejected"
        ]
    );
    assert_eq!(ours.units("mug").await, 0);
}

/// Race 2: the repeat gets its first receipt, the third is decided again, and there is no gap.
pub async fn a_repeated_command_in_the_middle_of_three(fixture: &impl Fixture) {
    let repeated = command_id();
    // Elsewhere, so that no memory of recent commands helps.
    let first = Process::start(fixture).await;
    let receipt = first
        .shelves
        .submit("mug", request_as(repeated, ShelfCommand::Put(10)))
        .await
        .unwrap();
    let process = Process::start(fixture).await;
    assert_eq!(process.units("mug").await, 10);
    let three = [
        process
            .shelves
            .submit("mug", request(ShelfCommand::Reserve(order(1), 4))),
        process
            .shelves
            .submit("mug", request_as(repeated, ShelfCommand::Put(10))),
        // Fits only if the repeat is decided a second time.
        process
            .shelves
            .submit("mug", request(ShelfCommand::Reserve(order(2), 7))),
    ];
    let mut outcomes = Vec::new();
    for pending in three {
        outcomes.push(pending.await.unwrap());
    }
    assert_eq!(outcomes[0].version, Version(2));
    assert!(outcomes[1].replayed);
    assert_eq!(
        (outcomes[1].version, outcomes[1].position),
        (receipt.version, receipt.position)
    );
    assert_eq!(outcomes[2].version, Version(3));
    let types: Vec<_> = check_log(fixture)
        .await
        .into_iter()
        .map(|event| event.event_type)
        .collect();
    assert_eq!(types, ["StockReceived", "StockReserved", "ReservationRejected"]);
    assert_eq!(process.units("mug").await, 6);
}

/// Race 3.
pub async fn a_refusal_is_never_answered_from_a_stale_cache(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    let refused = ours.run("mug", ShelfCommand::Take(order(1), 1)).await;
    assert_eq!(refused, Err(ExecuteError::Refused(TooFew { units: 0 })));
    theirs.run("mug", ShelfCommand::Put(3)).await.unwrap();
    assert_eq!(
        ours.run("mug", ShelfCommand::Take(order(1), 1))
            .await
            .unwrap()
            .version,
        Version(2)
    );
    // And when it is refused all the same, then for what is true.
    theirs.run("mug", ShelfCommand::Take(order(2), 1)).await.unwrap();
    let refused = ours.run("mug", ShelfCommand::Take(order(3), 2)).await;
    assert_eq!(refused, Err(ExecuteError::Refused(TooFew { units: 1 })));
}

pub async fn a_read_is_never_answered_from_a_stale_cache(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    assert_eq!(ours.shelves.load("mug").await, Ok((Shelf::default(), Version(0))));
    theirs.run("mug", ShelfCommand::Put(3)).await.unwrap();
    assert_eq!(
        ours.shelves.load("mug").await,
        Ok((Shelf { units: 3 }, Version(1)))
    );
}

pub async fn a_no_op_is_never_answered_from_a_stale_cache(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    ours.run("mug", ShelfCommand::Touch).await.unwrap();
    theirs.run("mug", ShelfCommand::Put(3)).await.unwrap();
    assert_eq!(
        ours.run("mug", ShelfCommand::Touch).await.unwrap().version,
        Version(1)
    );
}

pub async fn an_if_match_is_never_compared_with_a_stale_cache(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    ours.run("mug", ShelfCommand::Put(1)).await.unwrap();
    theirs.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let at = |version| {
        let mut request = request(ShelfCommand::Put(1));
        request.expected_version = Some(Version(version));
        ours.shelves.submit("mug", request)
    };
    assert_eq!(
        at(1).await,
        Err(ExecuteError::VersionMismatch { actual: Version(2) })
    );
    assert_eq!(at(2).await.unwrap().version, Version(3));
    assert_eq!(
        at(2).await,
        Err(ExecuteError::VersionMismatch { actual: Version(3) })
    );
}

pub async fn two_executors_share_the_last_units(fixture: &impl Fixture) {
    let processes = [
        Process::start_patient(fixture).await,
        Process::start_patient(fixture).await,
    ];
    processes[0].run("mug", ShelfCommand::Put(100)).await.unwrap();
    let attempts: Vec<_> = (0..300)
        .map(|number| {
            let shelves = &processes[number as usize % 2].shelves;
            shelves.submit("mug", request(ShelfCommand::Take(order(number), 1)))
        })
        .collect();
    let (mut taken, mut refused) = (0, 0);
    for attempt in attempts {
        match attempt.await {
            Ok(_) => taken += 1,
            Err(ExecuteError::Refused(TooFew { units: 0 })) => refused += 1,
            Err(other) => panic!("neither taken nor refused: {other}"),
        }
    }
    assert_eq!((taken, refused), (100, 200));
    assert_eq!(check_log(fixture).await.len(), 101);
    assert_eq!(processes[0].units("mug").await, 0);
}

pub async fn commands_on_one_aggregate_run_in_the_order_of_the_calls(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    for round in 0..5 {
        // Makes the first of them fail, so that all of them come back once.
        theirs.run("mug", ShelfCommand::Put(1)).await.unwrap();
        let pending: Vec<_> = (0..40)
            .map(|_| ours.shelves.submit("mug", request(ShelfCommand::Put(1))))
            .collect();
        for (pending, ordinal) in pending.into_iter().zip(2..) {
            assert_eq!(pending.await.unwrap().version, Version(round * 41 + ordinal));
        }
    }
    check_log(fixture).await;
}

pub async fn commands_that_come_back_keep_their_place(fixture: &impl Fixture) {
    let (ours, theirs) = (
        Process::start_patient(fixture).await,
        Process::start(fixture).await,
    );
    let stop = Arc::new(AtomicBool::new(false));
    let interfering = Arc::clone(&stop);
    let interference = tokio::spawn(async move {
        while !interfering.load(Ordering::Relaxed) {
            // A conflict now and then; that it may lose is its own affair.
            let _ = theirs.run("mug", ShelfCommand::Put(1)).await;
            ours_get_on().await;
        }
    });
    let mut pending = Vec::new();
    for _ in 0..2_000 {
        pending.push(ours.shelves.enqueue("mug", request(ShelfCommand::Put(1))).await);
        tokio::task::yield_now().await;
    }
    let mut last = Version(0);
    for pending in pending {
        let version = pending.await.unwrap().version;
        assert!(version > last, "{version} came after {last}");
        last = version;
    }
    stop.store(true, Ordering::Relaxed);
    interference.await.unwrap();
    check_log(fixture).await;
}

async fn ours_get_on() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub async fn an_aggregate_believed_new_is_not_written_over(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    theirs.run("mug", ShelfCommand::Put(3)).await.unwrap();
    let mut new = request(ShelfCommand::Put(1));
    new.expected_version = Some(Version(0));
    let outcome = ours.shelves.submit("mug", new.clone()).await;
    assert_eq!(outcome, Err(ExecuteError::VersionMismatch { actual: Version(1) }));
    assert_eq!(ours.units("mug").await, 3);
    assert_eq!(ours.shelves.submit("cup", new).await.unwrap().version, Version(1));
}

pub async fn eviction_loses_nothing(fixture: &impl Fixture) {
    let options = ExecutorOptions {
        shards: 1,
        cached_aggregates: 2,
        ..ExecutorOptions::default()
    };
    let process = Process::start_with(fixture, &options).await;
    let mut pending = Vec::new();
    for round in 0..5 {
        for shelf in 0..20 {
            let put = process
                .shelves
                .submit(format!("shelf-{shelf}").as_str(), request(ShelfCommand::Put(1)));
            pending.push((round + 1, put));
        }
    }
    for (version, put) in pending {
        assert_eq!(put.await.unwrap().version, Version(version));
    }
    for shelf in 0..20 {
        assert_eq!(process.units(&format!("shelf-{shelf}")).await, 5);
    }
    check_log(fixture).await;
}

pub async fn long_streams_reload_from_a_base(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    let mut units = 0;
    for round in 0..40 {
        for process in [&ours, &theirs] {
            // Two at once: the first is in conflict with the other process, the second chained on it.
            let pending = [40, 11].map(|many| {
                process
                    .shelves
                    .submit("mug", request(ShelfCommand::PutOneByOne(many)))
            });
            for pending in pending {
                pending.await.unwrap();
            }
            units += 51;
        }
        if round % 10 == 0 {
            assert_eq!(ours.units("mug").await, units);
        }
    }
    assert_eq!(
        (ours.units("mug").await, theirs.units("mug").await),
        (units, units)
    );
    assert_eq!(Process::start(fixture).await.units("mug").await, units);
    assert_eq!(i64::try_from(check_log(fixture).await.len()), Ok(units));
}

pub async fn a_panic_costs_one_command_only(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    let before = process.shelves.submit("mug", request(ShelfCommand::Put(1)));
    let panics = process.shelves.submit("mug", request(ShelfCommand::Panic));
    let after = process.shelves.submit("mug", request(ShelfCommand::Put(1)));
    before.await.unwrap();
    assert!(matches!(
        panics.await,
        Err(ExecuteError::Unavailable(Unavailable::Defect(_)))
    ));
    assert_eq!(after.await.unwrap().version, Version(2));
}

pub async fn an_event_that_is_too_large_costs_one_command_only(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    let mut large = request(ShelfCommand::Put(1));
    large.traceparent = Some("x".repeat(LogOptions::MAX_EVENT_BYTES).into());
    let before = process.shelves.submit("mug", request(ShelfCommand::Put(1)));
    let refused = process.shelves.submit("mug", large);
    let after = process.shelves.submit("mug", request(ShelfCommand::Put(1)));
    before.await.unwrap();
    assert!(matches!(
        refused.await,
        Err(ExecuteError::Unavailable(Unavailable::TooLarge { .. }))
    ));
    assert_eq!(after.await.unwrap().version, Version(2));
    assert_eq!(process.units("mug").await, 2);
}

pub async fn a_full_house_sheds_and_lets_the_patient_wait(fixture: &impl Fixture) {
    let options = ExecutorOptions {
        commands_in_house: 4,
        ..ExecutorOptions::default()
    };
    let process = Process::start_with(fixture, &options).await;
    let submitted: Vec<_> = (0..64)
        .map(|_| process.shelves.submit("mug", request(ShelfCommand::Put(1))))
        .collect();
    let (mut accepted, mut shed) = (0, 0);
    for pending in submitted {
        match pending.await {
            Ok(_) => accepted += 1,
            Err(ExecuteError::Overloaded) => shed += 1,
            Err(other) => panic!("neither accepted nor shed: {other}"),
        }
    }
    assert!(accepted >= 4 && shed > 0, "{accepted} accepted, {shed} shed");
    let mut enqueued = Vec::new();
    for _ in 0..64 {
        enqueued.push(
            process
                .shelves
                .enqueue("mug", request(ShelfCommand::Put(1)))
                .await,
        );
    }
    for pending in enqueued {
        pending.await.unwrap();
    }
    assert_eq!(process.units("mug").await, accepted + 64);
}
