//! A process that is killed while it commands, and what its clients were told.
#![allow(clippy::unwrap_used, reason = "support of tests")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use event_schemas::{CommandId, Position, Version};
use event_store::conformance::{Process, Shelf, ShelfCommand, command_id, request_as};
use event_store::{Executor, RawEvent};

/// Tells the process that is killed where its log is.
const PLACE: &str = "OMISYS_TEST_LOG";

/// What a client was told.
pub struct Acknowledged {
    shelf: String,
    id: CommandId,
    version: Version,
    position: Position,
}

/// Every command has the events that its client was told of, and a repeat of it hears the same.
pub async fn check_acknowledged(process: &Process, raw: &[RawEvent], acknowledged: &[Acknowledged]) {
    let mut repeats = Vec::new();
    for told in acknowledged {
        let event = &raw[told.position.0 as usize - 1];
        assert_eq!(
            (event.aggregate_id.as_str(), event.version),
            (told.shelf.as_str(), told.version)
        );
        assert!(event.metadata.contains(&told.id.to_string()));
        let repeat = request_as(told.id, ShelfCommand::PutOneByOne(2));
        repeats.push(process.shelves.enqueue(told.shelf.as_str(), repeat).await);
    }
    for (told, repeat) in acknowledged.iter().zip(repeats) {
        let receipt = repeat.await.unwrap();
        assert!(receipt.replayed);
        assert_eq!((receipt.version, receipt.position), (told.version, told.position));
    }
}

/// Runs this test binary's test `commands_until_killed` as another process, with the log at `place`, and kills it once
/// it has acknowledged `enough`.
pub fn live_and_be_killed(place: &str, enough: usize) -> Vec<Acknowledged> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commands_until_killed", "--ignored", "--nocapture"])
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        // The last line may be cut off.
        if let ["ack", shelf, id, version, position, "."] = words[..] {
            acknowledged.push(Acknowledged {
                shelf: shelf.to_owned(),
                id: id.parse().unwrap(),
                version: Version(version.parse().unwrap()),
                position: Position(position.parse().unwrap()),
            });
        }
        if acknowledged.len() == enough {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// Where the log is, in the process that is killed.
pub fn place() -> Option<String> {
    std::env::var(PLACE).ok()
}

/// Commands, and says so, until it is killed.
pub async fn command(process: &Process) {
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let shelves: Executor<Shelf> = process.shelves.clone();
            tokio::spawn(async move {
                let shelf = format!("shelf-{}", caller % 5);
                // Bounded, should nobody come to kill it.
                for _ in 0..100_000 {
                    let id = command_id();
                    let put = request_as(id, ShelfCommand::PutOneByOne(2));
                    let receipt = shelves.submit(shelf.as_str(), put).await.unwrap();
                    println!("ack {shelf} {id} {} {} .", receipt.version, receipt.position);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}
