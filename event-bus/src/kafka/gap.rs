//! What a subscriber lacks, read from the log: by which rule, from where, and how far.
//!
//! A record says which position its partition had before it. A subscriber that stands lower lacks something: retention
//! has cut it, the topic was deleted, offsets were lost. And the relay's checkpoint says which position each partition
//! was last given: a subscriber that stays below it while nothing comes lacks something, too.

use std::collections::BTreeMap;

use event_schemas::{Position, Timestamp};

use crate::{Checkpoint, Lag, PartitionKey, lag};

/// What a subscriber knows of a partition that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// Everything up to here has been delivered.
    pub(super) delivered: Position,
    /// Everything up to here has been acknowledged.
    pub(super) acknowledged: Position,
    /// The offset that delivery goes on from; none until a record came.
    pub(super) offset: Option<i64>,
    /// The offset that a rewind goes back to.
    pub(super) acknowledged_offset: Option<i64>,
    /// Where it stood at the last look, if it was behind the relay then.
    behind_at: Option<Position>,
    /// What it had been given and had not acknowledged when its lag was measured, and when that was.
    awaited: Option<(Position, Timestamp)>,
}

impl Owned {
    pub(super) fn at(position: Position) -> Self {
        Self {
            delivered: position,
            acknowledged: position,
            offset: None,
            acknowledged_offset: None,
            behind_at: None,
            awaited: None,
        }
    }
}

/// A part of the log that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fill {
    /// Read up to here.
    pub(super) read: Position,
    /// To be read up to and with this.
    pub(super) target: Position,
    /// For these partitions.
    pub(super) keys: Vec<PartitionKey>,
}

type Partitions = BTreeMap<PartitionKey, Owned>;

/// What the relay says it last gave to `key`; none if it has not said.
fn given(relay: Option<&Checkpoint>, key: PartitionKey) -> Option<Position> {
    let named = relay?.positions().iter().find(|(named, _)| *named == key)?;
    Some(named.1)
}

/// What to read because `gap` was told of nothing between its place and `after`. One read serves all partitions that are
/// behind, so that however many have gaps, the log is read once.
pub(super) fn fill_gap(
    owned: &Partitions,
    relay: Option<&Checkpoint>,
    gap: PartitionKey,
    after: Position,
) -> Option<Fill> {
    let behind =
        |key: PartitionKey, owned: &Owned| given(relay, key).is_some_and(|last| owned.delivered < last);
    let mut fill: Option<Fill> = None;
    for (key, place) in owned {
        let lags = behind(*key, place);
        if *key != gap && !(lags && place.delivered < after) {
            continue;
        }
        // The relay gave it nothing beyond its place, up to where the relay is.
        let complete = match relay {
            Some(relay) if !lags && given(Some(relay), *key).is_some() => {
                place.delivered.max(relay.position())
            }
            _ => place.delivered,
        };
        extend(&mut fill, *key, complete, after);
    }
    fill.filter(|fill| fill.read < fill.target)
}

/// What to read because partitions have stayed where they were since the last look, behind what the relay had given them.
pub(super) fn fill_idle(owned: &mut Partitions, relay: Option<&Checkpoint>) -> Option<Fill> {
    let mut fill = None;
    for (key, place) in owned {
        let last = given(relay, *key).filter(|last| place.delivered < *last);
        match last {
            Some(last) if place.behind_at == Some(place.delivered) => {
                extend(&mut fill, *key, place.delivered, last);
            }
            Some(_) => place.behind_at = Some(place.delivered),
            None => place.behind_at = None,
        }
    }
    fill
}

/// How far the partition that is furthest behind is behind what the relay has given it.
pub(super) fn behind_relay(owned: &mut Partitions, relay: Option<&Checkpoint>, now: Timestamp) -> Lag {
    let mut most = Lag::default();
    for (key, place) in owned {
        let Some(last) = given(relay, *key).filter(|last| place.acknowledged < *last) else {
            place.awaited = None;
            continue;
        };
        // What was awaited then may have come since: then something newer is awaited, since now at most.
        let awaited = place.awaited.filter(|(last, _)| place.acknowledged < *last);
        let (_, awaited_since) = *place.awaited.insert(awaited.unwrap_or((last, now)));
        most.positions = most.positions.max(last.0 - place.acknowledged.0);
        most.seconds = most.seconds.max(lag::since(awaited_since, now));
    }
    most
}

fn extend(fill: &mut Option<Fill>, key: PartitionKey, from: Position, target: Position) {
    let fill = fill.get_or_insert_with(|| Fill {
        read: from,
        target,
        keys: Vec::new(),
    });
    fill.read = fill.read.min(from);
    fill.target = fill.target.max(target);
    fill.keys.push(key);
}

#[cfg(test)]
mod tests {
    use event_schemas::{AggregateType, LogIdentity};

    use super::*;

    fn key(index: u16) -> PartitionKey {
        PartitionKey::Topic {
            aggregate_type: AggregateType::Order,
            index,
            of: 4,
        }
    }

    fn places(places: &[u64]) -> Partitions {
        (0..)
            .zip(places)
            .map(|(index, place)| (key(index), Owned::at(Position(*place))))
            .collect()
    }

    fn relay(at: u64, given: &[u64]) -> Checkpoint {
        let log = LogIdentity {
            log_id: event_schemas::derive_uuid("test", &[]),
            epoch: 1,
        };
        let mut relay = Checkpoint::at(log, Position(at));
        for (index, position) in (0..).zip(given) {
            relay.advance(key(index), Position(*position));
        }
        relay
    }

    #[test]
    fn a_gap_is_read_for_all_that_are_behind_and_for_no_other() {
        // 0 has the gap, 1 is behind, 2 has had all that it was given, 3 is behind but beyond the gap.
        let owned = places(&[10, 7, 3, 60]);
        let relay = relay(100, &[90, 80, 3, 70]);
        assert_eq!(
            fill_gap(&owned, Some(&relay), key(0), Position(50)),
            Some(Fill {
                read: Position(7),
                target: Position(50),
                keys: vec![key(0), key(1)],
            })
        );
    }

    #[test]
    fn what_the_relay_vouches_for_is_not_read_again() {
        // The partition has had everything up to where the relay has saved; the gap is beyond.
        let owned = places(&[10]);
        let saved = relay(100, &[10]);
        let fill = fill_gap(&owned, Some(&saved), key(0), Position(120)).map(|fill| fill.read);
        assert_eq!(fill, Some(Position(100)));
        // The relay has said nothing of it.
        for unknown in [None, Some(&relay(100, &[]))] {
            let fill = fill_gap(&owned, unknown, key(0), Position(120)).map(|fill| fill.read);
            assert_eq!(fill, Some(Position(10)));
        }
    }

    #[test]
    fn only_who_stays_behind_between_two_looks_lacks_something() {
        let mut owned = places(&[10, 20, 5]);
        let relay = relay(100, &[90, 80, 5]);
        assert_eq!(fill_idle(&mut owned, Some(&relay)), None);
        // 1 has moved meanwhile.
        if let Some(moved) = owned.get_mut(&key(1)) {
            moved.delivered = Position(30);
        }
        assert_eq!(
            fill_idle(&mut owned, Some(&relay)),
            Some(Fill {
                read: Position(10),
                target: Position(90),
                keys: vec![key(0)],
            })
        );
        assert_eq!(fill_idle(&mut owned, None), None);
    }

    #[test]
    fn what_is_awaited_ages_until_it_comes() {
        let mut owned = places(&[10, 20]);
        let at = |second| Timestamp::from_second(second).expect("a time");
        let lag = |positions, seconds| Lag { positions, seconds };
        let saved = relay(100, &[10, 80]);
        assert_eq!(behind_relay(&mut owned, Some(&saved), at(5)), lag(60, 0.0));
        let saved = relay(200, &[10, 190]);
        assert_eq!(behind_relay(&mut owned, Some(&saved), at(8)), lag(170, 3.0));
        // What was awaited has come; what is awaited now came later.
        if let Some(moved) = owned.get_mut(&key(1)) {
            moved.acknowledged = Position(85);
        }
        assert_eq!(behind_relay(&mut owned, Some(&saved), at(9)), lag(105, 0.0));
        assert_eq!(behind_relay(&mut owned, Some(&saved), at(10)), lag(105, 1.0));
        if let Some(moved) = owned.get_mut(&key(1)) {
            moved.acknowledged = Position(190);
        }
        assert_eq!(behind_relay(&mut owned, Some(&saved), at(11)), Lag::default());
    }
}
