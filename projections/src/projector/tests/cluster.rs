//! Several processes at once, and servers that go away.

use event_bus::Partitioning;

use super::*;
use crate::ViewsCluster;
use crate::store::Mongo;
use crate::testing::{Wire, address, mongo, mongo_at, redis, server};

const PARTITIONING: Partitioning = Partitioning::Kafka { partitions: 3 };

async fn shop(mongo: Mongo) -> Option<Shop> {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ViewsCluster {
        mongo,
        redis: redis()?,
        database: file(&dir).into(),
        partitioning: PARTITIONING,
    };
    Some(Shop::on(Stores::Cluster(cluster, dir)).await)
}

/// Runs `case` with a database of its own, which is gone afterwards, come what may.
pub(super) async fn with_shop<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Shop) -> F) {
    let Some(mongo) = mongo().await else { return };
    let Some(shop) = shop(mongo.clone()).await else {
        return;
    };
    let outcome = tokio::spawn(case(shop)).await;
    mongo.drop_database().await.unwrap();
    outcome.unwrap();
}

/// Race 15: each process has some partitions; timelines and orders draw on those of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_fold_halves_at_once_store_what_one_would() {
    with_shop(|shop| async move {
        let log = Story::tell(31, 12).log(&mut Dice(31));
        let half = |index: usize| {
            let all = PARTITIONING.all();
            let ours = move |stream: &StreamId| {
                let partition = PARTITIONING.of(stream);
                all.iter().position(|key| *key == partition).unwrap() % 2 == index
            };
            log.iter()
                .filter(|event| ours(&event.stream))
                .cloned()
                .collect::<Vec<_>>()
        };
        let (one, two) = (half(0), half(1));
        assert!(!one.is_empty() && !two.is_empty());
        let mut processes = Vec::new();
        for events in [one, two] {
            let views = shop.stores.open(LOG).await;
            let mut runner = runner(&views).await;
            processes.push(tokio::spawn(async move {
                for batch in events.chunks(5) {
                    let mut checkpoint = Checkpoint::start(LOG);
                    for event in batch {
                        checkpoint.advance(PARTITIONING.of(&event.stream), event.position);
                    }
                    // Contended at worst: then the batch comes again.
                    while let Err(error) = runner.handle(entries(batch), checkpoint.clone()).await {
                        assert!(
                            matches!(error, crate::projector::runner::ProjectError::Contended),
                            "{error}"
                        );
                    }
                }
            }));
        }
        for process in processes {
            process.await.unwrap();
        }
        assert_stored(&shop.views, &log).await;
        // Everything that was stored is accounted for, each partition for itself.
        let orders = shop.views.orders().current();
        orders.refresh().await.unwrap();
        let reached = orders.reached.borrow().clone();
        for event in &log {
            assert!(reached.position_of(PARTITIONING.of(&event.stream)) >= event.position);
        }
    })
    .await;
}

/// The connection to MongoDB breaks at any byte of a batch, on its way there or back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_cut_in_the_middle_comes_again_and_nothing_is_lost() {
    let Some(url) = server("OMISYS_TEST_MONGODB_URL") else {
        return;
    };
    let Some(direct) = mongo().await else { return };
    let wire = Wire::to(address(&url)).await;
    let url = format!(
        "mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=300&connectTimeoutMS=300",
        wire.port
    );
    let mongo = mongo_at(url, direct.name()).await;
    let shop = shop(mongo).await.unwrap();
    let log = Story::tell(41, 6).log(&mut Dice(41));
    let (mut runner, mut dice) = (shop.runner().await, Dice(41));
    let (mut done, mut cuts) = (0, 0);
    while done < log.len() {
        let end = (done + 40).min(log.len());
        let batch = || entries(&log[done..end]);
        wire.cut_after(i64::try_from(dice.roll(60_000)).unwrap());
        match runner.handle(batch(), at(end as u64)).await {
            Ok(()) => {}
            Err(error) => {
                cuts += 1;
                assert!(
                    matches!(&error, crate::projector::runner::ProjectError::View(error) if error.retryable()),
                    "{error}"
                );
                wire.mend();
                let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
                while let Err(error) = runner.handle(batch(), at(end as u64)).await {
                    assert!(tokio::time::Instant::now() < deadline, "{error}");
                }
            }
        }
        done = end;
    }
    wire.mend();
    assert!(cuts > 0);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while shop.views.check().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert_stored(&shop.views, &log).await;
    direct.drop_database().await.unwrap();
}

/// A reader in another process: through the cache, as fresh as it asks, told of changes, and never back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_reads_what_was_written() {
    with_shop(|shop| async move {
        let log = Story::tell(9, 1).log(&mut Dice(9));
        let orders = of_types(&log, &[AggregateType::Order]);
        let id: DocId = order_id(1).into();
        let elsewhere = shop.stores.open(LOG).await;
        let reader = elsewhere.orders();
        let mut runner = shop.runner().await;
        let soon = || tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut watch = reader.watch(&id);
        let mut watched = 0;
        for event in &orders {
            let point = crate::ConsistencyPoint {
                stream: event.stream.clone(),
                version: event.version,
                position: event.position,
            };
            let late = reader
                .get_at_least(&id, &point, tokio::time::Instant::now())
                .await;
            assert!(matches!(late, Err(crate::WaitError::TimedOut { .. })), "{late:?}");
            let late = reader.reach(&point, tokio::time::Instant::now()).await;
            assert!(matches!(late, Err(crate::WaitError::TimedOut { .. })), "{late:?}");
            // Both wait while it is written.
            let waiting = {
                let (reader, id, point, deadline) = (reader.clone(), id.clone(), point.clone(), soon());
                tokio::spawn(async move {
                    reader.reach(&point, deadline).await.unwrap();
                    reader.get_at_least(&id, &point, deadline).await.unwrap().unwrap()
                })
            };
            let mut checkpoint = Checkpoint::start(LOG);
            checkpoint.advance(PARTITIONING.of(&event.stream), event.position);
            runner
                .handle(entries(&[Arc::clone(event)]), checkpoint)
                .await
                .unwrap();
            let served = waiting.await.unwrap();
            assert_eq!(served.doc.version, event.version);
            // The cache shows no less from now on.
            for _ in 0..3 {
                let again = reader.get(&id).await.unwrap().unwrap();
                assert_eq!((again.rev, again.json()), (served.rev, served.json()));
                let many = reader
                    .get_many(&[id.clone(), DocId::from("nobody"), id.clone()])
                    .await
                    .unwrap();
                let revs: Vec<_> = many
                    .iter()
                    .map(|served| served.as_ref().map(|served| served.rev))
                    .collect();
                assert_eq!(revs, [Some(served.rev), None, Some(served.rev)]);
            }
            tokio::time::timeout_at(soon(), watch.changed()).await.unwrap();
            watched += 1;
        }
        assert_eq!(watched, orders.len());
        let cart = crate::ConsistencyPoint {
            stream: StreamId::new(AggregateType::Cart, "x"),
            version: Version(1),
            position: Position(1),
        };
        let wrong = reader.reach(&cart, soon()).await;
        assert!(matches!(wrong, Err(crate::WaitError::NotRead { .. })));
    })
    .await;
}

/// A partition moves between two processes, with a parked aggregate in it.
#[tokio::test]
async fn what_one_process_parks_another_holds_back_until_it_is_healed() {
    with_shop(|shop| async move {
        let log = Story::tell(11, 3).log(&mut Dice(11));
        let order = StreamId::new(AggregateType::Order, order_id(2));
        let events: Vec<_> = log
            .iter()
            .filter(|event| event.stream == order)
            .cloned()
            .collect();
        assert!(events.len() > 3);
        let (here, there) = (shop.stores.open(LOG).await, shop.stores.open(LOG).await);
        let (mut here, mut there) = (runner(&here).await, runner(&there).await);
        let letters = |runner: &Runner| {
            let mut letters = runner.letters().into_iter();
            letters.find(|(view, _)| *view == "orders").unwrap().1
        };
        // The first event is missing.
        here.handle(entries(&events[1..2]), at(0)).await.unwrap();
        assert!(letters(&there).none_parked());
        there.reassigned().await.unwrap();
        there.handle(entries(&events[2..3]), at(0)).await.unwrap();
        let scope = order.to_string();
        let parked = letters(&here).show(&scope).await.unwrap();
        let versions: Vec<_> = parked.iter().map(|letter| letter.event_id.version).collect();
        assert_eq!(versions, [Version(2), Version(3)]);

        here.redo("orders", Arc::clone(&events[0])).await.unwrap();
        while let Some(letter) = letters(&here).first(&scope).await.unwrap() {
            let index = usize::try_from(letter.event_id.version.0).unwrap() - 1;
            here.redo("orders", Arc::clone(&events[index])).await.unwrap();
            letters(&here).resolved(&letter).await.unwrap();
        }
        // It believes that the order is still parked, and looks before it parks more of it.
        assert!(letters(&there).is_parked(&scope));
        there.handle(entries(&events[3..]), at(0)).await.unwrap();
        assert!(letters(&here).show(&scope).await.unwrap().is_empty());
        assert_eq!(stored(shop.views.orders()).await, expected::<Orders>(&events));
    })
    .await;
}
