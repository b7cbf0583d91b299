//! Partitions that have had nothing to give for a while, so that they do not hold the watermark back.
//!
//! Once a partition has given nothing for the timeout, its watermark follows the least of those partitions,
//! on whatever worker, that do give something. It goes on from there when records come again: those that
//! are behind it are late, by the timeout's doing, and counted. So a timeout may change an answer. It is off
//! unless it is asked for, and where input is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lotic_log::{Offset, Timestamp};

use super::partition::PartitionReader;
use crate::frame::NO_WATERMARK;

/// The watermark of a partition that is idle: it holds nobody back.
const IDLE: i64 = i64::MAX;

/// How far each partition of a topic is, where the readers on all workers see it.
pub(super) struct IdleBoard {
    watermarks: Vec<AtomicI64>,
}

impl IdleBoard {
    /// A board of so many partitions, of which none has said anything.
    pub(super) fn new(partitions: i32) -> Self {
        Self { watermarks: (0..partitions).map(|_| AtomicI64::new(NO_WATERMARK.0)).collect() }
    }

    fn publish(&self, partition: &PartitionReader, watermark: i64) {
        self.watermarks[partition.key.partition.0 as usize].store(watermark, Ordering::Relaxed);
    }

    /// The least watermark of those that are not idle; `None` where all are.
    fn least(&self) -> Option<Timestamp> {
        let least = self.watermarks.iter().map(|watermark| watermark.load(Ordering::Relaxed)).min();
        least.filter(|&least| least != IDLE).map(Timestamp)
    }
}

/// Tells which partitions of one reader are idle.
pub(super) struct Idleness {
    timeout_ms: i64,
    disorder_ms: i64,
    board: Arc<IdleBoard>,
    /// By the partition's place: where it stood, and since when. `None` before the first look.
    stands: Vec<Option<(Offset, Timestamp)>>,
}

impl Idleness {
    pub(super) fn new(timeout_ms: i64, disorder_ms: i64, board: Arc<IdleBoard>, partitions: usize) -> Self {
        Self { timeout_ms, disorder_ms, board, stands: vec![None; partitions] }
    }

    /// Looks at the partitions at `now`, and has the watermarks of those that are idle follow. The one at
    /// `busy` has records that are not emitted yet.
    pub(super) fn look(&mut self, partitions: &mut [PartitionReader], busy: Option<usize>, now: Timestamp) {
        let mut idle = Vec::new();
        for (index, (partition, stand)) in partitions.iter().zip(&mut self.stands).enumerate() {
            let gives = partition.has_batch() || busy == Some(index);
            let since = stand.filter(|(at, _)| *at == partition.position && !gives).map_or(now, |(_, at)| at);
            *stand = Some((partition.position, since));
            if now.0.saturating_sub(since.0) >= self.timeout_ms {
                idle.push(index);
                self.board.publish(partition, IDLE);
            } else {
                self.board.publish(partition, partition.watermark(self.disorder_ms).0);
            }
        }
        let Some(least) = self.board.least().filter(|least| *least > NO_WATERMARK) else { return };
        let event_time = Timestamp(least.0.saturating_add(self.disorder_ms));
        for index in idle {
            let partition = &mut partitions[index];
            partition.event_time_max = partition.event_time_max.max(Some(event_time));
        }
    }
}
