//! Which partition a record goes to: Kafka's default, so that whoever else writes the topic agrees.

use crate::record::PartitionId;

/// Kafka's hash of a key: MurmurHash2, 32 bits, with Kafka's seed.
///
/// ```
/// assert_eq!(lotic_log::murmur2(b"foobar"), -790332482);
/// ```
pub fn murmur2(bytes: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for &word in words {
        let mut word = u32::from_le_bytes(word).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut word = [0; 4];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ hash >> 15) as i32
}

/// The partition of `partition_count` that Kafka's default partitioner puts a key into.
///
/// # Panics
/// If `partition_count` is not positive: no topic has no partition.
pub fn partition_for_key(key: &[u8], partition_count: i32) -> PartitionId {
    assert!(partition_count > 0, "a topic has at least one partition");
    PartitionId((murmur2(key) & i32::MAX) % partition_count)
}

/// How a producer chooses the partition of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// As Kafka does: by [`partition_for_key`]; records without a key fill a batch of one partition, then
    /// one of the next.
    #[default]
    Kafka,
    /// Each record to the next partition, whatever its key.
    RoundRobin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_what_kafkas_own_tests_expect() {
        // org.apache.kafka.common.utils.UtilsTest; the empty key from librdkafka's rdmurmur2.c.
        let check = |key: &[u8], expected: i32| assert_eq!(murmur2(key), expected, "{key:?}");
        check(b"21", -973_932_308);
        check(b"foobar", -790_332_482);
        check(&[12, 42, 56, 24, 109, 111], 274_204_207);
        check(b"a-little-bit-long-string", -985_981_536);
        check(b"a-little-bit-longer-string", -1_486_304_829);
        check(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check(b"abc", 479_470_107);
        check(b"", 275_646_681);
    }

    #[test]
    fn a_key_with_a_negative_hash_goes_to_the_partition_that_kafka_chooses() {
        // -790332482 with the sign bit cleared is 1357151166.
        assert_eq!(partition_for_key(b"foobar", 10), PartitionId(6));
        assert_eq!(partition_for_key(b"abc", 1), PartitionId(0));
        assert_eq!(partition_for_key(b"abc", 6), PartitionId(479_470_107 % 6));
    }
}
