//! Which replica a key belongs to: rendezvous hashing (Thaler and Ravishankar, 1998). Every replica has a score for every
//! key; the highest has the key, the next highest has it while the first is away. When a replica leaves or comes, only
//! keys that it had, or now has, move.
//!
//! The scores are part of what processes agree on: a gateway and a saga runner of another version have to choose alike.
//! So the functions are spelled out here and tested against fixed values: FNV-1a of the texts, combined and mixed with
//! the finaliser of `SplitMix64`.

pub(crate) fn of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The score of a replica for a key, each given by its hash.
pub(crate) fn score(key: u64, replica: u64) -> u64 {
    let mut mixed = key ^ replica.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: usize) -> u64 {
        of_text(&format!("10.0.0.{number}:8081"))
    }

    fn owner(key: &str, replicas: &[usize]) -> usize {
        let key = of_text(key);
        *replicas
            .iter()
            .max_by_key(|number| score(key, replica(**number)))
            .unwrap()
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|number| format!("order/{number:032x}"))
    }

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0_u32; 4];
        for key in keys() {
            counts[owner(&key, &[0, 1, 2, 3])] += 1;
        }
        for count in counts {
            assert!((2_300..2_700).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn when_a_replica_leaves_only_its_keys_move_and_to_all_others() {
        let mut moved_to = [0_u32; 4];
        for key in keys() {
            let (before, after) = (owner(&key, &[0, 1, 2, 3]), owner(&key, &[0, 2, 3]));
            if before == 1 {
                moved_to[after] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        for heir in [0, 2, 3] {
            assert!(moved_to[heir] > 600, "{moved_to:?}");
        }
    }

    /// Changing these moves every key once, while versions run side by side.
    #[test]
    fn the_functions_are_what_they_were() {
        assert_eq!(of_text("order/1"), 0xdedd_f49f_34b9_8edb);
        assert_eq!(
            score(of_text("order/1"), of_text("10.0.0.1:8081")),
            0x6e42_93ed_6c7d_3e32
        );
    }
}
