//! What a file holds, and that all of it comes back.

use super::*;

/// Lines without what has to differ: header, the sagas' places, the hash. Rows have no order.
fn comparable(path: &Path) -> (BTreeSet<String>, Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut rows, mut log) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        if line.starts_with("{\"row\"") {
            rows.insert(line.to_owned());
        } else if line.starts_with("{\"specversion\"") || line.starts_with("{\"receipt\"") {
            log.push(line.to_owned());
        }
    }
    (rows, log)
}

async fn a_log_moves(from: TestDatabase, to: TestDatabase) {
    let source = busy_shop(from).await;
    let first = copy_of(&source, "first").await;
    let imported = bring_to(to.database(), &first).await.unwrap();
    assert_eq!(imported.log.log_id, source.log.identity().log_id);
    assert!(imported.log.epoch > source.log.identity().epoch);
    let places = Checkpoints::open(to.database()).await.unwrap();
    let place = places.load(&Arc::from(sagas::SUBSCRIBER)).await.unwrap();
    let all = event_bus::Checkpoint::at(imported.log, imported.head);
    assert_eq!(place, Some(all), "its sagas go on where they stood");
    let moved = shop_on(to, source.sandbox.clone(), &source.hand).await;
    assert_eq!(moved.log.identity(), imported.log);
    let second = copy_of(&moved, "second").await;
    let (rows, log) = comparable(&first);
    assert_eq!(
        comparable(&second),
        (rows.clone(), log.clone()),
        "an export of an import is the export"
    );
    for kept in ["timers", "secrets"] {
        let line = format!("{{\"row\":{{\"table\":\"{kept}\"");
        assert!(rows.iter().any(|row| row.starts_with(&line)), "{kept} are in it");
    }
    assert!(
        log.iter()
            .any(|line| line.contains("\"fingerprint_key\":\"key-1\""))
    );
    let head = source.log.head().await.unwrap();
    let raw = source.log.read_raw(Position(0), 10_000).await.unwrap();
    assert_eq!(raw.len() as u64, head.0);
    assert_eq!(
        moved.log.read_raw(Position(0), 10_000).await.unwrap(),
        raw,
        "byte for byte"
    );
    let receipts = source.log.read_raw_receipts(None, head, 10_000).await.unwrap();
    assert_eq!(
        moved.log.read_raw_receipts(None, head, 10_000).await.unwrap(),
        receipts
    );
    assert!(
        receipts.iter().any(|receipt| receipt.first > receipt.last),
        "also of commands without events"
    );
    let paged = moved
        .log
        .read_raw_receipts(receipts.get(4), head, 3)
        .await
        .unwrap();
    assert_eq!(paged, receipts[5..8], "page by page");
    assert_same_views(&source.log, &moved.log).await;
    assert_same_views(&moved.log, &source.log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_moves_within_sqlite() {
    a_log_moves(TestDatabase::sqlite(), TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_moves_from_sqlite_to_postgresql() {
    if let Some(postgres) = postgres().await {
        a_log_moves(TestDatabase::sqlite(), postgres).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_moves_from_postgresql_to_sqlite() {
    if let Some(postgres) = postgres().await {
        a_log_moves(postgres, TestDatabase::sqlite()).await;
    }
}

/// What the sagas of a cluster had handled, in parts of a stream that another profile does not have.
#[tokio::test(flavor = "multi_thread")]
async fn places_in_partitions_become_one_place_in_the_log() {
    let (source, order) = interrupted(Faults::die_at(BEFORE_CHECKPOINT, 4), token::OK).await;
    let events = source.log.read_raw(Position(0), 1_000).await.unwrap();
    let part = |of: u16| {
        move |event: &event_store::RawEvent| {
            let stream = event_schemas::StreamId {
                aggregate_type: event.aggregate_type.parse().unwrap(),
                aggregate_id: event.aggregate_id.clone(),
            };
            event_bus::Partitioning::Kafka { partitions: of }.of(&stream)
        }
    };
    // All parts have everything but one, which lacks its last event.
    let lacking = part(3)(
        events
            .iter()
            .rev()
            .find(|event| event.aggregate_type == "inventory")
            .unwrap(),
    );
    let last = events
        .iter()
        .rev()
        .find(|event| part(3)(event) == lacking)
        .unwrap()
        .position;
    let rows: Vec<(PartitionKey, Position)> = event_bus::Partitioning::Kafka { partitions: 3 }
        .all()
        .into_iter()
        .map(|key| {
            let up_to = if key == lacking {
                last.0 - 1
            } else {
                events.len() as u64
            };
            (key, Position(up_to))
        })
        .collect();
    let log = source.log.identity();
    let save = source.database.write(move |session| {
        Checkpoints::forget_all_in(session)?;
        let mut checkpoint = event_bus::Checkpoint::start(log);
        for (key, position) in rows {
            checkpoint.advance(key, position);
        }
        Checkpoints::save_in(session, sagas::SUBSCRIBER, &checkpoint)
    });
    save.await.map_err(|error: DatabaseError| error).unwrap();
    let copy = copy_of(&source, "copy").await;
    let test = TestDatabase::sqlite();
    let imported = bring_to(test.database(), &copy).await.unwrap();
    assert_eq!(imported.sagas, Position(last.0 - 1));
    let _ = (order, AggregateType::Inventory);
}

/// Something done to the lines of a file.
type Change = Box<dyn Fn(&mut Vec<String>)>;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a list of what can be done to a file")]
async fn a_file_that_was_changed_is_refused_and_the_store_stays_unused() {
    let source = busy_shop(TestDatabase::sqlite()).await;
    let path = copy_of(&source, "good").await;
    let good: Vec<String> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let (count, row) = (good.len(), 2);
    let receipt = good
        .iter()
        .position(|line| line.starts_with("{\"receipt\""))
        .unwrap();
    let event = good
        .iter()
        .position(|line| line.starts_with("{\"specversion\""))
        .unwrap();
    let changes: Vec<(&str, Change)> = vec![
        (
            "a receipt is missing",
            Box::new(move |lines| drop(lines.remove(receipt + 1))),
        ),
        (
            "an event is missing",
            Box::new(move |lines| drop(lines.remove(event + 1))),
        ),
        (
            "the last event is missing",
            Box::new(move |lines| drop(lines.remove(receipt - 1))),
        ),
        ("a row is missing", Box::new(move |lines| drop(lines.remove(row)))),
        (
            "an event is twice",
            Box::new(move |lines| lines.insert(event, lines[event].clone())),
        ),
        (
            "events are swapped",
            Box::new(move |lines| lines.swap(event, event + 1)),
        ),
        (
            "receipts are swapped",
            Box::new(move |lines| lines.swap(receipt, receipt + 1)),
        ),
        (
            "a payload is changed",
            Box::new(move |lines| {
                let line = lines
                    .iter_mut()
                    .find(|line| line.contains("\"quantity\":50"))
                    .unwrap();
                *line = line.replace("\"quantity\":50", "\"quantity\":99");
            }),
        ),
        (
            "a fingerprint is changed",
            Box::new(|lines| {
                let line = lines.iter_mut().find(|line| line.contains("0707")).unwrap();
                *line = line.replacen("0707", "0708", 1);
            }),
        ),
        ("the end is missing", Box::new(|lines| drop(lines.pop()))),
        (
            "half of it is missing",
            Box::new(move |lines| lines.truncate(count / 2)),
        ),
        (
            "something follows",
            Box::new(|lines| lines.push(lines[0].clone())),
        ),
    ];
    let test = TestDatabase::sqlite();
    for (what, change) in changes {
        let mut lines = good.clone();
        change(&mut lines);
        assert_ne!(lines, good, "{what}");
        let bad = source.dir.path().join("bad");
        std::fs::write(&bad, lines.join("\n") + "\n").unwrap();
        let refused = bring_to(test.database(), &bad).await;
        assert!(
            matches!(refused, Err(BringError::File(_))),
            "{what}: {:?}",
            refused.err()
        );
        let opened = Log::open(test.database(), LogOptions::default()).await;
        assert!(matches!(opened.err(), Some(ReadError::Unfinished)), "{what}");
    }
    let cut = source.dir.path().join("cut");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 10]).unwrap();
    assert!(
        bring_to(test.database(), &cut).await.is_err(),
        "cut in its last line"
    );
    let other = BringError::File(FileError::Damaged(String::new()));
    let mut file = FileReader::open(&path).unwrap();
    let header = file.header().unwrap();
    let unexpected = import::import(test.database(), header, file, Some("00".to_owned())).await;
    assert!(unexpected.is_err_and(|error| std::mem::discriminant(&error) == std::mem::discriminant(&other)));
    // It begins anew, whatever an earlier one had left behind.
    bring_to(test.database(), &path).await.unwrap();
    let log = Log::open(test.database(), LogOptions::default()).await.unwrap();
    assert_eq!(log.head().await, source.log.head().await);
    let again = bring_to(test.database(), &path).await;
    assert!(
        matches!(again, Err(BringError::Store(ImportError::NotEmpty(_)))),
        "it is not empty any more"
    );
    let untouched = Log::open(test.database(), LogOptions::default()).await.unwrap();
    assert_eq!(untouched.identity(), log.identity());
}

/// Two restores of one backup are two histories: neither takes what is left of the other for its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_one_log_have_different_epochs() {
    let source = busy_shop(TestDatabase::sqlite()).await;
    let path = copy_of(&source, "copy").await;
    let mut epochs: Vec<LogIdentity> = vec![source.log.identity()];
    for _ in 0..2 {
        // As far apart as two restores are at least.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let test = TestDatabase::sqlite();
        epochs.push(bring_to(test.database(), &path).await.unwrap().log);
    }
    assert!(
        epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch),
        "{epochs:?}"
    );
}

/// What cannot be an event travels all the same, byte for byte.
#[test]
fn every_byte_of_an_event_comes_back() {
    let folder = TempDir::new().unwrap();
    for name in ["plain", "zipped.gz"] {
        let path = folder.path().join(name);
        let mut file = FileWriter::create(&path).unwrap();
        let log = LogIdentity {
            log_id: event_schemas::derive_uuid("test", &[]),
            epoch: 3,
        };
        let payloads = [
            "{\"A\":{ \"b\" : 1.0e3}}",
            "{\"A\":\n{}}",
            "no json",
            " {}",
            "",
            "{\"é\":\"\\u00e9\"}",
        ];
        file.header(file::Header::new(
            log,
            Position(6),
            "2024-05-01T12:00:00.000001Z".parse().unwrap(),
            None,
            &[],
        ))
        .unwrap();
        let events: Vec<event_store::RawEvent> = (1..)
            .zip(payloads)
            .map(|(position, payload)| event_store::RawEvent {
                position: Position(position),
                aggregate_type: "order".to_owned(),
                aggregate_id: event_schemas::AggregateId::from("a/b"),
                version: event_schemas::Version(position),
                event_type: "A".to_owned(),
                event_version: "1.0".to_owned(),
                payload: payload.to_owned(),
                metadata: "{\"correlation_id\":\"x\"}".to_owned(),
                recorded_at: "2024-05-01T12:00:00.000001Z".parse().unwrap(),
            })
            .collect();
        for event in &events {
            file.event(event).unwrap();
        }
        assert!(!path.exists(), "half a file has no name");
        file.finish().unwrap();
        assert!(FileWriter::create(&path).is_err(), "nothing is overwritten");
        let mut file = FileReader::open(&path).unwrap();
        assert_eq!(file.header().unwrap().log, log);
        for event in events {
            assert_eq!(file.next().unwrap(), Line::Event(event));
        }
        assert!(matches!(file.next().unwrap(), Line::End(_)));
    }
}

/// The structured mode of `CloudEvents` 1.0.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_a_cloud_event_and_the_hash_is_that_of_sha256sum() {
    let source = busy_shop(TestDatabase::sqlite()).await;
    let path = copy_of(&source, "copy").await;
    let text = std::fs::read_to_string(&path).unwrap();
    let mut ids = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("{\"specversion\"")) {
        let event: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        for (name, value) in &event {
            let plain = name
                .chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
            assert!(plain && name.len() <= 20, "{name}");
            assert!(
                name == "data" || value.as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {value}"
            );
        }
        assert_eq!(event["specversion"], "1.0");
        assert!(event["source"].as_str().unwrap().starts_with("/omisys/logs/"));
        assert!(event["data"].is_object() && event["datacontenttype"] == "application/json");
        assert!(
            event.contains_key("type") && event.contains_key("time") && event.contains_key("correlationid")
        );
        assert!(
            ids.insert(event["id"].to_string()),
            "source and id name one event"
        );
    }
    let last = text.lines().last().unwrap();
    let end: Value = serde_json::from_str(last).unwrap();
    assert_eq!(ids.len() as u64, end["end"]["events"]);
    let before = text.strip_suffix(&format!("{last}\n")).unwrap();
    let summed = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("head -n -1 '{}' | sha256sum", path.display()))
        .output()
        .unwrap();
    assert!(!before.is_empty());
    let summed = String::from_utf8(summed.stdout).unwrap();
    assert_eq!(summed.split_whitespace().next(), end["end"]["sha256"].as_str());
}

/// A table that somebody adds is kept, or left out for a reason that is written down here.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_kept_or_left_out_on_purpose() {
    const LEFT_OUT: [&str; 10] = [
        // The log itself, which has lines of its own.
        "events",
        "stream_names",
        "stream_rows",
        "log_head",
        // The currency is in the header.
        "shop",
        // The sagas' have lines of their own; everyone else's are of another epoch.
        "checkpoints",
        // Of this database, not of the log.
        "schema_versions",
        "unfinished_import",
        // An epoch's own.
        "reconciled",
        // Somebody waited for the outcome then; the letters themselves are kept, and can be asked about again.
        "dead_letter_requests",
    ];
    let test = TestDatabase::sqlite();
    Log::open(test.database(), LogOptions::default()).await.unwrap();
    prepare(test.database()).await.unwrap();
    stores::currency(test.database()).await.unwrap();
    let read = test.database().read(|session| {
        session.query(
            "SELECT name FROM sqlite_master WHERE type = 'table'",
            &[],
            |row| row.get::<String>(0),
        )
    });
    let tables: Vec<String> = read.await.map_err(|error: DatabaseError| error).unwrap();
    let kept: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(kept.len(), 5);
    for table in &tables {
        // One that was ended would be open again.
        let sessions = table == "refresh_families";
        assert!(
            kept.contains(table.as_str()) || LEFT_OUT.contains(&table.as_str()) || sessions,
            "{table} is neither kept nor left out"
        );
    }
    assert!(kept.iter().all(|name| tables.iter().any(|table| table == name)));
}
