//! Randomness for secrets and ids, from the operating system.

/// `N` unpredictable bytes.
#[expect(
    clippy::expect_used,
    reason = "without randomness no secret can be made, and no answer would be safe"
)]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives no randomness");
    bytes
}
