//! What readers are promised.

use cqrs_es::{AggregateContext as _, EventStore as _};
use event_schemas::{AggregateType, Event, InventoryEvent, Position, Reference, Version};

use super::{
    Fixture, OLD_VERSION, Process, Shelf, ShelfCommand, check_log, eventually, old_deliveries, old_delivery,
    order, request, stream,
};
use crate::{
    AccessError, CqrsStore, ExecuteError, Executor, ExecutorOptions, Log, LogEntry, LogOptions, ReadError,
    Unavailable, UnreadableReason,
};

async fn read_all(log: &Log, page: usize) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    loop {
        let after = entries.last().map_or(Position(0), LogEntry::position);
        let next = log.read(after, page).await.unwrap();
        if next.is_empty() {
            return entries;
        }
        entries.extend(next);
    }
}

pub async fn memory_and_store_give_the_same_events(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    for number in 0..50 {
        process.run("mug", ShelfCommand::PutOneByOne(3)).await.unwrap();
        let mut caused = request(ShelfCommand::Reserve(order(number), 2));
        caused.causation = Some(event_schemas::EventId {
            stream: stream("cup"),
            version: Version(7),
        });
        caused.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        process.shelves.submit("cup", caused).await.unwrap();
    }
    let remembered = read_all(&process.log, 7).await;
    let stored = read_all(&fixture.open().await, 11).await;
    assert_eq!(remembered.len(), 200);
    assert_eq!(remembered, stored);
    let after = process
        .log
        .read_stream(&stream("mug"), Version(10), Some(Version(20)))
        .await
        .unwrap();
    let versions: Vec<_> = after.iter().map(|event| event.version.0).collect();
    assert_eq!(versions, (11..=20).collect::<Vec<_>>());
}

pub async fn a_reader_misses_nothing_while_others_write(fixture: &impl Fixture) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 200;
    let processes = [Process::start(fixture).await, Process::start(fixture).await];
    // One reads what its own process writes, one is a third process.
    let readers = [processes[0].log.clone(), fixture.open().await].map(|log| {
        tokio::spawn(async move {
            let mut head = log.watch();
            let mut last = Position(0);
            while last < Position(WRITERS * EACH) {
                head.wait_for(|head| *head > last).await.unwrap();
                for entry in log.read(last, 64).await.unwrap() {
                    assert_eq!(entry.position(), Position(last.0 + 1), "a reader skipped");
                    last = entry.position();
                }
            }
        })
    });
    let writers = (0..WRITERS as usize).map(|writer| {
        let shelves = processes[writer % 2].shelves.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                let shelf = format!("shelf-{writer}");
                shelves
                    .submit(shelf.as_str(), request(ShelfCommand::Put(1)))
                    .await
                    .unwrap();
            }
        })
    });
    for task in writers.collect::<Vec<_>>().into_iter().chain(readers) {
        task.await.unwrap();
    }
    check_log(fixture).await;
}

pub async fn commits_of_another_process_are_seen(fixture: &impl Fixture) {
    let (ours, theirs) = (fixture.open().await, Process::start(fixture).await);
    theirs.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let mut head = ours.watch();
    tokio::time::timeout(
        std::time::Duration::from_secs(20),
        head.wait_for(|head| *head == Position(1)),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(ours.read(Position(0), 10).await.unwrap().len(), 1);
}

pub async fn what_cannot_be_read_does_not_hide_the_rest(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    for shelf in ["a", "b", "c", "d"] {
        process.run(shelf, ShelfCommand::Put(1)).await.unwrap();
    }
    fixture
        .tamper(Position(2), "1.0", r#"{"StockReceived":{"quantity":"many"}}"#)
        .await;
    fixture
        .tamper(Position(3), "9.0", r#"{"StockReceived":{"quantity":"many"}}"#)
        .await;
    let log = fixture.open().await;
    let entries = log.read(Position(0), 10).await.unwrap();
    let readable: Vec<_> = entries.iter().map(|entry| entry.event().is_some()).collect();
    assert_eq!(readable, [true, false, false, true]);
    let positions: Vec<_> = entries.iter().map(|entry| entry.position().0).collect();
    assert_eq!(positions, [1, 2, 3, 4]);
    let (LogEntry::Unreadable(poison), LogEntry::Unreadable(newer)) = (&entries[1], &entries[2]) else {
        panic!("both are unreadable");
    };
    assert!(matches!(poison.reason, UnreadableReason::Poison(_)));
    assert_eq!((poison.stream(), poison.version), (Some(stream("b")), Version(1)));
    assert_eq!(newer.reason, UnreadableReason::Newer);
    let of_b = log.read_stream(&stream("b"), Version(0), None).await;
    assert!(matches!(of_b, Err(ReadError::Unreadable(event)) if *event == **poison));
    assert_eq!(
        log.read_stream(&stream("d"), Version(0), None)
            .await
            .unwrap()
            .len(),
        1
    );
}

pub async fn an_aggregate_that_cannot_be_read_stops_alone(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    process.run("bad", ShelfCommand::Put(1)).await.unwrap();
    process.run("good", ShelfCommand::Put(1)).await.unwrap();
    process.run("newer", ShelfCommand::Put(1)).await.unwrap();
    fixture.tamper(Position(1), "1.0", "{}").await;
    fixture.tamper(Position(3), "9.0", "{}").await;
    let process = Process::start(fixture).await;
    let outcome = process.run("bad", ShelfCommand::Put(1)).await;
    let Err(ExecuteError::Unavailable(error @ Unavailable::Unreadable(_))) = outcome else {
        panic!("it must not be decided on: {outcome:?}");
    };
    assert!(!error.retryable());
    let outcome = process.run("newer", ShelfCommand::Put(1)).await;
    let Err(ExecuteError::Unavailable(error @ Unavailable::Unreadable(_))) = outcome else {
        panic!("nor on a part of what happened: {outcome:?}");
    };
    assert!(error.retryable(), "by whoever can read it");
    assert!(matches!(
        process.shelves.load("bad").await,
        Err(AccessError::Unavailable(_))
    ));
    assert_eq!(
        process.run("good", ShelfCommand::Put(1)).await.unwrap().version,
        Version(2)
    );
}

pub async fn a_log_keeps_its_name_and_counts_its_epochs(fixture: &impl Fixture) {
    let log = fixture.open().await;
    let identity = log.identity();
    assert_eq!(fixture.open().await.identity(), identity);
    let next = log.begin_epoch().await.unwrap();
    assert_eq!((next.log_id, next.epoch), (identity.log_id, identity.epoch + 1));
    assert_eq!(log.identity(), next);
    eventually("another process sees it too", async || {
        fixture.open().await.identity() == next
    })
    .await;
}

/// By position, by slice, by stream, from a raw row, into an aggregate, through cqrs-es: the same event. Only what is raw stays as
/// it was written.
pub async fn an_older_version_is_upcast_on_every_way(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    fixture.tamper(Position(1), OLD_VERSION, &old_delivery(7)).await;

    let without = fixture.open().await;
    let entries = without.read(Position(0), 10).await.unwrap();
    let readable: Vec<_> = entries.iter().map(|entry| entry.event().is_some()).collect();
    assert_eq!(readable, [false, true], "nothing but the step reads it");

    let log = fixture
        .open_with(LogOptions {
            upcasters: old_deliveries(),
            ..LogOptions::default()
        })
        .await;
    let upcast = Event::from(InventoryEvent::StockReceived {
        quantity: 7,
        reference: Reference::new("before 1.0").unwrap(),
    });
    let entries = log.read(Position(0), 10).await.unwrap();
    assert_eq!(entries[0].event().unwrap().event, upcast);
    let slice = log
        .read_slice(Position(0), Position(2), &[AggregateType::Inventory])
        .await
        .unwrap();
    assert_eq!(slice.entries, entries, "for a rebuild");
    let of_stream = log.read_stream(&stream("mug"), Version(0), None).await.unwrap();
    assert_eq!(of_stream[0].event, upcast);
    let raw = log.read_raw(Position(0), 1).await.unwrap();
    assert_eq!(
        (raw[0].event_version.as_str(), raw[0].payload.as_str()),
        (OLD_VERSION, old_delivery(7).as_str())
    );
    assert_eq!(log.decode(&raw[0]), entries[0]);

    let shelves = Executor::<Shelf>::start(&log, &ExecutorOptions::default());
    let units = shelves.with_state("mug", |shelf: &Shelf, _| shelf.units).await;
    assert_eq!(units.unwrap(), 8);
    let store = CqrsStore::<Shelf>::new(&log);
    let events = store.load_events("mug").await.unwrap();
    assert_eq!(Event::from(events[0].payload.clone()), upcast);
    let mut loaded = store.load_aggregate("mug").await.unwrap();
    assert_eq!(loaded.aggregate().units, 8);
}
