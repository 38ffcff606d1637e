//! How the stream is split: which part of it carries which aggregate.

use std::fmt;
use std::str::FromStr;

use event_schemas::{AggregateType, StreamId};

/// One part of the stream. A subscriber's place is one position per part.
///
/// Written `log` and `order/3of12`. The count is part of the key: a position says what has been handled of the
/// aggregates that share a partition, and with another count others share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartitionKey {
    /// The log itself, which has every event.
    Log,
    /// A partition of the topic of one aggregate type.
    Topic {
        aggregate_type: AggregateType,
        /// From 0.
        index: u16,
        /// How many partitions the topic has.
        of: u16,
    },
}

/// How a stream is split into partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// Not at all: the log is read.
    Log,
    /// One topic per aggregate type, each with so many partitions (at least 1).
    Kafka { partitions: u16 },
}

impl Partitioning {
    /// The partition that carries the events of `stream`.
    pub fn of(self, stream: &StreamId) -> PartitionKey {
        match self {
            Self::Log => PartitionKey::Log,
            Self::Kafka { partitions } => {
                let of = partitions.max(1);
                let index = stable_hash(stream.aggregate_id.as_str().as_bytes()) % u64::from(of);
                PartitionKey::Topic {
                    aggregate_type: stream.aggregate_type,
                    index: index as u16,
                    of,
                }
            }
        }
    }

    /// All partitions.
    pub fn all(self) -> Vec<PartitionKey> {
        match self {
            Self::Log => vec![PartitionKey::Log],
            Self::Kafka { partitions } => {
                let of = partitions.max(1);
                let topics = AggregateType::ALL.into_iter();
                let keys = topics.flat_map(|aggregate_type| {
                    (0..of).map(move |index| PartitionKey::Topic {
                        aggregate_type,
                        index,
                        of,
                    })
                });
                keys.collect()
            }
        }
    }
}

/// Which partition an id belongs to is persisted (in topics, checkpoints and views), so this is never changed: FNV-1a,
/// 64 bits, then the finaliser of `MurmurHash3`, because the low bits of FNV alone spread similar ids badly.
fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("log"),
            Self::Topic {
                aggregate_type,
                index,
                of,
            } => write!(f, "{aggregate_type}/{index}of{of}"),
        }
    }
}

/// The text names no partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `log` or a partition such as `order/3of12`, not `{0}`")]
pub struct ParsePartitionError(String);

impl FromStr for PartitionKey {
    type Err = ParsePartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "log" {
            return Ok(Self::Log);
        }
        let topic = || {
            let (aggregate_type, rest) = text.split_once('/')?;
            let (index, of) = rest.split_once("of")?;
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            let aggregate_type = aggregate_type.parse().ok()?;
            (index < of).then_some(Self::Topic {
                aggregate_type,
                index,
                of,
            })
        };
        topic().ok_or_else(|| ParsePartitionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These are in topics and checkpoints: a change here loses every subscriber's place.
    #[test]
    fn an_id_keeps_its_partition_for_good() {
        let of = |id: &str| {
            let stream = StreamId::new(AggregateType::Inventory, id);
            Partitioning::Kafka { partitions: 12 }.of(&stream).to_string()
        };
        assert_eq!(
            ["", "A", "MUG-1", "MUG-2", "0198c0de-0000-7000-8000-000000000001"].map(of),
            [
                "inventory/2of12",
                "inventory/9of12",
                "inventory/3of12",
                "inventory/1of12",
                "inventory/3of12"
            ]
        );
    }

    #[test]
    fn similar_ids_spread() {
        let mut counts = [0_u32; 12];
        for id in 0..12_000 {
            let stream = StreamId::new(AggregateType::Cart, format!("SKU-{id:05}").as_str());
            if let PartitionKey::Topic { index, .. } = (Partitioning::Kafka { partitions: 12 }).of(&stream) {
                counts[usize::from(index)] += 1;
            }
        }
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_key_is_written_and_read() {
        let partitioning = Partitioning::Kafka { partitions: 3 };
        let keys = partitioning.all();
        assert_eq!(keys.len(), 15);
        for key in keys.into_iter().chain(Partitioning::Log.all()) {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for text in [
            "",
            "logs",
            "order/3",
            "order/3of3",
            "order/-1of3",
            "odour/0of3",
            "order/0of3/",
        ] {
            assert!(text.parse::<PartitionKey>().is_err(), "{text}");
        }
    }
}
