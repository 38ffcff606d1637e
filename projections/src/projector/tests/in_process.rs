//! What readers in the projector's own process see.

use super::*;
use crate::cache::{InProcess, ViewCache};
use crate::orders::OrderView;

fn cache(reader: &ViewReader<Orders>) -> InProcess<OrderView> {
    match &reader.current().cache {
        ViewCache::InProcess(cache) => cache.clone(),
        #[cfg(feature = "cluster")]
        ViewCache::Redis(_) => unreachable!(),
    }
}

/// What is cached is replaced by what is written, and what is read before a write is not cached after it.
#[tokio::test]
async fn the_cache_never_shows_less_than_was_announced() {
    let log = Story::tell(9, 1).log(&mut Dice(9));
    let orders = of_types(&log, &[AggregateType::Order]);
    let shop = Shop::sqlite().await;
    let mut runner = shop.runner().await;
    let id = order_id(1).into();
    let reader = shop.views.orders();
    let cache = cache(reader);
    runner.handle(entries(&orders[..1]), at(1)).await.unwrap();
    // A slow reader has loaded the document, and then it is written.
    let ticket = cache.ticket(&id);
    let stale = reader.get(&id).await.unwrap().unwrap();
    cache.forget(&id);
    runner
        .handle(entries(&orders[1..2]), at(orders[1].position.0))
        .await
        .unwrap();
    cache.fill(&ticket, &stale);
    let now = reader.get(&id).await.unwrap().unwrap();
    assert_eq!(now.doc.version, Version(2));
    // Written through.
    runner
        .handle(entries(&orders[2..3]), at(orders[2].position.0))
        .await
        .unwrap();
    assert_eq!(cache.get(&id).unwrap().doc.version, Version(3));
}

/// Whoever has seen the view's position move reads what it stands for, cached documents included.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_announced_after_its_documents() {
    let shop = Shop::sqlite().await;
    let reader = shop.views.orders().clone();
    let cache = cache(&reader);
    let first = DocId::from(order_id(1));
    let apart = |number: &u64| !cache.share_a_slot(&first, &order_id(*number).into());
    let number = (2..1_000).find(apart).unwrap();
    let second = DocId::from(order_id(number));
    let event = |position, number, version, event: OrderEvent| RecordedEvent {
        position: Position(position),
        stream: StreamId::new(AggregateType::Order, order_id(number)),
        version: Version(version),
        event: event.into(),
        metadata: metadata(ActorKind::System, "test"),
        recorded_at: time(position),
    };
    let lines = [(sku(1), 1, 1)];
    let agreed = |number| placed(order_id(number), customer_id(1), &lines, time(1));
    let placed = |position, number| {
        event(
            position,
            number,
            1,
            OrderEvent::OrderPlaced(Box::new(agreed(number))),
        )
    };
    let reserved = |position, number| event(position, number, 2, OrderEvent::OrderReserved {});
    let mut runner = shop.runner().await;
    let both = [Arc::new(placed(1, 1)), Arc::new(placed(2, number))];
    runner.handle(entries(&both), at(2)).await.unwrap();
    reader.get_many(&[first.clone(), second.clone()]).await.unwrap();

    let both = entries(&[Arc::new(reserved(3, 1)), Arc::new(reserved(4, number))]);
    let version = |id: &DocId| cache.get(id).unwrap().doc.version;
    let between = std::thread::scope(|scope| {
        let held = cache.hold(&second);
        let runtime = tokio::runtime::Handle::current();
        let handling = scope.spawn(move || runtime.block_on(runner.handle(both, at(4))));
        // The first document is shown and the second is not: the projector stands between them.
        while version(&first) < Version(2) {
            assert!(!handling.is_finished());
            std::thread::yield_now();
        }
        let position = reader.position();
        drop(held);
        handling.join().unwrap().unwrap();
        position
    });
    assert_eq!(between, Position(2));
    assert_eq!((reader.position(), version(&second)), (Position(4), Version(2)));
}
