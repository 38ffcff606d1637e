//! The projector on a real log when something is wrong: with an event, with the store, with a document.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use database::Database;
use event_bus::{Healing, HealingOutcome, Remedy, Retried, ScopeId};
use event_schemas::{Position, Version};
use projections::{Difference, ProjectorState, ViewError, Views};
use shop::{
    Shop, clock, eventually, log_of_the_next_version, order_paid, order_payload, order_placed, order_stream,
    rename, rewrite, rewrite_payload, soon,
};
use support::{money, order_id};

#[tokio::test(flavor = "multi_thread")]
async fn verification_finds_what_was_tampered_with() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    for number in 1..=3 {
        shop.append(order_stream(number), Version(0), order_placed(number))
            .await;
    }
    shop.caught_up().await;
    assert_eq!(shop.differences("orders").await, []);
    let id = |number| order_id(number).into();

    shop.tamper(
        "UPDATE orders_g1 SET body = replace(body, '\"quantity\":2', '\"quantity\":3') WHERE rowid = 1",
    )
    .await;
    shop.tamper("UPDATE orders_g1 SET k_status = 'paid' WHERE rowid = 2")
        .await;
    shop.tamper("DELETE FROM orders_g1 WHERE rowid = 3").await;
    let mut found = shop.differences("orders").await;
    found.sort_by_key(ToString::to_string);
    assert_eq!(
        found,
        [
            Difference::Contents { id: id(1) },
            Difference::Keys { id: id(2) },
            Difference::Missing { id: id(3) },
        ]
    );
    shop.tamper("UPDATE orders_g1 SET id = 'nobody' WHERE rowid = 1")
        .await;
    assert!(
        shop.differences("orders")
            .await
            .contains(&Difference::Missing { id: id(1) })
    );
    shop.tamper("UPDATE orders_g1 SET body = '{}' WHERE rowid = 2")
        .await;
    assert!(
        shop.differences("orders")
            .await
            .contains(&Difference::Unreadable { id: id(2) })
    );
    // The other views are as they were.
    assert_eq!(shop.differences("order_timeline").await, []);
}

/// An event of a newer binary is no poison: nothing is skipped, nothing is parked, and views that have no use for it go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_event_stops_the_projector_with_what_came_before() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    rewrite(
        &mut shop,
        "UPDATE events SET event_version = '9.0' WHERE position = 2",
    )
    .await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    let projector = shop.projector().await;
    eventually(|| !projector.state().is_ready()).await;
    assert!(matches!(projector.state(), ProjectorState::Upgrade(text) if text.contains("upgrade")));
    assert_eq!(shop.views.orders().position(), Position(1));
    eventually(|| shop.views.stock().position() == Position(3)).await;
    assert!(
        shop.views
            .orders()
            .get(&order_id(1).into())
            .await
            .unwrap()
            .is_some()
    );
    assert!(projector.status().iter().all(|view| !view.parked));
    projector.stop().await;

    // The upgrade: a binary that reads the version. It goes on where the other one stopped.
    shop.log = log_of_the_next_version(&shop.log_file, "OrderPaid").await;
    shop.views = Views::open_sqlite(&shop.views_file, shop.log.identity())
        .await
        .unwrap();
    let projector = shop.projector().await;
    shop.caught_up().await;
    assert_eq!(projector.state(), ProjectorState::Running);
    for view in ["orders", "order_timeline", "sales"] {
        assert_eq!(shop.differences(view).await, []);
    }
    let order = shop.views.orders().get(&order_id(1).into()).await.unwrap();
    assert_eq!(order.unwrap().doc.version, Version(2), "nothing was skipped");
}

/// Another process asks; the projector does it between two batches.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_from_outside_is_carried_out_in_order() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPlaced\":{}}' WHERE position = 1",
    )
    .await;
    // Nobody placed it: it does not fold into an order.
    for version in 0..2 {
        shop.append(order_stream(3), Version(version), order_paid(3, money(1)))
            .await;
    }
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    assert!(
        shop.views
            .orders()
            .get(&order_id(2).into())
            .await
            .unwrap()
            .is_some(),
        "the rest goes on"
    );
    let healing = Healing::open([Database::from(&shop.views_file)]).await.unwrap();
    let parked = |number| {
        let healing = healing.clone();
        async move {
            let all = healing.list(None, None, 100).await.unwrap();
            let scope = order_stream(number).to_string();
            let mut all = all.into_iter().filter(move |parked| *parked.scope == *scope);
            let found = all.find(|parked| &*parked.subscriber == "orders.g1");
            found.unwrap()
        }
    };
    let ask = |id: ScopeId, remedy| {
        let healing = healing.clone();
        async move {
            let asked = healing.ask(&id, remedy, "test", clock().now()).await.unwrap();
            healing.wait(asked, soon()).await.unwrap().unwrap()
        }
    };
    let broken = parked(1).await;
    assert_eq!(broken.letters, 2);
    assert!(matches!(
        ask(broken.id(), Remedy::Retry).await,
        HealingOutcome::Retried(Retried::StillParked { handled: 0, .. })
    ));
    rewrite_payload(&shop, order_payload()).await;
    for scope in healing.list(None, None, 100).await.unwrap() {
        if scope.scope == broken.scope {
            assert_eq!(
                ask(scope.id(), Remedy::Retry).await,
                HealingOutcome::Retried(Retried::Healed { handled: 2 })
            );
        }
    }
    let order = shop.views.orders().get(&order_id(1).into()).await.unwrap();
    assert_eq!(order.unwrap().doc.version, Version(2));
    for view in ["order_timeline", "sales"] {
        assert_eq!(shop.differences(view).await, []);
    }

    // One is given up, and only that one: the other does not fold either, and stays.
    let unplaced = parked(3).await;
    let position = unplaced.first.position;
    let outcome = ask(unplaced.id(), Remedy::Skip { position }).await;
    assert!(matches!(outcome, HealingOutcome::Skipped { .. }), "{outcome:?}");
    let left = parked(3).await;
    assert_eq!((left.letters, left.first.position), (1, Position(position.0 + 1)));
    assert!(matches!(
        ask(left.id(), Remedy::Retry).await,
        HealingOutcome::Retried(Retried::StillParked { handled: 0, .. })
    ));
    let position = left.first.position;
    ask(left.id(), Remedy::Skip { position }).await;
    let orders = || {
        let mut status = projector.status().into_iter();
        status.find(|view| view.view == "orders").unwrap()
    };
    eventually(|| !orders().parked).await;
}

/// Whatever folds (the projector, verification) is given what the old event means now.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_is_folded_as_what_it_is_now() {
    let mut shop = Shop::open().await;
    for number in [1, 2] {
        shop.append(order_stream(number), Version(0), order_placed(number))
            .await;
    }
    rewrite(
        &mut shop,
        "UPDATE events SET event_version = '0.9', payload = replace(payload, 'occurred_at', 'placed_at')
         WHERE position = 1",
    )
    .await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    assert!(projector.status().iter().all(|view| !view.parked));
    for view in ["orders", "order_timeline", "sales"] {
        let verified = shop.views.verify(&shop.log, view).await.unwrap();
        assert!(verified.equal() && verified.documents > 0, "{verified:?}");
    }
    let (old, new) = (order_id(1).into(), order_id(2).into());
    let old = shop.views.orders().get(&old).await.unwrap().unwrap();
    let new = shop.views.orders().get(&new).await.unwrap().unwrap();
    assert_eq!(old.doc.occurred_at, new.doc.occurred_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_heal_in_order() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    // A payload that fits no schema: poison for every view that reads orders.
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPlaced\":{}}' WHERE position = 1",
    )
    .await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    assert!(
        shop.views
            .orders()
            .get(&order_id(2).into())
            .await
            .unwrap()
            .is_some()
    );
    let scope = order_stream(1).to_string();
    let parked: Vec<_> = projector
        .status()
        .into_iter()
        .filter(|view| view.parked)
        .map(|view| view.view)
        .collect();
    assert_eq!(parked, ["orders", "order_timeline", "sales"]);
    let letters = projector
        .dead_letters("orders")
        .unwrap()
        .show(&scope)
        .await
        .unwrap();
    let versions: Vec<_> = letters
        .iter()
        .map(|letter| (letter.event_id.version.0, letter.reason.is_some()))
        .collect();
    assert_eq!(versions, [(1, true), (2, false)]);

    // Not mended: it stays, and says how often it was tried.
    let again = projector.retry("orders", &scope).await.unwrap();
    assert!(
        matches!(again, Retried::StillParked { handled: 0, .. }),
        "{again:?}"
    );
    assert_eq!(
        projector
            .dead_letters("orders")
            .unwrap()
            .show(&scope)
            .await
            .unwrap()[0]
            .attempts,
        2
    );
    // Behind what is parked, in order.
    shop.append(order_stream(1), Version(2), order_paid(1, money(1)))
        .await;
    shop.caught_up().await;
    assert_eq!(
        projector
            .dead_letters("orders")
            .unwrap()
            .show(&scope)
            .await
            .unwrap()
            .len(),
        3
    );

    let payload = order_payload();
    rewrite_payload(&shop, payload).await;
    for view in ["orders", "order_timeline", "sales"] {
        let healed = projector.retry(view, &scope).await.unwrap();
        assert_eq!(healed, Retried::Healed { handled: 3 });
    }
    let order = shop
        .views
        .orders()
        .get(&order_id(1).into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(order.doc.version, Version(3));
    assert!(projector.status().iter().all(|view| !view.parked));
    // It goes on with the stream.
    shop.append(order_stream(1), Version(3), order_paid(1, money(1)))
        .await;
    shop.caught_up().await;
    for view in ["orders", "order_timeline", "sales"] {
        assert_eq!(shop.differences(view).await, []);
    }
}

/// A store that fails for a while is waited out, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_tried_again() {
    let mut shop = Shop::open().await;
    let projector = shop.projector().await;
    rename(&shop.views_file, "ALTER TABLE orders_g1 RENAME TO hidden").await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    eventually(|| matches!(projector.state(), ProjectorState::Retrying(_))).await;
    // The others go on without it.
    eventually(|| shop.views.order_timeline().position() == Position(1)).await;
    assert_eq!(shop.views.orders().position(), Position(0));
    rename(&shop.views_file, "ALTER TABLE hidden RENAME TO orders_g1").await;
    shop.caught_up().await;
    eventually(|| projector.state() == ProjectorState::Running).await;
    assert_eq!(shop.differences("orders").await, []);
}

/// A document that the store holds in a form that this binary can't read is an error of that document alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_document_is_an_error_not_a_panic() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    shop.caught_up().await;
    shop.tamper("UPDATE orders_g1 SET body = '[1]' WHERE rowid = 1")
        .await;
    let broken = shop.views.orders().get(&order_id(1).into()).await;
    assert!(matches!(broken, Err(ViewError::Corrupt { view: "orders", .. })));
    assert!(
        shop.views
            .orders()
            .get(&order_id(2).into())
            .await
            .unwrap()
            .is_some()
    );
}
