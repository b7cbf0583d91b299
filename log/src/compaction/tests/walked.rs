//! Walking a partition that is compacted meanwhile, by another thread or process: what is replaced is not missing.

use std::path::Path;
use std::sync::OnceLock;

use super::*;
use crate::files::{FileKind, Listing};
use crate::partition::tests::DIRECTORY;
use crate::storage::interrupting::InterruptingStorage;
use crate::verify::{WalkEnd, WalkRules, walk};

/// When a walk is interrupted.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Listed,
    LogOpened(Offset),
    IndexesOpened(Offset),
    LogRead(Offset),
}

impl Moment {
    /// Each there is. The indexes of the last segment are not looked at.
    fn all() -> impl Iterator<Item = Self> {
        let bench = crash::bench(1);
        let mut segments =
            Listing::read(&*bench.storage, Path::new(DIRECTORY)).expect("it is there").segments;
        segments.pop();
        let within = |base| [Self::LogOpened(base), Self::IndexesOpened(base), Self::LogRead(base)];
        std::iter::once(Self::Listed).chain(segments.into_iter().flat_map(within))
    }
}

/// Walks the partition, which is sound, and does `act` at one moment of that.
fn check(bench: &Bench, moment: Moment, what: &str, act: impl FnOnce() + Send + 'static) {
    let (directory, durable) = (Path::new(DIRECTORY), bench.partition.offsets().durable);
    let reading = InterruptingStorage::new(bench.storage.clone());
    let at = |kind: FileKind, base| kind.path(directory, base);
    match moment {
        Moment::Listed => reading.before_list(directory, act),
        Moment::LogOpened(base) => reading.before_open(at(FileKind::Log, base), act),
        Moment::IndexesOpened(base) => reading.before_open(at(FileKind::OffsetIndex, base), act),
        Moment::LogRead(base) => reading.before_read(at(FileKind::Log, base), act),
    }
    let rules = WalkRules { recovery_point: Some(durable), has_gaps: false, is_start_known: true };
    let walked = walk(&*reading, bench.partition.name(), directory, rules);
    let walked = walked.unwrap_or_else(|error| panic!("{what}, interrupted at {moment:?}: {error}"));
    let seen = (walked.ending, walked.end, walked.indexes);
    assert_eq!(seen, (WalkEnd::Complete, durable, vec![]), "{what}, interrupted at {moment:?}");
}

#[test]
fn who_walks_a_partition_that_is_compacted_finds_nothing_wrong_however_far_that_has_come() {
    for moment in Moment::all() {
        // It is compacted until an operation fails.
        let is_compacted = |operations: u64| {
            let (bench, is_done) = (Arc::new(crash::bench(1)), Arc::new(OnceLock::new()));
            let (compacted, done) = (bench.clone(), is_done.clone());
            check(&bench, moment, &format!("{operations} operations"), move || {
                compacted.storage.fail_with(std::io::ErrorKind::Other, operations);
                done.set(compacted.try_compact().is_ok()).expect("it is done once");
                compacted.storage.clear_faults();
            });
            *is_done.get().expect("it was interrupted")
        };
        let operations = (0..).find(|operations| is_compacted(*operations)).expect("it ends");
        assert!(operations > 60, "there are many operations: {operations}");
    }
}

#[test]
fn who_walks_a_partition_while_a_compaction_of_it_goes_on_finds_nothing_wrong() {
    for moment in Moment::all() {
        // A replacement takes four pieces, and the last one of all notes that it is done.
        for pieces_more in [1, 2, 3, 4, usize::MAX] {
            let mut pieces_begun = 0;
            loop {
                let bench = crash::bench(1);
                let mut compaction = bench.begin_compaction();
                let mut go_on = move || matches!(compaction.advance(Waker::noop()), Ok(Piece::Done));
                if (0..pieces_begun).any(|_| go_on()) {
                    break;
                }
                // What is walked may have another name by then, so that nothing more is done.
                let what = format!("{pieces_begun} pieces and {pieces_more}");
                check(&bench, moment, &what, move || {
                    let _is_done = (0..pieces_more).any(|_| go_on());
                });
                pieces_begun += 1;
            }
            assert!(pieces_begun > 8, "there are many pieces: {pieces_begun}");
        }
    }
}
