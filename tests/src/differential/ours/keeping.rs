//! What is kept of records, and what goes.

use std::time::Duration;

use lotic_log::batch::Compression;
use lotic_log::{Error, ErrorKind, Retention};

use super::super::outcome::{Outcome, Shed};
use super::super::script::{Content, PARTITIONS, Script};
use super::Ours;

/// Longer than a log waits until it seals a segment again because of its age, and looks at its partitions.
const EXPIRE_STEP: Duration = Duration::from_secs(61 * 60);

/// Longer than a log waits until it looks at its partitions again.
const SHED_STEP: Duration = Duration::from_secs(16);

/// How often partitions are looked at until what is to go is sealed, synced and deleted.
const STEPS: usize = 3;

impl Ours<'_> {
    pub(super) fn compact(&self, record: &Content) -> Result<(), Error> {
        if self.has_open_transaction()? {
            return Ok(());
        }
        for partition in 0..PARTITIONS {
            self.append(partition, Compression::None, None, std::slice::from_ref(record))?;
        }
        self.log.compact(&self.topic()).map(drop)
    }

    /// Keeps nothing for a while.
    pub(super) fn expire(&self) -> Result<(), Error> {
        if self.has_open_transaction()? {
            return Ok(());
        }
        self.keep(Retention { time: Some(Duration::from_millis(1)), bytes: None }, EXPIRE_STEP)
    }

    /// Keeps no more bytes for a while than are behind the first of a partition's segments, and `plus` more.
    pub(super) fn shed(&self, partition: i32, segments: usize, plus: i64) -> Result<Outcome, Error> {
        if self.has_open_transaction()? {
            return Ok(Outcome::Done);
        }
        let before = self.segment_bytes(partition)?;
        let bytes = Some(Script::kept_bytes(&before, segments, plus));
        self.keep(Retention { time: None, bytes }, SHED_STEP)?;
        let starts = (0..PARTITIONS).map(|partition| Ok(self.offsets(partition)?.start));
        Ok(Outcome::Shed(Shed { before, starts: starts.collect::<Result<_, Error>>()? }))
    }

    /// The bytes of each segment, without those before the start of the partition, which are gone or will be.
    fn segment_bytes(&self, partition: i32) -> Result<Vec<u64>, Error> {
        let partition = self.partition(partition)?;
        let segments = self.machine.segments(&self.log, partition.name());
        let segments = segments.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
        let start = partition.offsets().start.0;
        let ends = segments.iter().skip(1).map(|(base, _)| *base).chain([i64::MAX]);
        let left = segments.iter().zip(ends).filter(|(_, end)| *end > start);
        Ok(left.map(|((_, bytes), _)| *bytes).collect())
    }

    /// Keeps what is said until all else is gone.
    fn keep(&self, retention: Retention, step: Duration) -> Result<(), Error> {
        let keep = |retention| self.log.alter_topic(&self.topic(), |config| config.retention = retention);
        keep(retention)?;
        for _ in 0..STEPS {
            self.machine.pass(step);
            self.settle()?;
        }
        keep(Retention::default()).map(drop)
    }
}
