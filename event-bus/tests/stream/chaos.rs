//! Everything that can happen to the topics, the relay and the members, in any order: repeats and no gap.

use std::time::Duration;

use event_bus::{Checkpoint, Subscription};
use event_schemas::Version;

use crate::conformance::{DEADLINE, Stream as _};
use crate::kafka::{Guarded, items};
use crate::support::kafka::{Cluster, is_there};

/// Enough for each thing to happen a few times.
const STEPS: usize = 60;

/// Numbers that look random and are the same in every run: `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

struct World {
    dice: Dice,
    stream: Cluster,
    items: Vec<String>,
    appended: Vec<u64>,
    members: Vec<Subscription>,
    guarded: Guarded,
    /// What the relay had saved, from time to time.
    saved: Vec<Checkpoint>,
}

impl World {
    async fn step(&mut self) -> &'static str {
        match self.dice.roll(16) {
            0..6 => {
                for _ in 0..self.dice.roll(20) {
                    let item = self.dice.roll(self.items.len() as u64) as usize;
                    self.stream.append(&self.items[item], 1).await;
                    self.appended[item] += 1;
                }
                "append"
            }
            6..8 => {
                self.stream.relayed().await;
                let saved = self.stream.checkpoints().await.load(&"relay".into()).await;
                self.saved.extend(saved.expect("read"));
                "relay"
            }
            8 => {
                self.stream.relayed().await;
                // They may have been deleted.
                let _ = self.stream.topics.try_cut().await;
                "cut"
            }
            9 => {
                self.stream.topics.delete().await;
                "delete"
            }
            10 => {
                self.stream.stop_relay().await;
                "stop the relay"
            }
            11 => {
                self.stream.stop_relay().await;
                let back = self.dice.roll(self.saved.len() as u64 + 1) as usize;
                if let Some(before) = self.saved.get(back) {
                    let checkpoints = self.stream.checkpoints().await;
                    checkpoints
                        .save(&"relay".into(), before.clone())
                        .await
                        .expect("saved");
                }
                "a relay that did not save"
            }
            12 | 13 if self.members.len() < 3 => {
                self.members.push(self.stream.join("s").await.expect("opened"));
                "join"
            }
            14 if !self.members.is_empty() => {
                let member = self.dice.roll(self.members.len() as u64) as usize;
                drop(self.members.swap_remove(member));
                "die"
            }
            15 if !self.members.is_empty() => {
                let member = self.dice.roll(self.members.len() as u64) as usize;
                self.members[member].rewind();
                "rewind"
            }
            _ => "nothing",
        }
    }

    async fn poll(&mut self) {
        for member in &mut self.members {
            for _ in 0..=self.dice.roll(3) {
                let max = 1 + self.dice.roll(10) as usize;
                let batch = member.next_batch(max, Duration::from_millis(60)).await;
                let batch = batch.expect("a batch");
                self.guarded.handle(&batch);
                if self.dice.roll(3) > 0 {
                    member.ack(&batch).await.expect("acknowledged");
                }
            }
        }
    }

    fn complete(&self) -> bool {
        let last = |item: &String| {
            let found = self
                .guarded
                .last
                .iter()
                .find(|(stream, _)| stream.aggregate_id.as_str() == item);
            found.map_or(0, |(_, Version(last))| *last)
        };
        self.items.iter().map(last).eq(self.appended.iter().copied())
    }
}

async fn anything_may_happen(seed: u64) {
    let items = items(12);
    let mut world = World {
        dice: Dice(seed),
        stream: Cluster::empty().await,
        appended: vec![0; items.len()],
        items,
        members: Vec::new(),
        guarded: Guarded::default(),
        saved: Vec::new(),
    };
    world.stream.topics.kafka.ensure_topics().await.expect("made");
    // One member is at work before anything happens.
    world.stream.append(&world.items[0], 1).await;
    world.appended[0] = 1;
    world
        .members
        .push(world.stream.subscribe("s").await.expect("opened"));
    let first = world.members[0].next_batch(7, DEADLINE).await.expect("a batch");
    world.guarded.handle(&first);
    let mut happened = Vec::new();
    for _ in 0..STEPS {
        happened.push(world.step().await);
        world.poll().await;
    }
    world.stream.relayed().await;
    if world.members.is_empty() {
        world.members.push(world.stream.join("s").await.expect("opened"));
    }
    let deadline = tokio::time::Instant::now() + DEADLINE + DEADLINE;
    while !world.complete() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "seed {seed}: {:?} of {:?} after {happened:?}",
            world.guarded.last,
            world.appended
        );
        world.poll().await;
    }
    eprintln!("seed {seed}: {} repeats", world.guarded.repeats);
}

#[tokio::test]
async fn whatever_happens_there_are_repeats_and_no_gap() {
    if !is_there() {
        return;
    }
    let seeds = std::env::var("OMISYS_TEST_SEEDS").unwrap_or_else(|_| "1".to_owned());
    for seed in seeds.split(',') {
        anything_may_happen(seed.parse().expect("a number")).await;
    }
}
