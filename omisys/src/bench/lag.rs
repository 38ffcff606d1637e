//! How long what was acknowledged takes to be seen.

use std::time::Duration;

use http::{HeaderName, Method};
use testkit::User;
use testkit::load::{Load, Measured, Outcome, Pace, Recorder, Step};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::http::{Answer, answer};
use super::shop::Shopper;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);
/// How long an acknowledged command may take to be seen before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Until the load is over, has `shopper` change its cart and read it back with the receipt's token. What is recorded is the
/// time from the acknowledgment to the answer that shows it.
pub async fn probe(shopper: &Shopper, sku: &str, seconds: Duration, over: CancellationToken) -> Measured {
    let began = Instant::now();
    let load = Load {
        pace: Pace::Closed,
        callers: 1,
        duration: seconds,
        at_most: u64::MAX,
    };
    let mut recorder = Recorder::new(load, began);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = over.cancelled() => return recorder.finish(),
        }
        let user = shopper.member.user().await;
        // A command that is shed has nothing to be seen.
        if let Answer::Accepted(token) = answer(&shopper.add(sku, 1).await) {
            let acknowledged = Instant::now();
            let outcome = if seen(&user, "/v1/carts/mine", &token).await {
                Outcome::Done
            } else {
                Outcome::Failed
            };
            recorder.record(
                acknowledged,
                Step {
                    outcome,
                    kind: "lag",
                    units: 1,
                },
            );
        }
    }
}

/// Asks until the document at `path` shows what the token names.
pub async fn seen(user: &User, path: &str, token: &str) -> bool {
    let at_least = [(HeaderName::from_static("omisys-at-least"), token.to_owned())];
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let asked = user.try_request(Method::GET, path, None, &at_least, None).await;
        match asked.map(|reply| reply.status.as_u16()) {
            Ok(200) => return true,
            Ok(429 | 503) => tokio::time::sleep(EVERY / 10).await,
            _ => return false,
        }
    }
    false
}
