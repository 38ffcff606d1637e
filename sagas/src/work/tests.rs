use std::collections::HashSet;

use database::testing::TestDatabase;
use event_schemas::{ActorKind, AggregateType, CommandId, CorrelationId, Metadata, OrderEvent, derive_uuid};

use super::*;

const ROWS: usize = 200;

async fn add_rows(work: &Work) {
    let add = work.database().write(|session| {
        for row in 0..ROWS {
            session.execute(
                "INSERT INTO effects VALUES (?1, ?2, 1, ?3, ?4, 5, 0, 0)",
                &params!["payment", format!("p-{row}"), "capture", row],
            )?;
        }
        Ok::<_, DatabaseError>(())
    });
    add.await.unwrap();
}

/// Eight workers, two handles, one heap of rows.
async fn no_row_is_given_to_two_workers(test: TestDatabase) {
    let (one, other) = (test.database().clone(), test.reopen().await);
    let one = Work::open(&one).await.unwrap();
    let other = Work::open(&other).await.unwrap();
    add_rows(&one).await;
    let (now, until) = (
        Timestamp::from_microsecond(10).unwrap(),
        Timestamp::from_microsecond(1_000).unwrap(),
    );
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let work = if worker % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        workers.spawn(async move {
            let mut leased = Vec::new();
            loop {
                let due = work.lease(now, until, 7).await.unwrap();
                if due.items.is_empty() {
                    assert_eq!(due.next_at, Some(1_000));
                    return leased;
                }
                leased.extend(due.items.into_iter().map(|item| item.event));
            }
        });
    }
    let mut leased = Vec::new();
    while let Some(items) = workers.join_next().await {
        leased.extend(items.unwrap());
    }
    assert_eq!(leased.len(), ROWS);
    assert_eq!(leased.into_iter().collect::<HashSet<_>>().len(), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_given_to_two_workers_on_sqlite() {
    no_row_is_given_to_two_workers(TestDatabase::sqlite()).await;
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_given_to_two_workers_on_postgresql() {
    if let Some(test) = TestDatabase::postgres().await {
        no_row_is_given_to_two_workers(test).await;
    }
}

/// The event `version` of the order `id`.
fn recorded(id: &str, version: u64) -> Arc<RecordedEvent> {
    let command_id = CommandId::from_uuid(derive_uuid("test", &[]));
    Arc::new(RecordedEvent {
        position: Position(version),
        stream: StreamId::new(AggregateType::Order, id),
        version: Version(version),
        event: OrderEvent::OrderReserved {}.into(),
        metadata: Metadata {
            actor_kind: ActorKind::System,
            actor_id: "test".into(),
            command: "Test".into(),
            command_id,
            correlation_id: CorrelationId::for_command(command_id),
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::MIN,
    })
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

async fn rows(work: &Work, table: Table) -> Vec<String> {
    let sql = format!(
        "SELECT aggregate_id, sequence, kind, next_attempt_at, leased FROM {} ORDER BY aggregate_id, sequence",
        table.sql().name
    );
    let read = work.database().read(move |session| {
        session.query(&sql, &[], |row| {
            let (id, sequence, kind): (String, u64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (due_at, leased): (i64, u32) = (row.get(3)?, row.get(4)?);
            Ok::<_, DatabaseError>(format!("{id}/{sequence} {kind} at {due_at} leased {leased}"))
        })
    });
    read.await.unwrap()
}

async fn store(work: &Work, changes: Vec<Change>, leased_until: Option<Timestamp>) -> Vec<WorkItem> {
    let write = work
        .database()
        .write(move |session| apply(session, &changes, leased_until));
    write.await.unwrap()
}

/// More than a statement takes, some of it twice, some of it cleared before or after it is added.
async fn a_batch_is_as_its_changes_one_by_one(test: TestDatabase) {
    let work = Work::open(test.database()).await.unwrap();
    let timer = |id: &str, version| Change::add(Table::Timers, &recorded(id, version), "deadline", at(7));
    let clear = |id: &str| Change::ClearTimers {
        stream: StreamId::new(AggregateType::Order, id),
        kind: "deadline",
    };
    let before = vec![timer("a", 1), timer("b", 1), timer("c", 1)];
    assert!(store(&work, before, Some(at(99))).await.is_empty());
    let many =
        (1..=100).map(|version| Change::add(Table::Effects, &recorded("e", version), "capture", at(8)));
    let mut changes = vec![
        timer("b", 1),
        timer("d", 1),
        clear("d"),
        clear("a"),
        clear("c"),
        timer("c", 2),
    ];
    changes.extend(many);
    let leased = store(&work, changes.clone(), Some(at(99))).await;
    let expected = ["b/1 deadline at 7 leased 0", "c/2 deadline at 7 leased 0"];
    assert_eq!(rows(&work, Table::Timers).await, expected);
    let versions: HashSet<u64> = leased.iter().map(|item| item.event.version.0).collect();
    assert_eq!((leased.len(), versions), (100, (1..=100).collect()));
    let effects = rows(&work, Table::Effects).await;
    assert_eq!(
        (effects.len(), &*effects[99]),
        (100, "e/100 capture at 99 leased 1")
    );
    // What comes again is nobody's: its first worker has it.
    assert!(store(&work, changes, Some(at(500))).await.is_empty());
    assert_eq!(rows(&work, Table::Effects).await, effects);

    // All at once; one of them is not waited for.
    let given_up = leased[0].clone();
    let abandoned = tokio::time::timeout(std::time::Duration::ZERO, work.done(&given_up));
    let _ = abandoned.await;
    let mut done = tokio::task::JoinSet::new();
    for item in leased.iter().filter(|item| item.event.version.0 % 2 == 0) {
        let (work, item) = (work.clone(), item.clone());
        done.spawn(async move { work.done(&item).await });
    }
    for outcome in done.join_all().await {
        outcome.unwrap();
    }
    let left = rows(&work, Table::Effects).await;
    let odd = (1..=99).step_by(2);
    let odd = odd.filter(|version| *version != given_up.event.version.0);
    assert_eq!(left.len(), odd.count(), "{left:?}");
    assert!(left.contains(&"e/99 capture at 99 leased 1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_as_its_changes_one_by_one_on_sqlite() {
    a_batch_is_as_its_changes_one_by_one(TestDatabase::sqlite()).await;
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_as_its_changes_one_by_one_on_postgresql() {
    if let Some(test) = TestDatabase::postgres().await {
        a_batch_is_as_its_changes_one_by_one(test).await;
    }
}

/// Several rows are found by their key, and the table is not read for them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_taken_out_by_their_key_on_sqlite() {
    let test = TestDatabase::sqlite();
    let work = Work::open(test.database()).await.unwrap();
    for (columns, of) in [
        (4, "(aggregate_type, aggregate_id, sequence, kind)"),
        (3, "(aggregate_type, aggregate_id, kind)"),
    ] {
        let (_, values) = in_statements(&[0; 4], columns).next().unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {}", delete_by(Table::Timers, of, &values));
        let params: Vec<database::Value<'static>> = vec![1.into(); 4 * columns];
        let plan = work
            .database()
            .read(move |session| session.query(&sql, &params, |row| row.get::<String>(3)));
        let plan = plan.await.unwrap();
        assert!(
            plan.iter().any(|step| step.starts_with("SEARCH timers")),
            "{plan:?}"
        );
    }
}
