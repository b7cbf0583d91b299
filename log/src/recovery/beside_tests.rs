//! A partition that is opened and read on in while its writer removes segments, at the worst moment.

use std::path::Path;
use std::sync::Arc;

use super::LISTINGS_MAX;
use crate::error::ErrorKind;
use crate::partition::tests::{DIRECTORY, batch, create, disk, flush, site, small, unclean};
use crate::partition::{Isolation, Partition};
use crate::record::Offset;
use crate::storage::interrupting::InterruptingStorage;
use crate::storage::memory::MemoryStorage;

/// A partition of many small segments with its writer, and the disk as a reader in another process sees it.
struct Bench {
    writer: Arc<Partition>,
    disk: Arc<InterruptingStorage>,
    /// Where the segments begin, the first one's left out.
    bases: Vec<Offset>,
}

impl Bench {
    fn new() -> Self {
        let storage: Arc<MemoryStorage> = disk(5);
        let writer = create(&storage, small());
        for number in 0..400 {
            writer.append(batch([number])).expect("the disk is fine");
        }
        flush(&writer).expect("the disk is fine");
        let sealed = writer.compaction_view().sealed;
        let bases: Vec<_> = sealed.iter().skip(1).map(|(segment, _)| segment.base()).collect();
        assert!(bases.len() > 3 * LISTINGS_MAX, "{} segments", bases.len());
        Self { writer, disk: InterruptingStorage::new(storage), bases }
    }

    fn open(&self) -> crate::Result<Arc<Partition>> {
        Partition::open_read_only(site(&self.disk, small()), &unclean(0))
    }

    /// Removes everything before `base` the next time that somebody lists the directory, who has read the marks
    /// by then.
    fn remove_before_list(&self, base: Offset) {
        let writer = self.writer.clone();
        let remove = move || writer.remove_segments_before(base).expect("the disk is fine");
        self.disk.before_list(Path::new(DIRECTORY), remove);
    }
}

/// Checks that a reader has what the writer has.
fn check(reader: &Partition, bench: &Bench) {
    assert!(!bench.disk.is_pending(), "the directory is listed");
    let (offsets, expected) = (reader.offsets(), bench.writer.offsets());
    assert_eq!((offsets.start, offsets.end), (expected.start, expected.end));
    let read = reader.fetch(offsets.start, 1 << 20, Isolation::ReadUncommitted).expect("it is there");
    assert_eq!(
        read.batches().next().expect("there is one").expect("it is sound").header().base_offset,
        offsets.start
    );
}

#[test]
fn segments_that_are_removed_between_two_looks_are_not_taken_for_missing_ones() {
    let bench = Bench::new();
    bench.remove_before_list(bench.bases[2]);
    let reader = bench.open().expect("nothing is missing");
    check(&reader, &bench);
    bench.remove_before_list(bench.bases[5]);
    reader.refresh().expect("nothing is missing");
    check(&reader, &bench);
}

#[test]
fn who_lists_segments_more_slowly_than_they_are_removed_is_told_so_after_a_bounded_number_of_looks() {
    let bench = Bench::new();
    let reader = bench.open().expect("it is sound");
    let times = bench.bases.len();
    let remove_one_before_each_list = || {
        let (writer, mut bases) = (bench.writer.clone(), bench.bases.clone().into_iter());
        let remove = move || {
            let base = bases.next().expect("there is one for each time");
            writer.remove_segments_before(base).expect("the disk is fine");
        };
        bench.disk.before_lists(Path::new(DIRECTORY), times, remove);
    };
    remove_one_before_each_list();
    let error = bench.open().expect_err("it never sees the same twice");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert_eq!(times - bench.disk.times_left(), LISTINGS_MAX);
    let listed_first = bench.bases[LISTINGS_MAX];
    assert!(bench.writer.offsets().start < listed_first, "most segments are there still");
    let error = reader.refresh().expect_err("nor does who reads on");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert_eq!(times - bench.disk.times_left(), 2 * LISTINGS_MAX);
}
