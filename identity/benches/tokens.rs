//! The check of an access token: the first time, with its signature, and from then on.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop where it is"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use database::testing::TestDatabase;
use event_schemas::Clock;
use identity::verifier::Role;
use identity::{Email, Identity, KeySource, NewPassword, Settings};

/// More tokens than the verifier remembers: taken in turn, none is still known when it comes again.
const TOKENS: usize = 20_000;

fn tokens(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (database, keys) = (TestDatabase::sqlite(), tempfile::tempdir().unwrap());
    let (identity, tokens) = runtime.block_on(async {
        let identity = Identity::open(
            database.database().clone(),
            KeySource::Directory(keys.path().to_owned()),
            Settings::default(),
            Clock::System,
        )
        .await
        .unwrap();
        let account = identity
            .create_account(
                Email::new("ann@example.com").unwrap(),
                Some(NewPassword::new("a long enough password").unwrap()),
                Role::Customer,
            )
            .await
            .unwrap();
        let mut tokens = Vec::with_capacity(TOKENS);
        for _ in 0..TOKENS {
            tokens.push(identity.mint_access_token(account.id).await.unwrap().token);
        }
        (identity, tokens)
    });
    let (verifier, now) = (identity.verifier(), Clock::System.now());
    criterion.bench_function("token: known", |bencher| {
        bencher.iter(|| verifier.verify(black_box(&tokens[0]), now).unwrap());
    });
    let mut turns = tokens.iter().cycle();
    criterion.bench_function("token: not known", |bencher| {
        bencher.iter(|| {
            let token = turns.next().map(|token| verifier.verify(black_box(token), now));
            token.unwrap().unwrap()
        });
    });
}

criterion_group!(benches, tokens);
criterion_main!(benches);
