//! Views that are folded again while they are read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_schemas::{Clock, ManualClock, Version};
use projections::{
    ConsistencyPoint, DropError, ProjectorState, Query, RebuildError, RebuildOptions, RebuildPhase, Rebuilds,
    Rebuilt, VIEW_NAMES, ViewError, Views,
};
use shop::{PATIENCE, Shop, eventually, order_paid, order_placed, order_stream, rename, rewrite, soon};
use sqlite_file::SqliteError;
use support::{Dice, Story, money, order_id, time};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// So little that every range of the log is stored and let go of.
fn forgetful(holder: &str) -> RebuildOptions {
    RebuildOptions {
        memory_bytes: 1,
        parallel: NonZeroUsize::new(3).unwrap(),
        checkpoint_events: NonZeroU64::new(100).unwrap(),
        ..RebuildOptions::new(holder)
    }
}

async fn rebuild(shop: &Shop, view: &str, options: &RebuildOptions) -> Result<Rebuilt, RebuildError> {
    let clock = Clock::Manual(ManualClock::new(time(0)));
    shop.views
        .rebuild(&shop.log, view, options, &clock, &watch::Sender::new(None))
        .await
}

async fn told(seed: u64, orders: u64) -> Shop {
    let mut shop = Shop::open().await;
    let events = Story::tell(seed, orders).log(&mut Dice(seed));
    shop.append_all(&events).await;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_rebuilt_to_what_it_was_and_read_from_the_new_generation() {
    let shop = told(1, 40).await;
    let _projector = shop.projector().await;
    shop.caught_up().await;
    for options in [RebuildOptions::new("roomy"), forgetful("forgetful")] {
        for view in VIEW_NAMES {
            let before = shop.views.known_progress();
            let before = before.iter().find(|progress| progress.view == view).unwrap();
            let rebuilt = rebuild(&shop, view, &options).await.unwrap();
            let found = rebuilt.comparison.as_ref().unwrap();
            assert!(found.equal() && rebuilt.serving, "{rebuilt:?}");
            assert_eq!(
                (found.compared, found.apart),
                (rebuilt.documents, 0),
                "{rebuilt:?}"
            );
            assert!(rebuilt.documents > 0);
            assert_eq!(rebuilt.generation, before.generation + 1);
            assert_eq!(rebuilt.events, shop.log.head().await.unwrap().0);
        }
        shop.assert_verified().await;
    }
    let progress = shop.views.progress().await.unwrap();
    assert!(
        progress.iter().all(|progress| progress.generation == 3),
        "{progress:?}"
    );
    // Race 19: nothing that was cached or tagged of an old generation passes for the new one's.
    let order = shop
        .views
        .orders()
        .get(&order_id(1).into())
        .await
        .unwrap()
        .unwrap();
    assert!(order.etag().starts_with("\"3."), "{}", order.etag());
}

/// Race 18, with everything at once: writers, readers with and without a point to reach, lists, a process that reads and
/// does not know of the rebuild, and three rebuilds of the view that all of them read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_fails_or_goes_back_while_a_view_is_rebuilt_under_load() {
    const ORDERS: u64 = 150;
    let mut shop = Shop::open().await;
    let projector = shop.projector().await;
    let elsewhere = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    let ending = CancellationToken::new();
    for views in [shop.views.clone(), elsewhere.clone()] {
        let (log, cancel) = (shop.log.clone(), ending.clone());
        tokio::spawn(async move { views.follow_generations(&log, cancel).await });
    }
    let feeding =
        projections::Projector::start(&shop.log, &elsewhere, shop::clock(), ending.child_token()).await;
    let feeding = feeding.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for (views, seed) in [(&shop.views, 1), (&shop.views, 2), (&elsewhere, 3)] {
        let (views, done) = (views.clone(), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let mut dice = Dice(seed);
            let mut seen = vec![Version(0); ORDERS as usize + 1];
            let (mut listed, mut reads) = (0, 0_u64);
            while !done.load(Ordering::Relaxed) {
                let number = 1 + dice.roll(ORDERS);
                let found = views.orders().get(&order_id(number).into()).await.unwrap();
                let version = found.map_or(Version(0), |order| order.doc.version);
                let before = &mut seen[usize::try_from(number).unwrap()];
                assert!(version >= *before, "order {number}: {version} after {before}");
                *before = version;
                if reads.is_multiple_of(20) {
                    let now = views.orders().find(&Query::new(100)).await.unwrap().items.len();
                    assert!(now >= listed, "{now} orders after {listed}");
                    listed = now;
                }
                reads += 1;
            }
            reads
        }));
    }
    let rebuilding = {
        let (views, log, done) = (shop.views.clone(), shop.log.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let clock = Clock::Manual(ManualClock::new(time(0)));
            let mut rebuilt = 0;
            while rebuilt < 3 || !done.load(Ordering::Relaxed) {
                let options = RebuildOptions::new("test");
                let progress = watch::Sender::new(None);
                let outcome = views
                    .rebuild(&log, "orders", &options, &clock, &progress)
                    .await
                    .unwrap();
                assert!(outcome.serving, "{outcome:?}");
                rebuilt += 1;
            }
            rebuilt
        })
    };
    for number in 1..=ORDERS {
        let placed = shop
            .append(order_stream(number), Version(0), order_placed(number))
            .await;
        let paid = shop
            .append(order_stream(number), Version(1), order_paid(number, money(900)))
            .await;
        for receipt in [placed, paid] {
            let point = ConsistencyPoint {
                stream: order_stream(number),
                version: receipt.version,
                position: receipt.position,
            };
            let orders = shop.views.orders();
            let found = orders
                .get_at_least(&order_id(number).into(), &point, soon())
                .await
                .unwrap();
            assert!(found.unwrap().doc.version >= receipt.version);
        }
    }
    done.store(true, Ordering::Relaxed);
    let rebuilt = rebuilding.await.unwrap();
    assert!(rebuilt >= 3);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    shop.caught_up().await;
    for view in ["orders", "order_timeline", "sales"] {
        assert_eq!(shop.differences(view).await, []);
    }
    // The other process has heard of it, too.
    eventually(|| elsewhere.orders().generation() == 1 + rebuilt).await;
    let verified = elsewhere.verify(&shop.log, "orders").await.unwrap();
    assert!(verified.equal(), "{verified:?}");
    ending.cancel();
    feeding.stop().await;
    projector.stop().await;
}

/// Whoever only looks on must not compare the log of now with where the views stood when it was opened.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_compares_with_what_is_stored_now() {
    let mut shop = Shop::open().await;
    let onlooker = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    let verified = onlooker.verify(&shop.log, "orders").await.unwrap();
    assert_eq!(
        (verified.waiting, verified.documents, verified.different),
        (0, 1, 0)
    );
    projector.stop().await;
}

/// A reader that has not heard of the flip reads the old generation, which is fed; one that has reads nothing less.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_generation_is_fed_and_read_until_each_process_has_switched() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    let late = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    let rebuilt = rebuild(&shop, "orders", &RebuildOptions::new("test"))
        .await
        .unwrap();
    assert_eq!(
        (shop.views.orders().generation(), late.orders().generation()),
        (2, 1)
    );
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    let version = async |views: &Views| {
        let id = order_id(1).into();
        views.orders().get(&id).await.unwrap().unwrap().doc.version
    };
    timeout(PATIENCE, async {
        while version(&shop.views).await < Version(2) || version(&late).await < Version(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // It is told that it reads something else only once that has as much.
    assert_eq!(late.orders().generation(), 1);
    let feeding = projections::Projector::start(&shop.log, &late, shop::clock(), CancellationToken::new());
    let feeding = feeding.await.unwrap();
    late.adopt(&shop.log).await.unwrap();
    assert_eq!(late.orders().generation(), rebuilt.generation);
    assert_eq!(version(&late).await, Version(2));
    feeding.stop().await;
    projector.stop().await;
}

/// Whatever the store says is to be read: not before it has all that anybody can have read here.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_switches_to_a_generation_that_lacks_something() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    let reading = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    rebuild(&shop, "orders", &RebuildOptions::new("test"))
        .await
        .unwrap();
    projector.stop().await;
    let back = "UPDATE generations SET position = 0 WHERE view = 'orders' AND generation = 2";
    rename(&shop.views_file, back).await;
    reading.adopt(&shop.log).await.unwrap();
    assert_eq!(reading.orders().generation(), 1);
    // Fed, it has.
    let feeding = projections::Projector::start(&shop.log, &reading, shop::clock(), CancellationToken::new());
    let feeding = feeding.await.unwrap();
    timeout(PATIENCE, async {
        while reading.orders().generation() == 1 {
            reading.adopt(&shop.log).await.unwrap();
        }
    })
    .await
    .unwrap();
    feeding.stop().await;
}

/// Whenever a build is killed, the old generation serves, and the next one goes on with what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_killed_at_any_moment_goes_on() {
    let shop = told(5, 60).await;
    let _projector = shop.projector().await;
    shop.caught_up().await;
    let clock = ManualClock::new(time(0));
    let (mut killed, mut generation) = (0, None);
    // What a build that is dropped has under way may be stored after all, in the way of the next one; never of two.
    let mut in_the_way = false;
    for patience in 0_u64.. {
        let progress = watch::Sender::new(None);
        let options = forgetful(&format!("builder {patience}"));
        let manual = Clock::Manual(clock.clone());
        let build = shop
            .views
            .rebuild(&shop.log, "order_timeline", &options, &manual, &progress);
        // A little later each time.
        let Ok(outcome) = timeout(Duration::from_micros(200 * patience), build).await else {
            killed += 1;
            in_the_way = true;
            // What it had queued comes first.
            let queued = shop.views_file.write(|_| Ok::<_, SqliteError>(()));
            queued.await.unwrap();
            let rows = shop.views.generations().await.unwrap();
            let begun: Vec<_> = rows
                .iter()
                .filter(|row| row.view == "order_timeline" && row.generation > 1)
                .collect();
            assert!(begun.len() <= 1, "{begun:?}");
            if let Some(built) = begun.first().filter(|row| row.serving) {
                // Between the switch and its answer: it is built all the same.
                generation = Some(built.generation);
                break;
            }
            assert_eq!(shop.views.order_timeline().generation(), 1);
            let found = shop.views.order_timeline().get(&order_id(1).into()).await;
            assert!(found.unwrap().is_some());
            // Nobody takes over what may still be under way.
            if begun
                .first()
                .is_some_and(|row| row.stage == "building" && row.builder.is_some())
            {
                let early = rebuild(&shop, "order_timeline", &forgetful("too early")).await;
                assert!(matches!(early, Err(RebuildError::Busy)), "{early:?}");
            }
            clock.advance(Duration::from_secs(20));
            continue;
        };
        if in_the_way && matches!(outcome, Err(RebuildError::Busy)) {
            in_the_way = false;
            continue;
        }
        let rebuilt = outcome.unwrap();
        assert!(
            rebuilt.serving && rebuilt.comparison.as_ref().unwrap().equal(),
            "{rebuilt:?}"
        );
        generation = Some(rebuilt.generation);
        break;
    }
    assert!(killed > 3, "killed {killed} times");
    assert_eq!(generation, Some(2), "one generation, whoever built it");
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fold_is_parked_by_a_rebuild_as_by_a_projector() {
    let mut shop = told(7, 10).await;
    shop.append(order_stream(100), Version(0), order_placed(100))
        .await;
    let position = shop.log.head().await.unwrap();
    shop.append(order_stream(100), Version(1), order_paid(100, money(900)))
        .await;
    shop.append(order_stream(101), Version(0), order_placed(101))
        .await;
    assert!(position.0 > 1);
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPlaced\":{}}' WHERE position = (SELECT max(position) - 2 FROM events)",
    )
    .await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    for view in ["orders", "order_timeline"] {
        let rebuilt = rebuild(&shop, view, &RebuildOptions::new("test")).await.unwrap();
        assert!(rebuilt.serving, "{rebuilt:?}");
        assert_eq!(shop.differences(view).await, []);
    }
    assert!(
        shop.views
            .orders()
            .get(&order_id(100).into())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        shop.views
            .orders()
            .get(&order_id(101).into())
            .await
            .unwrap()
            .is_some()
    );
    // The projector feeds the new generation, and has its dead letters.
    eventually(|| {
        projector
            .dead_letters("orders")
            .is_some_and(|letters| letters.is_parked(&order_stream(100).to_string()))
    })
    .await;
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_event_stops_a_rebuild_and_the_old_generation_goes_on() {
    let mut shop = told(8, 3).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    shop.append(order_stream(100), Version(0), order_placed(100))
        .await;
    shop.caught_up().await;
    projector.stop().await;
    rewrite(
        &mut shop,
        "UPDATE events SET event_version = '9.0' WHERE position = (SELECT max(position) FROM events)",
    )
    .await;
    let refused = rebuild(&shop, "orders", &RebuildOptions::new("test")).await;
    assert!(matches!(refused, Err(RebuildError::Upgrade(_))), "{refused:?}");
    assert_eq!(shop.views.orders().generation(), 1);
    // Who reads no orders does not care.
    assert!(
        rebuild(&shop, "stock", &RebuildOptions::new("test"))
            .await
            .unwrap()
            .serving
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_blocks_the_flip_until_somebody_accepts_it() {
    let shop = told(9, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    shop.tamper(
        "UPDATE payments_g1 SET body = replace(body, '\"currency\":\"GBP\"', '\"currency\":\"EUR\"')
         WHERE rowid = (SELECT min(rowid) FROM payments_g1)",
    )
    .await;
    let options = RebuildOptions::new("test");
    let blocked = rebuild(&shop, "payments", &options).await.unwrap();
    let found = blocked.comparison.as_ref().unwrap();
    assert_eq!((blocked.serving, found.different), (false, 1), "{blocked:?}");
    let fields = &found.differences[0].fields;
    assert!(!fields.is_empty());
    assert!(
        fields.iter().all(|field| field.pointer.ends_with("/currency")
            && (field.old.as_deref(), field.new.as_deref()) == (Some("\"EUR\""), Some("\"GBP\""))),
        "{fields:?}"
    );
    assert_eq!(shop.views.payments().generation(), 1);
    // The same generation goes on, and is looked at again.
    let blocked = rebuild(&shop, "payments", &options).await.unwrap();
    assert_eq!((blocked.serving, blocked.generation), (false, 2));
    let accepting = RebuildOptions {
        accept_differences: true,
        ..options
    };
    let accepted = rebuild(&shop, "payments", &accepting).await.unwrap();
    assert_eq!((accepted.serving, accepted.generation), (true, 2));
    assert_eq!(shop.views.payments().generation(), 2);
    assert_eq!(shop.differences("payments").await, []);
    projector.stop().await;
}

/// A document that one generation lacks although it has seen everything is a difference, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_document_is_a_difference() {
    let shop = told(10, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    shop.tamper("DELETE FROM sales_g1 WHERE rowid = (SELECT min(rowid) FROM sales_g1)")
        .await;
    let blocked = rebuild(&shop, "sales", &RebuildOptions::new("test"))
        .await
        .unwrap();
    let found = blocked.comparison.unwrap();
    assert_eq!((blocked.serving, found.different, found.apart), (false, 1, 0));
    assert_eq!(found.differences[0].fields[0].old, None);
    projector.stop().await;
}

async fn of_another_version(shop: &mut Shop) {
    rename(
        &shop.views_file,
        "UPDATE generations SET version = version - 1 WHERE view IN ('orders', 'stock')",
    )
    .await;
    shop.views = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
}

fn rebuilds(shop: &Shop, automatic: bool) -> Rebuilds {
    Rebuilds {
        views: shop.views.clone(),
        log: shop.log.clone(),
        clock: shop::clock(),
        options: RebuildOptions::new("test"),
        automatic,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_another_version_is_read_as_it_was_and_rebuilt_behind_that() {
    let mut shop = told(11, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    of_another_version(&mut shop).await;
    assert_eq!(shop.views.outdated(), ["stock", "orders"]);
    shop.append(order_stream(100), Version(0), order_placed(100))
        .await;
    let projector = shop.projector().await;
    assert_eq!(projector.state(), ProjectorState::Running);
    let found = shop.views.orders().get(&order_id(1).into()).await.unwrap();
    assert!(found.is_some(), "it is read as it was");
    let cancel = CancellationToken::new();
    let running = tokio::spawn(rebuilds(&shop, true).run(cancel.clone()));
    eventually(|| shop.views.outdated().is_empty()).await;
    shop.caught_up().await;
    shop.assert_verified().await;
    assert!(
        shop.views
            .orders()
            .get(&order_id(100).into())
            .await
            .unwrap()
            .is_some()
    );
    cancel.cancel();
    running.await.unwrap();
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_automatic_rebuilds_a_view_waits_to_be_asked_for() {
    let mut shop = told(12, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    of_another_version(&mut shop).await;
    let cancel = CancellationToken::new();
    let running = tokio::spawn(rebuilds(&shop, false).run(cancel.clone()));
    let asked = shop.views.request_rebuild("orders").await.unwrap();
    assert_eq!(
        asked,
        shop.views.request_rebuild("orders").await.unwrap(),
        "it is under way"
    );
    assert!(matches!(
        shop.views.request_rebuild("nothing").await,
        Err(RebuildError::UnknownView(_))
    ));
    eventually(|| shop.views.orders().generation() == asked).await;
    assert_eq!(shop.views.outdated(), ["stock"]);
    cancel.cancel();
    running.await.unwrap();
}

/// What another version stored, in a form that this one cannot read, is told of as something that passes.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_form_are_soon_there_again() {
    let mut shop = told(13, 3).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    of_another_version(&mut shop).await;
    rename(
        &shop.views_file,
        "UPDATE orders_g1 SET body = '{\"sources\":[7]}'",
    )
    .await;
    let found = shop.views.orders().get(&order_id(1).into()).await;
    assert_eq!(found.unwrap_err(), ViewError::Rebuilding { view: "orders" });
    assert!(
        rebuild(&shop, "orders", &RebuildOptions::new("test"))
            .await
            .unwrap()
            .serving
    );
    assert!(
        shop.views
            .orders()
            .get(&order_id(1).into())
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_generations_are_fed_until_they_are_dropped() {
    let mut shop = told(14, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    rebuild(&shop, "orders", &RebuildOptions::new("test"))
        .await
        .unwrap();
    let manual = ManualClock::new(time(0));
    let clock = Clock::Manual(manual.clone());
    let serving = shop.views.drop_generation("orders.g2", &clock).await;
    assert!(matches!(serving, Err(DropError::Serving(_))), "{serving:?}");
    let unknown = shop.views.drop_generation("orders.g9", &clock).await;
    assert!(matches!(unknown, Err(DropError::Unknown(_))), "{unknown:?}");

    shop.append(order_stream(100), Version(0), order_placed(100))
        .await;
    shop.caught_up().await;
    let head = shop.log.head().await.unwrap();
    timeout(PATIENCE, async {
        loop {
            let rows = shop.views.generations().await.unwrap();
            let old = rows.iter().find(|row| row.name == "orders.g1").unwrap();
            if old.position == head {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // Somebody may not have heard yet.
    let early = shop.views.drop_generation("orders.g1", &clock).await;
    assert!(matches!(early, Err(DropError::TooEarly(_))), "{early:?}");
    manual.advance(Duration::from_secs(61));
    shop.views.drop_generation("orders.g1", &clock).await.unwrap();
    let rows = shop.views.generations().await.unwrap();
    assert!(rows.iter().all(|row| row.name != "orders.g1"));
    // The projector does not mind.
    shop.append(order_stream(101), Version(0), order_placed(101))
        .await;
    shop.caught_up().await;
    assert_eq!(projector.state(), ProjectorState::Running);
    assert_eq!(shop.differences("orders").await, []);
    projector.stop().await;
}

/// What a build that was broken off has parked stays parked: what comes behind it is not folded, however the build goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_goes_on_leaves_parked_events_alone() {
    let mut shop = told(17, 10).await;
    shop.append(order_stream(100), Version(0), order_placed(100))
        .await;
    shop.append(order_stream(100), Version(1), order_paid(100, money(900)))
        .await;
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPaid\":{}}' WHERE position = (SELECT max(position) FROM events)",
    )
    .await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    rebuild(&shop, "order_timeline", &RebuildOptions::new("one"))
        .await
        .unwrap();
    // As if it had been broken off where it has parked the event and stored its place.
    rename(
        &shop.views_file,
        "UPDATE generations SET serving = (generation = 1),
             stage = CASE generation WHEN 2 THEN 'building' ELSE stage END WHERE view = 'order_timeline'",
    )
    .await;
    shop.views = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    shop.append(order_stream(100), Version(2), order_paid(100, money(1)))
        .await;
    let rebuilt = rebuild(&shop, "order_timeline", &forgetful("two")).await.unwrap();
    assert_eq!((rebuilt.serving, rebuilt.generation), (true, 2), "{rebuilt:?}");
    let found = shop
        .views
        .order_timeline()
        .get(&order_id(100).into())
        .await
        .unwrap();
    let seen = found.unwrap().sources.clone();
    assert_eq!(
        seen,
        [(order_stream(100), Version(1))],
        "what comes behind the bad one waits"
    );
    assert_eq!(shop.differences("order_timeline").await, []);
}

/// Built, and whoever built it died before it could be read: whoever looks after rebuilds finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_built_and_not_read_is_taken_up() {
    let shop = told(18, 5).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    let rebuilt = rebuild(&shop, "orders", &RebuildOptions::new("test"))
        .await
        .unwrap();
    rename(
        &shop.views_file,
        "UPDATE generations SET serving = (generation = 1) WHERE view = 'orders'",
    )
    .await;
    let views = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    assert_eq!(views.orders().generation(), 1);
    let running = Rebuilds {
        views: views.clone(),
        ..rebuilds(&shop, false)
    };
    let cancel = CancellationToken::new();
    let running = tokio::spawn(running.run(cancel.clone()));
    eventually(|| views.orders().generation() == rebuilt.generation).await;
    cancel.cancel();
    running.await.unwrap();
    projector.stop().await;
}

/// An event that the new generation lacks is a difference, also of a document that moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_has_seen_less_is_not_read() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    // What the log held when the old one was folded is not what it holds now.
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPaid\":{}}' WHERE position = 2",
    )
    .await;
    let blocked = rebuild(&shop, "orders", &RebuildOptions::new("test"))
        .await
        .unwrap();
    let found = blocked.comparison.as_ref().unwrap();
    assert_eq!((blocked.serving, found.different), (false, 1), "{blocked:?}");
}

/// The documents of an older version go like any other, once this one's are read.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_left_can_be_dropped() {
    let mut shop = told(19, 3).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    projector.stop().await;
    of_another_version(&mut shop).await;
    let clock = ManualClock::new(time(0));
    let manual = Clock::Manual(clock.clone());
    let early = shop.views.drop_generation("orders.g1", &manual).await;
    assert!(matches!(early, Err(DropError::Serving(_))), "{early:?}");
    assert!(
        rebuild(&shop, "orders", &RebuildOptions::new("test"))
            .await
            .unwrap()
            .serving
    );
    clock.advance(Duration::from_secs(61));
    shop.views.drop_generation("orders.g1", &manual).await.unwrap();
}

/// Progress is told in order, up to the end.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told() {
    let shop = told(16, 20).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    let progress = watch::Sender::new(None);
    let options = forgetful("test");
    let clock = shop::clock();
    shop.views
        .rebuild(&shop.log, "orders", &options, &clock, &progress)
        .await
        .unwrap();
    let last = progress.borrow().unwrap();
    assert_eq!((last.generation, last.phase), (2, RebuildPhase::Switching));
    assert_eq!(last.position, last.target);
    assert_eq!(last.target, shop.log.head().await.unwrap());
    projector.stop().await;
}
