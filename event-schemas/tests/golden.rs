//! The golden files are the log's format. They are never deleted; a new version adds a file, a new optional field adds
//! an example to the end of one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use event_schemas::{
    AggregateType, CartEvent, Event, InventoryEvent, OrderEvent, PaymentEvent, ProductEvent, Upcasters,
    decode,
    schemas::{self, EventSchema},
};
use serde_json::Value;

/// Set it (to anything) to write the files and examples that are missing. What is there is never changed.
const WRITE_MISSING: &str = "OMISYS_WRITE_GOLDEN";

/// The golden files' folder, after what is missing has been written if it is to be.
fn golden() -> PathBuf {
    static WRITTEN: Once = Once::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    if std::env::var_os(WRITE_MISSING).is_some() {
        WRITTEN.call_once(|| write_missing(&golden));
    }
    golden
}

fn write_missing(golden: &Path) {
    for ((aggregate_type, name, version), events) in by_type() {
        let folder = golden.join(aggregate_type.as_str());
        let path = folder.join(format!("{name}-{version}.json"));
        if adds_to(&fs::read_to_string(&path).unwrap_or_default(), &events) {
            fs::create_dir_all(folder).unwrap();
            fs::write(&path, golden_text(&events)).unwrap();
        }
    }
    let list = golden.join(VERSIONS);
    let mut listed = fs::read_to_string(&list).unwrap_or_default();
    for line in schemas::events().iter().map(line) {
        if !listed.contains(&line) {
            listed.push_str(&line);
        }
    }
    fs::write(list, listed).unwrap();
}

fn folder(aggregate_type: AggregateType) -> PathBuf {
    golden().join(aggregate_type.as_str())
}

fn types(aggregate_type: AggregateType) -> &'static [(&'static str, &'static str)] {
    match aggregate_type {
        AggregateType::Product => ProductEvent::TYPES,
        AggregateType::Inventory => InventoryEvent::TYPES,
        AggregateType::Cart => CartEvent::TYPES,
        AggregateType::Order => OrderEvent::TYPES,
        AggregateType::Payment => PaymentEvent::TYPES,
    }
}

/// The golden text of one event type: its examples as a JSON array, one a line, exactly as the log holds them.
fn golden_text(examples: &[Event]) -> String {
    let lines: Vec<String> = examples.iter().map(|event| event.to_json().unwrap()).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

fn by_type() -> BTreeMap<(AggregateType, &'static str, &'static str), Vec<Event>> {
    let mut by_type: BTreeMap<_, Vec<Event>> = BTreeMap::new();
    for event in common::examples() {
        by_type
            .entry((event.aggregate_type(), event.name(), event.schema_version()))
            .or_default()
            .push(event);
    }
    by_type
}

#[test]
fn every_event_type_has_examples_and_no_name_is_used_twice() {
    let known = by_type();
    let mut names = BTreeSet::new();
    for aggregate_type in AggregateType::ALL {
        for (name, version) in types(aggregate_type) {
            assert!(
                known.contains_key(&(aggregate_type, name, version)),
                "{name} {version} has no example"
            );
            assert!(names.insert(name), "{name} is the name of two events");
        }
    }
}

#[test]
fn what_is_written_today_equals_the_golden_files() {
    for ((aggregate_type, name, version), events) in by_type() {
        let path = folder(aggregate_type).join(format!("{name}-{version}.json"));
        let golden = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; set {WRITE_MISSING}=1 to write it", path.display()));
        assert_eq!(
            golden_text(&events),
            golden,
            "{name} {version} is written otherwise than its golden file says: give it a new version and an upcaster; \
             or add a field that may be missing, an example with it at the end, and run this with {WRITE_MISSING}=1"
        );
    }
}

/// Whether `events` are what `golden` holds, with more behind it.
fn adds_to(golden: &str, events: &[Event]) -> bool {
    let lines = golden.trim_end_matches("\n]\n");
    golden.is_empty()
        || golden_text(events)
            .strip_prefix(lines)
            .is_some_and(|rest| rest.starts_with(','))
}

#[test]
fn a_golden_file_may_gain_examples_and_lose_none() {
    let events: Vec<Event> = common::examples().into_iter().take(3).collect();
    let golden = golden_text(&events[..2]);
    assert!(adds_to("", &events) && adds_to(&golden, &events));
    assert!(!adds_to(&golden, &events[..2]), "nothing is new");
    assert!(!adds_to(&golden, &events[..1]), "one is gone");
    assert!(!adds_to(&golden, &events[1..]), "another one");
}

/// The versions that were ever written, one a line: `<aggregate> <type> <version>`. Lines are added, never removed.
const VERSIONS: &str = "versions.txt";

fn line(schema: &EventSchema) -> String {
    format!(
        "{} {} {}\n",
        schema.aggregate_type, schema.event_type, schema.event_version
    )
}

#[test]
fn no_version_that_was_ever_written_is_forgotten() {
    let listed = fs::read_to_string(golden().join(VERSIONS)).unwrap();
    let known = schemas::events();
    for line in known.iter().map(line) {
        assert!(
            listed.contains(&line),
            "{VERSIONS} lacks {line:?}; {WRITE_MISSING}=1 adds it"
        );
    }
    for line in listed.lines() {
        let [aggregate_type, name, version] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?} is no version")
        };
        let aggregate_type: AggregateType = aggregate_type.parse().unwrap();
        let file = folder(aggregate_type).join(format!("{name}-{version}.json"));
        assert!(file.exists(), "{line} was written and has no golden file");
        let has_schema = known.iter().any(|schema| {
            (schema.aggregate_type, schema.event_type, schema.event_version)
                == (aggregate_type, name, version)
        });
        assert!(
            has_schema,
            "{line} was written and has no schema: a past version is kept in src/schemas/mod.rs"
        );
    }
    let files = AggregateType::ALL
        .into_iter()
        .flat_map(|kind| fs::read_dir(folder(kind)).unwrap())
        .count();
    assert_eq!(files, listed.lines().count(), "golden files and listed versions");
}

#[test]
fn every_golden_file_ever_written_still_decodes() {
    let upcasters = Upcasters::shipped();
    let current = by_type();
    let mut files = 0;
    for aggregate_type in AggregateType::ALL {
        for entry in fs::read_dir(folder(aggregate_type)).unwrap() {
            let path = entry.unwrap().path();
            let (name, version) = path
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .split_once('-')
                .unwrap();
            let payloads: Vec<Value> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert!(!payloads.is_empty(), "{} holds no example", path.display());
            let decoded: Vec<Event> = payloads
                .iter()
                .map(|payload| {
                    decode(aggregate_type, name, version, &payload.to_string(), &upcasters)
                        .unwrap_or_else(|error| panic!("{}: {error}: {:?}", path.display(), error))
                })
                .collect();
            if let Some(events) = current.iter().find(|(key, _)| (key.1, key.2) == (name, version)) {
                assert_eq!(&decoded, events.1, "{}", path.display());
            }
            files += 1;
        }
    }
    assert!(
        files >= current.len(),
        "{files} golden files for {} event types",
        current.len()
    );
}
