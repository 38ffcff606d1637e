//! The sandbox as a provider: at most once per key, and each token does what its documentation says.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{gbp, order_id, sandbox, test_database};
use database::testing::TestDatabase;
use event_schemas::{Clock, ManualClock, PaymentId, RefundId, derive_uuid};
use sagas::Secret;
use sagas::provider::{
    IdempotencyKey, Operation, Outcome, Provider, ProviderError, Request, SandboxOptions, SandboxProvider,
    token,
};
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    test: TestDatabase,
    hand: ManualClock,
    sandbox: SandboxProvider,
}

impl Bench {
    async fn open() -> Self {
        let hand = ManualClock::new("2024-05-01T12:00:00Z".parse().expect("a time"));
        let dir = TempDir::new().expect("a directory");
        let test = test_database().await;
        let sandbox = sandbox(&dir, test.database(), hand.clone().into()).await;
        Self {
            dir,
            test,
            hand,
            sandbox,
        }
    }

    /// As another process would.
    async fn reopened(&self) -> SandboxProvider {
        sandbox(&self.dir, self.test.database(), self.hand.clone().into()).await
    }

    fn provider(&self) -> Provider {
        Provider::Sandbox(self.sandbox.clone())
    }

    async fn call(&self, operation: Operation, amount: i64, token: &str) -> Result<Outcome, ProviderError> {
        let request = Request {
            key: key(operation),
            order: order_id("a"),
            amount: gbp(amount),
            token: Some(Secret::from(token)),
        };
        self.provider().call(request).await
    }

    async fn charged(&self) -> i64 {
        self.sandbox.charged(payment()).await.expect("read")
    }

    async fn refunded(&self) -> i64 {
        self.sandbox.refunded(payment()).await.expect("read")
    }
}

fn payment() -> PaymentId {
    PaymentId::for_order(order_id("a"))
}

fn key(operation: Operation) -> IdempotencyKey {
    IdempotencyKey {
        payment: payment(),
        attempt: 1,
        operation,
    }
}

fn refund(name: &str) -> Operation {
    Operation::Refund(RefundId::from_uuid(derive_uuid(
        "test/refund",
        &[name.as_bytes()],
    )))
}

fn declined(outcome: &Result<Outcome, ProviderError>) -> &str {
    match outcome {
        Ok(Outcome::Declined { code }) => code.as_str(),
        other => panic!("declined: {other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_carried_out_once_and_answered_alike_for_ever() {
    let mut bench = Bench::open().await;
    bench
        .call(Operation::Session, 500, token::OK)
        .await
        .expect("authorized");
    let first = bench.call(Operation::Capture, 500, "").await.expect("captured");
    assert!(matches!(first, Outcome::Captured { amount, .. } if amount == gbp(500)));
    assert_eq!(
        bench.call(Operation::Capture, 500, "").await.expect("captured"),
        first
    );
    bench.sandbox = bench.reopened().await;
    assert_eq!(
        bench
            .call(Operation::Capture, 500, "")
            .await
            .expect("after a restart too"),
        first
    );
    assert_eq!(
        bench
            .provider()
            .lookup(key(Operation::Capture))
            .await
            .expect("answered"),
        Some(first)
    );
    assert_eq!(bench.charged().await, 500);

    let back = bench.call(refund("one"), 200, "").await.expect("refunded");
    assert_eq!(bench.call(refund("one"), 200, "").await.expect("refunded"), back);
    assert_eq!(bench.refunded().await, 200);
    assert_eq!(
        declined(&bench.call(refund("two"), 301, "").await),
        "refund-exceeds-charge"
    );
    bench.call(refund("three"), 300, "").await.expect("refunded");
    assert_eq!(bench.refunded().await, 500);
}

#[tokio::test]
async fn what_was_never_asked_for_is_not_found() {
    let bench = Bench::open().await;
    assert_eq!(bench.provider().lookup(key(Operation::Capture)).await, Ok(None));
    assert!(matches!(
        bench.call(Operation::Capture, 500, "").await,
        Err(ProviderError::Misused(_))
    ));
}

#[tokio::test]
async fn declining_tokens() {
    let bench = Bench::open().await;
    assert_eq!(
        declined(&bench.call(Operation::Session, 500, token::DECLINED).await),
        "card-declined"
    );
    let bench = Bench::open().await;
    assert_eq!(
        declined(&bench.call(Operation::Session, 500, "4242").await),
        "unknown-token"
    );
    let bench = Bench::open().await;
    bench
        .call(Operation::Session, 500, token::INSUFFICIENT_FUNDS)
        .await
        .expect("authorized");
    assert_eq!(
        declined(&bench.call(Operation::Capture, 500, "").await),
        "insufficient-funds"
    );
    assert_eq!(bench.charged().await, 0);
}

#[tokio::test]
async fn a_slow_token_is_in_progress_for_a_while() {
    let bench = Bench::open().await;
    let wait = SandboxOptions::default().slow;
    let first = bench.call(Operation::Session, 500, token::SLOW).await;
    assert_eq!(
        first,
        Ok(Outcome::InProgress {
            ask_again_after: wait
        })
    );
    bench.hand.advance(Duration::from_millis(1_999));
    let found = bench.provider().lookup(key(Operation::Session)).await;
    assert_eq!(
        found,
        Ok(Some(Outcome::InProgress {
            ask_again_after: Duration::from_millis(1)
        }))
    );
    bench.hand.advance(Duration::from_millis(1));
    let found = bench.provider().lookup(key(Operation::Session)).await;
    assert!(matches!(found, Ok(Some(Outcome::Authorized { .. }))), "{found:?}");
    // Not decided anew: that would begin another wait.
    assert_eq!(
        bench.call(Operation::Session, 500, token::SLOW).await.map(Some),
        found
    );
}

#[tokio::test]
async fn a_token_that_times_out_has_been_carried_out() {
    let bench = Bench::open().await;
    assert_eq!(
        bench.call(Operation::Session, 500, token::TIMEOUT_THEN_OK).await,
        Err(ProviderError::Unknown)
    );
    // Only the first answer is lost.
    let again = bench.call(Operation::Session, 500, token::TIMEOUT_THEN_OK).await;
    assert!(matches!(again, Ok(Outcome::Authorized { .. })), "{again:?}");
    assert_eq!(
        bench.call(Operation::Capture, 500, "").await,
        Err(ProviderError::Unknown)
    );
    assert_eq!(bench.charged().await, 500);
    let found = bench.provider().lookup(key(Operation::Capture)).await;
    assert!(matches!(found, Ok(Some(Outcome::Captured { .. }))), "{found:?}");
}

#[tokio::test]
async fn a_late_capture_is_reported_until_it_is_acknowledged() {
    let mut bench = Bench::open().await;
    bench
        .call(Operation::Session, 500, token::CAPTURED_LATE)
        .await
        .expect("authorized");
    assert_eq!(bench.provider().next_report_at().await, Ok(None));
    assert_eq!(
        declined(&bench.call(Operation::Capture, 500, "").await),
        "processing-error"
    );
    assert_eq!(bench.charged().await, 500, "the money is gone");
    assert_eq!(
        bench.provider().reports(10).await,
        Ok(Vec::new()),
        "and nobody says so yet"
    );
    let due = bench
        .provider()
        .next_report_at()
        .await
        .expect("answered")
        .expect("to come");
    assert_eq!(
        due,
        Clock::from(bench.hand.clone()).now() + SandboxOptions::default().late
    );

    bench.hand.advance(SandboxOptions::default().late);
    bench.sandbox = bench.reopened().await;
    let reports = bench.provider().reports(10).await.expect("answered");
    assert_eq!(
        bench.provider().reports(10).await.expect("answered"),
        reports,
        "again, until it is acknowledged"
    );
    assert!(matches!(reports[0].outcome, Outcome::Captured { amount, .. } if amount == gbp(500)));
    bench
        .provider()
        .acknowledge(&reports[0])
        .await
        .expect("acknowledged");
    assert_eq!(bench.provider().reports(10).await, Ok(Vec::new()));
    assert_eq!(bench.provider().next_report_at().await, Ok(None));
}

#[tokio::test]
async fn a_void_gives_back_or_says_that_it_is_too_late() {
    let bench = Bench::open().await;
    bench
        .call(Operation::Session, 500, token::OK)
        .await
        .expect("authorized");
    assert!(matches!(
        bench.call(Operation::Void, 500, "").await,
        Ok(Outcome::Voided { .. })
    ));
    assert_eq!(declined(&bench.call(Operation::Capture, 500, "").await), "voided");

    let bench = Bench::open().await;
    bench
        .call(Operation::Session, 500, token::OK)
        .await
        .expect("authorized");
    let captured = bench.call(Operation::Capture, 500, "").await.expect("captured");
    assert_eq!(
        bench.call(Operation::Void, 500, "").await,
        Ok(captured),
        "the same charge under the same name"
    );
}
