//! Waiting for a condition, never for a fixed time.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for something that should happen soon, with room for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it answers.
///
/// # Panics
/// When [`DEADLINE`] has passed: `what` did not come true.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}",
            DEADLINE.as_secs()
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
