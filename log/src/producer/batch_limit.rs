//! How many bytes of records a batch takes in, so that it has its size once it is compressed.

/// How much the newest batch counts in the estimate, and all before it the rest.
const NEWEST_WEIGHT: f64 = 0.25;

/// The most bytes that are taken in for each byte of a batch, however well they compress: it is what a
/// batch holds in memory, also a reader's.
const PLAIN_FACTOR_MAX: usize = 8;

/// When a lane's batch is full. `batch.size` of Kafka's producer says how large a batch is as it is written,
/// by an estimate from the batches before it, and so does this. Without that, what compresses well ends in
/// small batches, which compress less well and cost each a header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BatchLimit {
    /// The size that a batch is to have, as it is written.
    batch_bytes: usize,
    /// Bytes before compression that no batch exceeds: what its topic takes, so that no batch has to be
    /// split where the estimate was wrong. Only what was gathered when the topic took more may be refused.
    plain_bytes_max: usize,
    /// What compression leaves of a byte, as estimated.
    ratio: f64,
    /// What follows from it: every record that is sent asks.
    plain_bytes: usize,
}

impl BatchLimit {
    /// For batches of so many bytes in a topic that takes `topic_bytes_max`.
    pub(super) fn new(batch_bytes: usize, topic_bytes_max: usize) -> Self {
        let batch_bytes = batch_bytes.min(topic_bytes_max);
        let plain_bytes_max = batch_bytes.saturating_mul(PLAIN_FACTOR_MAX).min(topic_bytes_max);
        Self { batch_bytes, plain_bytes_max, ratio: 1.0, plain_bytes: batch_bytes }
    }

    /// The bytes before compression at which a batch is full.
    pub(super) fn plain_bytes(&self) -> usize {
        self.plain_bytes
    }

    /// Learns from a batch that had so many bytes, and has so many now.
    pub(super) fn note(&mut self, plain: usize, written: usize) {
        let ratio = written as f64 / plain.max(1) as f64;
        self.ratio += (ratio - self.ratio) * NEWEST_WEIGHT;
        let estimated = (self.batch_bytes as f64 / self.ratio) as usize;
        self.plain_bytes = estimated.clamp(self.batch_bytes, self.plain_bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_not_compressed_has_the_size_that_was_asked_for() {
        let mut limit = BatchLimit::new(1_000, 50_000);
        for _ in 0..10 {
            limit.note(1_000, 1_000);
            assert_eq!(limit.plain_bytes(), 1_000);
        }
    }

    #[test]
    fn batches_grow_until_they_have_their_size_once_compressed() {
        let mut limit = BatchLimit::new(1_000, 50_000);
        let mut written = 0;
        for _ in 0..40 {
            written = limit.plain_bytes() / 4;
            limit.note(limit.plain_bytes(), written);
        }
        assert!((990..=1_000).contains(&written), "{written}");
    }

    #[test]
    fn batches_shrink_again_when_they_compress_less() {
        let mut limit = BatchLimit::new(1_000, 50_000);
        (0..40).for_each(|_| limit.note(1_000, 250));
        (0..40).for_each(|_| limit.note(1_000, 500));
        assert!((1_990..=2_000).contains(&limit.plain_bytes()), "{limit:?}");
        (0..40).for_each(|_| limit.note(100, 200));
        assert_eq!(limit.plain_bytes(), 1_000, "never below what it may have uncompressed");
    }

    #[test]
    fn no_batch_holds_more_than_its_topic_takes_nor_many_times_its_size() {
        let squeezed = |batch_bytes, topic_bytes_max| {
            let mut limit = BatchLimit::new(batch_bytes, topic_bytes_max);
            (0..100).for_each(|_| limit.note(1_000_000, 1));
            limit.plain_bytes()
        };
        assert_eq!(squeezed(1_000, 3_000), 3_000);
        assert_eq!(squeezed(1_000, 50_000), 8_000);
        assert_eq!(squeezed(5_000, 3_000), 3_000);
        assert_eq!(BatchLimit::new(5_000, 3_000).plain_bytes(), 3_000);
    }
}
