//! The projector on a real log: it follows, it waits, and it never stands in the log's way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use event_schemas::{AggregateType, Position, Version};
use projections::{ConsistencyPoint, ProjectorState, VIEW_NAMES, WaitError};
use shop::{PATIENCE, Shop, order_paid, order_placed, order_stream, soon};
use sqlite_file::SqliteError;
use std::sync::mpsc;
use std::time::Duration;
use support::{Dice, Story, money, order_id};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn documents_equal_a_fold_of_the_log_across_restarts() {
    let mut shop = Shop::open().await;
    let events = Story::tell(1, 8).log(&mut Dice(1));
    for part in events.chunks(events.len() / 4 + 1) {
        let projector = shop.projector().await;
        shop.append_all(part).await;
        // Stopped wherever it is.
        projector.stop().await;
    }
    let projector = shop.projector().await;
    shop.caught_up().await;
    shop.assert_verified().await;
    assert_eq!(projector.state(), ProjectorState::Running);
    let status = projector.status();
    assert!(
        status.iter().all(|view| view.lag == 0 && !view.parked),
        "{status:?}"
    );
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_holds_while_events_keep_coming() {
    let mut shop = Shop::open().await;
    let events = Story::tell(2, 12).log(&mut Dice(2));
    let _projector = shop.projector().await;
    let (first, rest) = events.split_at(events.len() / 2);
    shop.append_all(first).await;
    shop.caught_up().await;
    let (views, log) = (shop.views.clone(), shop.log.clone());
    let verifying = tokio::spawn(async move {
        for _ in 0..3 {
            for view in VIEW_NAMES {
                let verified = views.verify(&log, view).await.unwrap();
                assert!(verified.equal(), "{verified:?}");
            }
        }
    });
    for event in rest {
        shop.append_all(std::slice::from_ref(event)).await;
    }
    verifying.await.unwrap();
    shop.caught_up().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_what_was_written() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    let id = order_id(1).into();
    for round in 0..20_u64 {
        let event = if round == 0 {
            order_placed(1)
        } else {
            order_paid(1, money(1))
        };
        let receipt = shop.append(order_stream(1), Version(round), event).await;
        let point = ConsistencyPoint {
            stream: receipt.stream.clone(),
            version: receipt.version,
            position: receipt.position,
        };
        let order = shop
            .views
            .orders()
            .get_at_least(&id, &point, soon())
            .await
            .unwrap()
            .unwrap();
        assert!(order.doc.version >= receipt.version);
        shop.views.orders().reach(&point, soon()).await.unwrap();
    }

    // What never comes is not waited for longer than asked, and what is never read not at all.
    let far = ConsistencyPoint {
        stream: order_stream(1),
        version: Version(99),
        position: Position(999),
    };
    let late = shop.views.orders().get_at_least(&id, &far, Instant::now()).await;
    assert_eq!(late.unwrap_err(), WaitError::TimedOut { view: "orders" });
    let late = shop.views.orders().reach(&far, Instant::now()).await;
    assert_eq!(late.unwrap_err(), WaitError::TimedOut { view: "orders" });
    let wrong = shop.views.carts().get_at_least(&id, &far, soon()).await;
    let refused = WaitError::NotRead {
        view: "carts",
        aggregate_type: AggregateType::Order,
    };
    assert_eq!(wrong.unwrap_err(), refused);
    // A point that the view has passed without such a document: there is none.
    let passed = ConsistencyPoint {
        position: Position(3),
        ..far
    };
    let nobody = order_id(7).into();
    assert!(
        shop.views
            .orders()
            .get_at_least(&nobody, &passed, soon())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_document_tells_of_its_last_change() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    let id = order_id(1).into();
    let mut watch = shop.views.orders().watch(&id);
    let mut other = shop.views.orders().watch(&order_id(2).into());
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    for round in 1..10 {
        shop.append(order_stream(1), Version(round), order_paid(1, money(1)))
            .await;
    }
    // However many changes are folded into one, the last is not missed.
    timeout(PATIENCE, async {
        loop {
            let order = shop.views.orders().get(&id).await.unwrap();
            if order.is_some_and(|order| order.doc.version == Version(10)) {
                break;
            }
            watch.changed().await;
        }
    })
    .await
    .unwrap();
    let silent = timeout(Duration::ZERO, other.changed()).await;
    assert!(silent.is_err());
}

/// The views' file is stuck; the log's goes on, and the views follow later.
#[tokio::test(flavor = "multi_thread")]
async fn views_never_block_the_log() {
    let mut shop = Shop::open().await;
    let projector = shop.projector().await;
    let (release, blocked) = mpsc::channel::<()>();
    let file = shop.views_file.clone();
    let stuck = tokio::spawn(async move {
        let wait = move |_: &_| Ok::<_, SqliteError>(blocked.recv().is_ok());
        file.write(wait).await
    });
    for number in 1..=50 {
        let append = shop.append(order_stream(number), Version(0), order_placed(number));
        timeout(PATIENCE, append)
            .await
            .expect("the log waits for the views");
    }
    assert!(shop.views.orders().position() < shop.log.head().await.unwrap());
    assert!(projector.status().iter().any(|view| view.lag > 0));
    release.send(()).unwrap();
    stuck.await.unwrap().unwrap();
    shop.caught_up().await;
    let order = shop.views.orders().get(&order_id(50).into()).await.unwrap();
    assert!(order.is_some());
}
