//! A command happens once, and its receipt says so for good.

use event_schemas::{Position, Version};

use super::{
    Fixture, Process, ShelfCommand, TooFew, check_log, command_id, fingerprints, order, request, request_as,
};
use crate::{CommandRequest, ExecuteError, FindReceiptError, Fingerprints, Receipt};

fn replay_of(receipt: &Receipt) -> Receipt {
    Receipt {
        replayed: true,
        ..receipt.clone()
    }
}

pub async fn a_repeat_gets_the_first_receipt(fixture: &impl Fixture) {
    let id = command_id();
    let process = Process::start(fixture).await;
    let put = || request_as(id, ShelfCommand::Put(1));
    let first = process.shelves.submit("mug", put()).await.unwrap();
    assert!(!first.replayed);
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    assert_eq!(process.shelves.submit("mug", put()).await, Ok(replay_of(&first)));
    // Beyond what an executor remembers.
    for _ in 0..100 {
        process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    }
    assert_eq!(process.shelves.submit("mug", put()).await, Ok(replay_of(&first)));
    // And where nothing is remembered.
    assert_eq!(
        Process::start(fixture).await.shelves.submit("mug", put()).await,
        Ok(replay_of(&first))
    );
    // An id belongs to its stream: the same one elsewhere is another command.
    assert!(!process.shelves.submit("cup", put()).await.unwrap().replayed);
    assert_eq!(check_log(fixture).await.len(), 103);
}

pub async fn fifty_repeats_at_once_have_one_outcome(fixture: &impl Fixture) {
    let process = Process::start_patient(fixture).await;
    one_outcome(fixture, &[process]).await;
}

pub async fn repeats_in_two_processes_have_one_outcome(fixture: &impl Fixture) {
    let processes = [
        Process::start_patient(fixture).await,
        Process::start_patient(fixture).await,
    ];
    one_outcome(fixture, &processes).await;
}

async fn one_outcome(fixture: &impl Fixture, processes: &[Process]) {
    let id = command_id();
    let (mut pending, mut others) = (Vec::new(), Vec::new());
    for ordinal in 0..50 {
        let shelves = &processes[ordinal % processes.len()].shelves;
        pending.push(shelves.submit("mug", request_as(id, ShelfCommand::Put(1))));
        // Others in between, so that it stands inside chains.
        others.push(shelves.submit("mug", request(ShelfCommand::Put(1))));
    }
    let mut receipts = Vec::new();
    for pending in pending {
        receipts.push(pending.await.unwrap());
    }
    for other in others {
        assert!(!other.await.unwrap().replayed);
    }
    let firsts: Vec<_> = receipts.iter().filter(|receipt| !receipt.replayed).collect();
    assert_eq!(firsts.len(), 1);
    assert!(
        receipts
            .iter()
            .all(|receipt| replay_of(receipt) == replay_of(firsts[0]))
    );
    for process in processes {
        assert_eq!(process.units("mug").await, 51);
    }
    assert_eq!(check_log(fixture).await.len(), 51);
}

pub async fn another_body_under_the_same_id_is_told_apart(fixture: &impl Fixture) {
    let id = command_id();
    let with = |fingerprints| {
        let mut request = request_as(id, ShelfCommand::Put(1));
        request.fingerprints = fingerprints;
        request
    };
    let process = Process::start(fixture).await;
    let run = async |fingerprints| process.shelves.submit("mug", with(fingerprints)).await;
    let first = run(fingerprints(1, &["old"])).await.unwrap();
    assert_eq!(run(fingerprints(1, &["old"])).await, Ok(replay_of(&first)));
    assert_eq!(run(fingerprints(2, &["old"])).await, Err(ExecuteError::KeyReused));
    // After the key has been rotated.
    assert_eq!(run(fingerprints(1, &["new", "old"])).await, Ok(replay_of(&first)));
    assert_eq!(
        run(fingerprints(2, &["new", "old"])).await,
        Err(ExecuteError::KeyReused)
    );
    assert_eq!(run(fingerprints(1, &["new"])).await, Err(ExecuteError::KeyReused));
    // A policy repeats a handler's command without a body.
    assert_eq!(run(Fingerprints::none()).await, Ok(replay_of(&first)));
    let elsewhere = Process::start(fixture).await;
    let reused = elsewhere
        .shelves
        .submit("mug", with(fingerprints(2, &["old"])))
        .await;
    assert_eq!(reused, Err(ExecuteError::KeyReused));
    let found = process
        .shelves
        .find_receipt("mug", id, &fingerprints(2, &["old"]))
        .await;
    assert_eq!(found, Err(FindReceiptError::KeyReused));
    assert_eq!(process.units("mug").await, 1);
}

pub async fn an_accepted_command_without_events_leaves_a_receipt(fixture: &impl Fixture) {
    let id = command_id();
    let process = Process::start(fixture).await;
    process.run("cup", ShelfCommand::Put(1)).await.unwrap();
    let touch = || request_as(id, ShelfCommand::Touch);
    let first = process.shelves.submit("mug", touch()).await.unwrap();
    assert_eq!(
        (first.version, first.position, first.replayed),
        (Version(0), Position(1), false)
    );
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    for process in [&process, &Process::start(fixture).await] {
        assert_eq!(
            process.shelves.submit("mug", touch()).await,
            Ok(replay_of(&first))
        );
    }
}

pub async fn a_refusal_leaves_nothing(fixture: &impl Fixture) {
    let id = command_id();
    let process = Process::start(fixture).await;
    let take = || {
        process
            .shelves
            .submit("mug", request_as(id, ShelfCommand::Take(order(1), 1)))
    };
    assert_eq!(take().await, Err(ExecuteError::Refused(TooFew { units: 0 })));
    assert_eq!(
        process
            .shelves
            .find_receipt("mug", id, &Fingerprints::none())
            .await,
        Ok(None)
    );
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    assert!(!take().await.unwrap().replayed);
}

/// Race 4, as far as the executor sees it: what was accepted once is not refused later.
pub async fn a_refused_repeat_finds_its_receipt(fixture: &impl Fixture) {
    let id = command_id();
    let process = Process::start(fixture).await;
    process.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let take = || request_as(id, ShelfCommand::Take(order(1), 1));
    let first = process.shelves.submit("mug", take()).await.unwrap();
    let elsewhere = Process::start(fixture).await;
    for process in [&process, &elsewhere] {
        assert_eq!(process.shelves.submit("mug", take()).await, Ok(replay_of(&first)));
        let mut matching = take();
        matching.expected_version = Some(Version(1));
        assert_eq!(
            process.shelves.submit("mug", matching).await,
            Ok(replay_of(&first))
        );
    }
}

pub async fn receipts_are_found_behind_commands_on_their_way(fixture: &impl Fixture) {
    let (ours, theirs) = (Process::start(fixture).await, Process::start(fixture).await);
    ours.run("mug", ShelfCommand::Put(1)).await.unwrap();
    // Our command is in conflict with theirs and comes back; the question must not overtake it.
    theirs.run("mug", ShelfCommand::Put(1)).await.unwrap();
    let id = command_id();
    let pending = ours.shelves.submit("mug", request_as(id, ShelfCommand::Put(1)));
    let found = ours
        .shelves
        .find_receipt("mug", id, &Fingerprints::none())
        .await
        .unwrap();
    let receipt = pending.await.unwrap();
    assert_eq!(found, Some(replay_of(&receipt)));
    // Also of an aggregate that is not in memory.
    let elsewhere = Process::start(fixture).await;
    assert_eq!(
        elsewhere
            .shelves
            .find_receipt("mug", id, &Fingerprints::none())
            .await,
        Ok(found)
    );
}

pub async fn everything_acknowledged_survives_a_restart(fixture: &impl Fixture) {
    let mut acknowledged = Vec::new();
    for life in 0..3 {
        let process = Process::start(fixture).await;
        let pending: Vec<_> = (0..200)
            .map(|ordinal| {
                let shelf = format!("shelf-{}", ordinal % 7);
                let request = request(ShelfCommand::Put(1));
                (
                    shelf.clone(),
                    request.clone(),
                    process.shelves.submit(shelf.as_str(), request),
                )
            })
            .collect();
        for (shelf, request, pending) in pending {
            acknowledged.push((shelf, request, pending.await.unwrap()));
        }
        assert_eq!(acknowledged.len(), (life + 1) * 200);
    }
    assert_eq!(check_log(fixture).await.len(), acknowledged.len());
    let process = Process::start(fixture).await;
    for (shelf, request, receipt) in acknowledged {
        assert_eq!(
            process.shelves.submit(shelf.as_str(), request).await,
            Ok(replay_of(&receipt))
        );
    }
}

/// As when a saga goes over its events again.
pub async fn hundreds_of_repeats_among_new_commands_are_told_apart(fixture: &impl Fixture) {
    let process = Process::start(fixture).await;
    let mut known = Vec::new();
    for _ in 0..300 {
        let put = request(ShelfCommand::Put(1));
        let receipt = process.shelves.submit("mug", put.clone()).await.unwrap();
        known.push((put, receipt));
    }
    let process = Process::start(fixture).await;
    let mut pending = Vec::new();
    for (put, receipt) in known {
        pending.push((Some(receipt), process.shelves.submit("mug", put)));
        pending.push((None, process.shelves.submit("mug", request(ShelfCommand::Put(1)))));
    }
    let mut version = 300;
    for (known, pending) in pending {
        let receipt = pending.await.unwrap();
        if let Some(known) = known {
            assert_eq!(receipt, replay_of(&known));
        } else {
            version += 1;
            assert_eq!((receipt.version, receipt.replayed), (Version(version), false));
        }
    }
    assert_eq!(check_log(fixture).await.len(), 600);
}

pub async fn a_process_that_dies_in_the_middle_leaves_a_whole_log(fixture: &impl Fixture) {
    let mut requests = Vec::new();
    for _ in 0..5 {
        // A runtime of its own, which ends with whatever is between the mailbox and the commit.
        let died = std::thread::scope(|scope| scope.spawn(|| die_in_the_middle(fixture)).join());
        requests.extend(died.unwrap());
        check_log(fixture).await;
    }
    // The clients come back with all of them: each happens exactly once.
    let process = Process::start(fixture).await;
    for (shelf, request) in requests {
        process
            .shelves
            .enqueue(shelf.as_str(), request)
            .await
            .await
            .unwrap();
    }
    assert_eq!(check_log(fixture).await.len(), 5 * 300 * 3);
}

fn die_in_the_middle(fixture: &impl Fixture) -> Vec<(String, CommandRequest<ShelfCommand>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut requests = Vec::new();
    runtime.block_on(async {
        let process = Process::start(fixture).await;
        for ordinal in 0..300 {
            let shelf = format!("shelf-{}", ordinal % 7);
            let request = request(ShelfCommand::PutOneByOne(3));
            let pending = process.shelves.submit(shelf.as_str(), request.clone());
            requests.push((shelf, request));
            if ordinal == 150 {
                pending.await.unwrap();
            }
        }
    });
    runtime.shutdown_background();
    requests
}
