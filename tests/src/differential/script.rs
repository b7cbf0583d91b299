//! What is done, on Lotic and on Kafka alike.

/// Operations on one topic, done one after the other.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// What it was drawn from.
    pub(super) seed: u64,
    pub(super) family: Family,
    /// Whether records carry the time of their append.
    pub(super) append_time: bool,
    /// Who writes; operations name them by their place here.
    pub(super) producers: Vec<Writer>,
    pub(super) operations: Vec<Operation>,
}

/// What a script is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Records are deleted by whoever says so.
    Deleting,
    /// The last record of each key is kept.
    Compacting,
    /// The same, and records are deleted.
    CompactingAndDeleting,
    /// A transaction is open for too long.
    Overdue,
    /// Records are kept for some time.
    Retaining,
    /// So many bytes of records are kept.
    Sizing,
    /// What groups commit is kept for some time.
    Forgetting,
    /// The machine stops and starts again.
    Restarting,
}

/// How many partitions the topic has.
pub(super) const PARTITIONS: i32 = 2;

/// The largest batch that the topic takes.
pub(super) const BATCH_BYTES_MAX: usize = 2_000;

/// Later than any clock that a marker is given the time of: see [`super::generate`].
pub(super) const FIRST_TIMESTAMP: i64 = 4_000_000_000_000;

/// A record of which the timestamp is so much later than that of a segment's first one begins the next.
pub(super) const SEGMENT_MS: i64 = 60_000;

/// Of a script that keeps so many bytes the segments are as large as this on either side.
pub(super) const SEGMENT_BYTES: u64 = 2_500;

/// From here on producer ids are those that a script says, out of every log's own reach.
pub(super) const FIRST_STAMPED_ID: i64 = 1 << 40;

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) kind: WriterKind,
    /// As Kafka names it.
    pub(super) compression: &'static str,
    /// How long its transactions may be open, in milliseconds.
    pub(super) timeout_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterKind {
    Plain,
    Idempotent,
    /// With the transactional id of this number, once it is opened.
    Transactional(usize),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) timestamp: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, Option<String>)>,
}

/// An offset relative to what the partition has when it is asked for: what is left of a script when
/// operations are taken out still makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Start(i64),
    Stable(i64),
    End(i64),
    /// So far behind the start, and not behind the last stable offset.
    Within(i64),
}

/// What is looked for among records that carry the time of their append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dated {
    Newest,
    /// So much later than what is at this place among the offsets that there are, over and over from the first.
    At {
        place: usize,
        plus: i64,
    },
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Sends a batch and waits until it is written; by the key where no partition is named.
    Send {
        producer: usize,
        partition: Option<i32>,
        records: Vec<Content>,
    },
    /// Appends a batch with exactly this stamp.
    Append {
        partition: i32,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        records: Vec<Content>,
    },
    /// Appends a batch stamped as the last one that the producer has sent, which is transactional, but of an
    /// epoch so much later and with this sequence; nothing where it has sent none, or the epoch would be negative.
    AppendAs {
        producer: usize,
        partition: i32,
        later: i16,
        sequence: i32,
        transactional: bool,
        records: Vec<Content>,
    },
    /// Takes the transactional id of the producer.
    Open(usize),
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// Waits until the transaction that the producer has open is aborted for having been open for too long.
    Overstay(usize),
    /// Commits an offset of a group of the script.
    CommitOffset {
        group: usize,
        partition: i32,
        offset: i64,
    },
    /// The same, so much later than what was committed before that it stays when that has expired.
    CommitLater {
        group: usize,
        partition: i32,
        offset: i64,
    },
    /// Commits an offset with the open transaction.
    SendOffset {
        producer: usize,
        group: usize,
        partition: i32,
        offset: i64,
    },
    /// Asks for the committed offsets of a group.
    Committed(usize),
    /// Forgets what a group has committed for a partition.
    DeleteOffset {
        group: usize,
        partition: i32,
    },
    /// Forgets a group.
    DeleteGroup(usize),
    /// Nearly as much time passes as offsets are kept for.
    Age,
    /// The rest of it passes: what was committed before [`Self::Age`] expires. Kafka's broker is stopped for that,
    /// and started to keep offsets for a minute only: producers of before are gone.
    Outlast,
    /// Deletes the records before a place.
    Delete {
        partition: i32,
        to: Place,
    },
    /// Appends a record to each partition and compacts all before; nothing while a transaction is open.
    Compact {
        producer: usize,
        record: Content,
    },
    /// Waits until all records that there are have been kept for long enough and are gone; nothing while a
    /// transaction is open.
    Expire,
    /// Keeps no more bytes of each partition than this one has behind so many of its segments, and so many more,
    /// until what is too much is gone; nothing while a transaction is open.
    Shed {
        partition: i32,
        segments: usize,
        plus: i64,
    },
    /// Asks where a partition begins and ends.
    Offsets(i32),
    /// Looks for the first record that is as late.
    FindTime {
        partition: i32,
        committed: bool,
        timestamp: i64,
    },
    /// Looks for the latest record; of committed ones nothing while a transaction is open.
    FindNewest {
        partition: i32,
        committed: bool,
    },
    /// Looks for a record by the time that its log has given it; nothing for the newest of committed ones while
    /// a transaction is open.
    FindDated {
        partition: i32,
        committed: bool,
        dated: Dated,
    },
    /// Reads from a place to the end.
    Consume {
        partition: i32,
        committed: bool,
        from: Place,
    },
    /// Looks at every offset below the last stable one.
    Walk(i32),
    /// Reads a topic that is not there.
    FetchMissing,
    /// Closes the log and opens it again, or cuts the power; Kafka does nothing. Nothing while a transaction is
    /// open.
    Reopen,
    /// The same, and Kafka's broker is stopped and started too. Producers of before are gone, those with a
    /// transactional id take it again.
    Restart,
}

impl Place {
    /// The offset, in a partition that begins and ends there.
    pub(super) fn resolve(self, start: i64, stable: i64, end: i64) -> i64 {
        match self {
            Self::Start(plus) => start + plus,
            Self::Stable(plus) => stable + plus,
            Self::End(plus) => end + plus,
            Self::Within(plus) => (start + plus).min(stable),
        }
    }
}

impl Family {
    pub(super) fn compacts(self) -> bool {
        matches!(self, Self::Compacting | Self::CompactingAndDeleting)
    }

    /// Whether records may be deleted. Kafka refuses it where a topic is compacted only.
    pub(super) fn deletes(self) -> bool {
        self != Self::Compacting
    }

    /// Whether time has to pass that a script cannot wait for.
    pub(super) fn needs_manual_clock(self) -> bool {
        matches!(self, Self::Overdue | Self::Retaining | Self::Sizing | Self::Forgetting)
    }
}

impl Script {
    /// The script's topic, of its own in a run.
    pub(super) fn topic(number: usize) -> String {
        format!("script-{number}")
    }

    /// A group of the script.
    pub(super) fn group(number: usize, group: usize) -> String {
        format!("group-{number}-{group}")
    }

    /// A group of the script that commits the last of all that is to expire.
    pub(super) fn last_group(number: usize) -> String {
        format!("group-{number}-last")
    }

    /// The place of the operation for which Kafka's broker is stopped.
    pub(super) fn stop(&self) -> Option<usize> {
        let stops = |operation: &Operation| matches!(operation, Operation::Restart | Operation::Outlast);
        self.operations.iter().position(stops)
    }

    /// Whether Kafka's broker is to keep offsets for a minute only once it was stopped.
    pub(super) fn outlasts(&self) -> bool {
        self.operations.contains(&Operation::Outlast)
    }

    /// The taking of transactional ids before the machine stops.
    pub(super) fn opened_before_restart(&self) -> impl Iterator<Item = &Operation> {
        let end = self.stop().filter(|_| !self.outlasts()).unwrap_or(0);
        self.operations[..end].iter().filter(|operation| matches!(operation, Operation::Open(_)))
    }

    /// The bytes of segments that are kept behind the first `segments` of them, and `plus` more.
    pub(super) fn kept_bytes(bytes: &[u64], segments: usize, plus: i64) -> u64 {
        let behind: u64 = bytes.iter().skip(segments).sum();
        behind.saturating_add_signed(plus)
    }

    /// Whether a producer had its transactional id before the operation at `before` and has it no more: another
    /// one took it, or it had a transaction open for too long.
    pub(super) fn has_been_fenced(&self, producer: usize, before: usize) -> bool {
        let kind = self.producers[producer].kind;
        let WriterKind::Transactional(_) = kind else { return false };
        let (mut has_opened, mut is_fenced) = (false, false);
        for operation in &self.operations[..before] {
            match operation {
                Operation::Open(other) if *other == producer => (has_opened, is_fenced) = (true, false),
                Operation::Open(other) if self.producers[*other].kind == kind => is_fenced = true,
                Operation::Overstay(other) if *other == producer => is_fenced = true,
                _ => {}
            }
        }
        has_opened && is_fenced
    }
}
