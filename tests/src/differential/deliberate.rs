//! Where Lotic is meant to differ from Kafka in what it leaves behind, so that scripts that are drawn keep away
//! from it. The reasons are in the architecture.

use lotic_log::ErrorKind;

use super::outcome::{Offsets, Outcome};
use super::script::{BATCH_BYTES_MAX, Content, Family, Operation, Place, Script, Writer, WriterKind};

const PRODUCER: usize = 0;

fn send(partition: i32, timestamp: i64, value: &str) -> Operation {
    let (key, value, headers) = (None, Some(value.to_owned()), Vec::new());
    let records = vec![Content { timestamp, key, value, headers }];
    Operation::Send { producer: PRODUCER, partition: Some(partition), records }
}

/// What is done.
pub(super) fn script() -> Script {
    let operations = vec![
        Operation::Open(PRODUCER),
        Operation::Begin(PRODUCER),
        send(1, 1_000, "aborted"),
        send(0, 1_000, &"x".repeat(BATCH_BYTES_MAX)),
        Operation::Abort(PRODUCER),
        Operation::Offsets(0),
        Operation::FindTime { partition: 1, committed: false, timestamp: 2_000 },
        Operation::Begin(PRODUCER),
        send(1, 3_000, "open"),
        Operation::Delete { partition: 1, to: Place::End(0) },
    ];
    let writer = Writer { kind: WriterKind::Transactional(0), compression: "none", timeout_ms: 600_000 };
    Script { seed: 0, family: Family::Deleting, append_time: false, producers: vec![writer], operations }
}

/// Whether an operation came to what it is meant to come to on either side.
pub(super) fn is_as_meant(index: usize, ours: &Outcome, theirs: &Outcome) -> bool {
    let end = |end| Outcome::Offsets(Offsets { start: 0, stable: end, end });
    match index {
        // Kafka marks every partition that a transaction has sent to, Lotic those that hold records of it.
        5 => *ours == end(0) && *theirs == end(1),
        // To Kafka's lookups by time a marker is a record.
        6 => *ours == Outcome::Found(None) && matches!(theirs, Outcome::Found(Some((1, _)))),
        // Whether records of an open transaction count is not known, so Lotic does not delete them.
        9 => *ours == Outcome::Refused(ErrorKind::Retry) && *theirs == Outcome::Deleted(3),
        _ => ours == theirs,
    }
}
