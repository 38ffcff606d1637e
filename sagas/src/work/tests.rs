use std::collections::HashSet;

use database::testing::TestDatabase;

use super::*;

const ROWS: usize = 200;

async fn add_rows(work: &Work) {
    let add = work.database().write(|session| {
        for row in 0..ROWS {
            session.execute(
                EFFECTS.insert,
                &params!["payment", format!("p-{row}"), 1, "capture", row, 5, false],
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
