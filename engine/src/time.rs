//! The watermark of one input of a task: what all of its senders promise together.
//!
//! A sender makes promises about all that it sends, or about one source partition (see
//! [`Watermark`]). What holds for all of it holds for each partition. The input's watermark, of a
//! partition and as a whole, is the least over the senders; about a sender that has said nothing, nothing
//! is known ([`NO_WATERMARK`]). So a source says of each partition that it does *not* read that nothing is
//! expected ([`NOTHING_EXPECTED`]): the partition's one reader then decides alone.
//!
//! A sender that has ended keeps its watermark: an end is not a time.

use lotic_log::{PartitionId, Timestamp};

use crate::frame::NO_WATERMARK;
use crate::message::Watermark;

/// The watermark of something from which no record is expected, whatever its event time.
pub const NOTHING_EXPECTED: Timestamp = Timestamp(i64::MAX);

/// Combines the watermarks of one input's senders.
#[derive(Clone, Debug)]
pub(crate) struct InputWatermarks {
    senders: Vec<Promises>,
    combined: Promises,
}

/// Watermarks of a sender, or of all.
#[derive(Clone, Debug)]
struct Promises {
    whole: Timestamp,
    /// By partition; those that nothing was said of are missing, or [`NO_WATERMARK`].
    partitions: Vec<Timestamp>,
}

impl Promises {
    const NONE: Self = Self { whole: NO_WATERMARK, partitions: Vec::new() };

    /// What holds for a partition.
    fn of(&self, partition: usize) -> Timestamp {
        self.partitions.get(partition).map_or(self.whole, |&time| time.max(self.whole))
    }
}

impl InputWatermarks {
    /// The watermarks of an input with so many senders, which have said nothing yet.
    pub(crate) fn new(senders: usize) -> Self {
        Self { senders: vec![Promises::NONE; senders], combined: Promises::NONE }
    }

    /// `sender` promises `watermark`. Appends to `risen` what has risen by it for the input: partitions
    /// first, in order. A promise weaker than an earlier one changes nothing.
    pub(crate) fn raise(&mut self, sender: usize, watermark: Watermark, risen: &mut Vec<Watermark>) {
        let promises = &mut self.senders[sender];
        match watermark.partition {
            Some(PartitionId(partition)) => {
                let partition = partition as usize;
                if promises.of(partition) >= watermark.time {
                    return;
                }
                if promises.partitions.len() <= partition {
                    promises.partitions.resize(partition + 1, NO_WATERMARK);
                }
                promises.partitions[partition] = watermark.time;
                self.combine_partition(partition, risen);
            }
            None => {
                if promises.whole >= watermark.time {
                    return;
                }
                promises.whole = watermark.time;
                for partition in 0..self.combined.partitions.len() {
                    self.combine_partition(partition, risen);
                }
                let whole = self.senders.iter().map(|sender| sender.whole).min().unwrap_or(NO_WATERMARK);
                if whole > self.combined.whole {
                    self.combined.whole = whole;
                    risen.push(Watermark { partition: None, time: whole });
                }
            }
        }
    }

    /// Recomputes the watermark of a partition that some sender has named.
    fn combine_partition(&mut self, partition: usize, risen: &mut Vec<Watermark>) {
        if self.combined.partitions.len() <= partition {
            self.combined.partitions.resize(partition + 1, NO_WATERMARK);
        }
        let time = self.senders.iter().map(|sender| sender.of(partition)).min().unwrap_or(NO_WATERMARK);
        if time > self.combined.partitions[partition] {
            self.combined.partitions[partition] = time;
            risen.push(Watermark { partition: Some(PartitionId(partition as i32)), time });
        }
    }
}

#[cfg(test)]
mod tests;
