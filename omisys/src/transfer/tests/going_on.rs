//! What becomes of a copy: its sagas go on, and nothing is done twice.

use super::*;

/// Race 20 and every moment beside it: wherever the copy was taken, its sagas go on and the order is paid, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_any_moment_goes_on_to_a_paid_order() {
    let mut reserved_but_not_recorded = false;
    for visit in 1.. {
        let (source, order) = interrupted(Faults::die_at_visit(visit), token::OK).await;
        let died = source.sagas().failure().is_some();
        reserved_but_not_recorded |= source.count("StockReserved").await > source.count("LineReserved").await;
        let copy = copy_of(&source, "copy").await;
        let mut copy = restored(&source, &copy, TestDatabase::sqlite()).await;
        copy.start(Faults::default()).await;
        copy.settle().await;
        assert_eq!(
            copy.order(order).await.status(),
            OrderStatus::Paid,
            "visit {visit}"
        );
        assert_eq!(copy.charged(order).await, 1_300, "visit {visit}");
        copy.audit(&[order]).await;
        if !died {
            assert!(visit > 10, "the sagas were not killed often enough: {visit}");
            break;
        }
    }
    assert!(reserved_but_not_recorded, "race 20 was among them");
}

/// The copy is of last night. Since then the provider has done everything, and remembers. What the log holds open is
/// asked for; only what the copy's sagas come to ask for again is called, under the same keys.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_did_after_the_copy_is_recorded_and_not_done_again() {
    let mut on_postgres = postgres().await;
    for token in [token::OK, token::CAPTURED_LATE] {
        let (mut with_row, mut without_row) = (0, 0);
        for visit in 1.. {
            let (mut source, order) = interrupted(Faults::die_at_visit(visit), token).await;
            if source.sagas().failure().is_none() {
                break;
            }
            if source.payment(order).await.open_intents().is_empty() {
                continue;
            }
            match sagas::open_effects(&source.database).await.unwrap().len() {
                0 => without_row += 1,
                _ => with_row += 1,
            }
            let intents = source.count("SessionRequested").await + source.count("CaptureRequested").await;
            let copy = copy_of(&source, "copy").await;
            source.restart().await;
            source.settle().await;
            source.advance(Duration::from_secs(60)).await;
            let calls = source.sandbox.calls();
            assert_eq!(source.charged(order).await, 1_300);
            let test = on_postgres.take_if(|_| intents == 2);
            let mut copy = restored(&source, &copy, test.unwrap_or_else(TestDatabase::sqlite)).await;
            copy.start(Faults::default()).await;
            copy.settle().await;
            assert_eq!(
                copy.order(order).await.status(),
                OrderStatus::Paid,
                "{token}, visit {visit}"
            );
            let called = copy.sandbox.calls() - calls;
            assert_eq!(
                called,
                2 - intents as u64,
                "{token}, visit {visit}: asked, and not called"
            );
            copy.advance(Duration::from_secs(3_600)).await;
            assert_eq!(copy.charged(order).await, 1_300, "once");
            copy.audit(&[order]).await;
        }
        assert!(
            with_row > 0 && without_row > 0,
            "{with_row} copies with the effect's row, {without_row} without"
        );
    }
}

/// The deadline has passed since. It must not cancel what the provider was paid for.
#[tokio::test(flavor = "multi_thread")]
async fn no_timer_fires_before_the_provider_was_asked() {
    let (mut source, order) = interrupted(Faults::die_at(BEFORE_PROVIDER, 2), token::OK).await;
    let copy = copy_of(&source, "copy").await;
    source.restart().await;
    source.settle().await;
    source.stop().await;
    source.hand.advance(Duration::from_secs(24 * 3_600));
    let mut copy = restored(&source, &copy, TestDatabase::sqlite()).await;
    for _ in 0..3 {
        copy.sandbox.fail_next("lookup", SandboxFault::Down);
    }
    copy.start(Faults::default()).await;
    let reason = copy.sagas().reconciling().expect("not ready");
    assert!(reason.contains("payment"), "{reason}");
    copy.settle().await;
    assert_eq!(copy.sagas().reconciling(), None);
    assert_eq!(copy.order(order).await.status(), OrderStatus::Paid);
    assert_eq!(
        (copy.charged(order).await, copy.refunded(order).await),
        (1_300, 0)
    );
    copy.audit(&[order]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reconciliation_is_done_again_and_a_finished_one_is_not() {
    let (mut source, order) = interrupted(Faults::die_at(BEFORE_PROVIDER, 2), token::OK).await;
    let copy = copy_of(&source, "copy").await;
    source.restart().await;
    source.settle().await;
    let calls = source.sandbox.calls();
    let mut copy = restored(&source, &copy, TestDatabase::sqlite()).await;
    copy.start(Faults::die_at(AFTER_PROVIDER, 1)).await;
    assert!(
        copy.sagas().stopped().await.is_some(),
        "killed between the answer and its record"
    );
    copy.start(Faults::default()).await;
    copy.settle().await;
    assert_eq!((copy.sandbox.calls(), copy.charged(order).await), (calls, 1_300));
    // From now on nobody asks, also where a call is open and there is nobody to be asked.
    copy.stop().await;
    copy.place("bob", &[("MUG", 1, 500)], token::OK).await;
    copy.start(Faults::die_at(BEFORE_PROVIDER, 1)).await;
    copy.sagas().stopped().await;
    assert!(!waits_without_a_provider(&copy).await);
}

/// Starts the shop's sagas without a provider, and says whether they wait for one.
async fn waits_without_a_provider(shop: &Shop) -> bool {
    let deps = SagasDeps {
        log: shop.log.clone(),
        commands: shop.executors.clone().into(),
        stream: SagaStream::Log,
        database: shop.database.clone(),
        provider: None,
        clock: shop.clock(),
        config: shop.config.clone(),
        faults: Faults::default(),
    };
    let sagas = Sagas::start(deps).await.unwrap();
    let told = async {
        loop {
            match sagas.reconciling() {
                None => break false,
                Some(reason) if reason.contains("no payment provider is configured") => break true,
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let told = tokio::time::timeout(common::DEADLINE, told).await;
    sagas.stop().await;
    told.expect("in time")
}

/// Without a provider nothing can be asked; with nothing open nothing has to be.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_open_payments_wait_and_others_do_not() {
    for (faults, waits) in [
        (Faults::die_at(BEFORE_PROVIDER, 2), true),
        (Faults::default(), false),
    ] {
        let (source, _) = interrupted(faults, token::OK).await;
        let path = copy_of(&source, "copy").await;
        let copy = restored(&source, &path, TestDatabase::sqlite()).await;
        assert_eq!(waits_without_a_provider(&copy).await, waits);
    }
}

/// Race 21: everything had been done. Nothing is done again, and old keys get their first receipts.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_log_repeats_no_call_and_answers_old_keys() {
    for test in [Some(TestDatabase::sqlite()), postgres().await]
        .into_iter()
        .flatten()
    {
        let source = busy_shop(TestDatabase::sqlite()).await;
        let calls = source.sandbox.calls();
        assert!(calls > 10);
        let copy = copy_of(&source, "copy").await;
        let receipts = source
            .log
            .read_raw_receipts(None, source.log.head().await.unwrap(), 10_000)
            .await
            .unwrap();
        let mut copy = restored(&source, &copy, test).await;
        copy.start(Faults::default()).await;
        copy.settle().await;
        assert_eq!(copy.sandbox.calls(), calls, "no call is repeated");
        assert_eq!(
            copy.log.head().await,
            source.log.head().await,
            "nothing had to follow"
        );
        let old = receipts
            .iter()
            .find(|receipt| receipt.fingerprint.is_some())
            .expect("a client's");
        let again = |mac: u8| {
            let mac = [mac; 32];
            let current = Fingerprint {
                key_id: "key-1".into(),
                mac,
            };
            CommandRequest {
                fingerprints: Fingerprints::new(current, []),
                ..CommandRequest::new(
                    old.command_id,
                    Actor::system("test"),
                    OrderCommand::Cancel {
                        reason: CancelReason::CustomerRequest,
                        by: ActorKind::Customer,
                    },
                )
            }
        };
        let order: OrderId = old.aggregate_id.as_str().parse().unwrap();
        let receipt = copy.executors.orders.submit(order, again(7)).await.unwrap();
        assert!(receipt.replayed);
        assert_eq!((receipt.version, receipt.position), (old.last, old.position));
        let reused = copy.executors.orders.submit(order, again(8)).await;
        assert!(reused.is_err(), "the key with another body");
    }
}

/// Consumers that begin again at the first event see no effect twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_refold_of_everything_calls_nobody() {
    let mut shop = busy_shop(TestDatabase::sqlite()).await;
    let (calls, head) = (shop.sandbox.calls(), shop.log.head().await.unwrap());
    assert_same_views(&shop.log, &shop.log).await;
    assert_eq!(shop.sandbox.calls(), calls, "read models call nobody");
    shop.redeliver().await;
    assert_eq!(
        shop.sandbox.calls(),
        calls,
        "what has been answered is not asked for again"
    );
    assert_eq!(shop.log.head().await.unwrap(), head);
}
