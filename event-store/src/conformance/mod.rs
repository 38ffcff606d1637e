//! The suite that every adapter of the log has to pass, and the small aggregate that it runs on.
//!
//! An adapter's test gives a [`Fixture`] and calls [`crate::conformance_suite!`], which makes one test of each case.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests"
)]

pub mod journal;
mod old;
pub mod racing;
pub mod reading;
pub mod receipts;
mod shelf;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_schemas::{
    Actor, ActorKind, CommandId, CorrelationId, Metadata, OrderId, Position, StreamId, Version,
};
use uuid::Uuid;

pub use old::{OLD_VERSION, old_deliveries, old_delivery};
pub use shelf::{Shelf, ShelfCommand, TooFew, put};

use crate::{
    Append, CommandRequest, ExecuteError, Executor, ExecutorOptions, Fingerprint, Fingerprints, Log,
    LogOptions, RawEvent, Receipt,
};

/// One log, fresh for each test, and the means to treat it badly.
pub trait Fixture: Send + Sync {
    /// A handle as another process has it: with its own writer, cache and memory of recent events.
    fn open(&self) -> impl Future<Output = Log> + Send {
        self.open_with(LogOptions::default())
    }

    /// As [`Fixture::open`], with options of the case's own.
    fn open_with(&self, options: LogOptions) -> impl Future<Output = Log> + Send;

    /// Overwrites what is stored at `position`, as a bad disk or a newer binary would.
    fn tamper(
        &self,
        position: Position,
        event_version: &str,
        payload: &str,
    ) -> impl Future<Output = ()> + Send;
}

/// A test of its own for each case of the suite, on the fixture that `$fixture` makes.
#[macro_export]
macro_rules! conformance_suite {
    ($fixture:expr) => {
        $crate::conformance_suite!(@journal $fixture;
            an_append_is_all_or_nothing,
            positions_are_contiguous_from_one,
            nothing_chained_on_a_stale_append_takes_its_sequence,
            a_duplicate_inside_a_chain_of_three_breaks_it,
            a_duplicate_without_events_leaves_its_chain_whole,
            a_duplicate_is_told_from_a_conflict,
            a_stale_version_inside_a_chain_of_three_breaks_it,
            an_empty_append_needs_its_version_too,
            what_this_process_stored_last_may_not_be_the_latest,
            a_version_from_the_future_leaves_no_gap,
            a_question_is_answered_behind_what_was_asked_before,
            an_event_that_is_too_large_is_refused_and_breaks_its_chain,
        );
        $crate::conformance_suite!(@racing $fixture;
            two_units_and_an_adjustment_by_another_process,
            a_repeated_command_in_the_middle_of_three,
            a_refusal_is_never_answered_from_a_stale_cache,
            a_read_is_never_answered_from_a_stale_cache,
            a_no_op_is_never_answered_from_a_stale_cache,
            an_if_match_is_never_compared_with_a_stale_cache,
            two_executors_share_the_last_units,
            commands_on_one_aggregate_run_in_the_order_of_the_calls,
            commands_that_come_back_keep_their_place,
            an_aggregate_believed_new_is_not_written_over,
            eviction_loses_nothing,
            long_streams_reload_from_a_base,
            a_panic_costs_one_command_only,
            an_event_that_is_too_large_costs_one_command_only,
            a_full_house_sheds_and_lets_the_patient_wait,
        );
        $crate::conformance_suite!(@receipts $fixture;
            a_repeat_gets_the_first_receipt,
            fifty_repeats_at_once_have_one_outcome,
            repeats_in_two_processes_have_one_outcome,
            another_body_under_the_same_id_is_told_apart,
            an_accepted_command_without_events_leaves_a_receipt,
            a_refusal_leaves_nothing,
            a_refused_repeat_finds_its_receipt,
            receipts_are_found_behind_commands_on_their_way,
            everything_acknowledged_survives_a_restart,
            hundreds_of_repeats_among_new_commands_are_told_apart,
            a_process_that_dies_in_the_middle_leaves_a_whole_log,
        );
        $crate::conformance_suite!(@reading $fixture;
            memory_and_store_give_the_same_events,
            a_reader_misses_nothing_while_others_write,
            commits_of_another_process_are_seen,
            what_cannot_be_read_does_not_hide_the_rest,
            an_aggregate_that_cannot_be_read_stops_alone,
            a_log_keeps_its_name_and_counts_its_epochs,
            an_older_version_is_upcast_on_every_way,
        );
    };
    (@$module:ident $fixture:expr; $($case:ident),+ $(,)?) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$module::$case(&$fixture).await;
                }
            )+
        }
    };
}

/// A process: a log with an executor.
pub struct Process {
    pub log: Log,
    pub shelves: Executor<Shelf>,
}

impl Process {
    pub async fn start(fixture: &impl Fixture) -> Self {
        Self::start_with(fixture, &ExecutorOptions::default()).await
    }

    /// Decides again as often as others make it necessary: nobody goes away without an answer.
    pub async fn start_patient(fixture: &impl Fixture) -> Self {
        let options = ExecutorOptions {
            max_retries: 10_000,
            ..ExecutorOptions::default()
        };
        Self::start_with(fixture, &options).await
    }

    pub async fn start_with(fixture: &impl Fixture, options: &ExecutorOptions) -> Self {
        let log = fixture.open().await;
        let shelves = Executor::start(&log, options);
        Self { log, shelves }
    }

    /// Runs a command under an id of its own.
    pub async fn run(&self, id: &str, command: ShelfCommand) -> Result<Receipt, ExecuteError<TooFew>> {
        self.shelves.submit(id, request(command)).await
    }

    /// The units on the shelf.
    pub async fn units(&self, id: &str) -> i64 {
        self.shelves
            .with_state(id, |shelf: &Shelf, _| shelf.units)
            .await
            .unwrap()
    }
}

/// A command id that no one else has.
pub fn command_id() -> CommandId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    CommandId::from_uuid(Uuid::from_u64_pair(
        u64::from(std::process::id()),
        LAST.fetch_add(1, Ordering::Relaxed),
    ))
}

/// An order's id.
pub fn order(number: u32) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(u128::from(number)))
}

/// `command` under an id of its own.
pub fn request(command: ShelfCommand) -> CommandRequest<ShelfCommand> {
    request_as(command_id(), command)
}

/// `command` under `id`.
pub fn request_as(id: CommandId, command: ShelfCommand) -> CommandRequest<ShelfCommand> {
    CommandRequest::new(
        id,
        Actor {
            kind: ActorKind::Staff,
            id: "someone".into(),
        },
        command,
    )
}

/// The stream of a shelf.
pub fn stream(shelf: &str) -> StreamId {
    StreamId::new(event_schemas::AggregateType::Inventory, shelf)
}

/// Puts `units` on `shelf`, one event each, decided on `expected`.
pub fn append(shelf: &str, expected: u64, units: usize) -> Append {
    append_as(command_id(), shelf, expected, units)
}

/// As [`append`], under `id`.
pub fn append_as(id: CommandId, shelf: &str, expected: u64, units: usize) -> Append {
    Append {
        stream: stream(shelf),
        expected: Version(expected),
        events: vec![put(1).into(); units],
        metadata: Metadata {
            actor_kind: ActorKind::System,
            actor_id: "suite".into(),
            command: "Put".into(),
            command_id: id,
            correlation_id: CorrelationId::for_command(id),
            causation_id: None,
            traceparent: None,
        },
        fingerprint: None,
    }
}

/// The fingerprints of a body under the named keys, the current one first.
pub fn fingerprints(body: u8, keys: &[&str]) -> Fingerprints {
    let mut all = keys.iter().map(|key| {
        let mut mac = [body; 32];
        mac[..key.len()].copy_from_slice(key.as_bytes());
        Fingerprint {
            key_id: (*key).into(),
            mac,
        }
    });
    let current = all.next().unwrap();
    Fingerprints::new(current, all)
}

/// Reads the log up to its head, checks that positions and every stream's sequences are contiguous from 1 and that
/// nothing stands twice, and gives it back.
pub async fn check_log(fixture: &impl Fixture) -> Vec<RawEvent> {
    let log = fixture.open().await;
    // Others may still be writing: what comes behind this head is not looked at.
    let head = log.head().await.unwrap().0 as usize;
    let mut events: Vec<RawEvent> = Vec::new();
    while events.len() < head {
        let page = log.read_raw(Position(events.len() as u64), 1_000).await.unwrap();
        assert!(!page.is_empty(), "the head is the last event's position");
        events.extend(page);
    }
    events.truncate(head);
    let mut versions: HashMap<(&str, &str), u64> = HashMap::new();
    for (event, position) in events.iter().zip(1..) {
        assert_eq!(event.position, Position(position), "positions have no gap");
        let version = versions
            .entry((&event.aggregate_type, event.aggregate_id.as_str()))
            .or_default();
        *version += 1;
        assert_eq!(
            event.version,
            Version(*version),
            "the sequences of {} have no gap",
            event.aggregate_id
        );
    }
    if head > 0 {
        let beyond = log.read_raw(Position(head as u64), 1).await.unwrap();
        let now = log.head().await.unwrap();
        assert!(
            beyond.is_empty() || now.0 > head as u64,
            "nothing stands beyond the head"
        );
    }
    events
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
