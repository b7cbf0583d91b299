//! A log whose end is torn: what is kept aside, and what becomes of it, when recovery fails or is cut short.

use std::io;
use std::path::Path;

use super::tests::{many_segments_on, numbers, positions, segments, ten_on};
use crate::files::FileKind;
use crate::partition::Partition;
use crate::partition::PartitionConfig;
use crate::partition::tests::{DIRECTORY, batch, disk, flush, site, small, unclean};
use crate::record::Offset;
use crate::storage::Storage;

/// How often it is decided anew what of an operation takes effect that is cut short, and what a power cut
/// keeps.
const SEEDS: u64 = 8;

#[test]
fn what_is_kept_aside_of_a_torn_end_is_there_wherever_the_power_fails() {
    let mut is_cut_short = true;
    for operations in 0.. {
        if !is_cut_short {
            assert!(operations > 20, "{operations}");
            return;
        }
        for seed in 0..SEEDS {
            let case = format!("{operations} operations, seed {seed}");
            let storage = many_segments_on(disk(operations * SEEDS + seed));
            let bases = segments(&storage);
            let path = |base: &Offset| FileKind::Log.path(Path::new(DIRECTORY), *base);
            let contents = |base: &Offset| storage.contents(&path(base)).expect("it is there");
            let torn = path(&bases[2]);
            let position = positions(&storage, &torn)[1];
            storage.corrupt(&torn, position + 70, 1).expect("the byte is there");
            let mut cut_off: Vec<_> = bases[3..].iter().map(contents).collect();
            cut_off.push(contents(&bases[2])[position as usize..].to_vec());
            storage.fail_after(operations);
            drop(Partition::open(site(&storage, small()), &unclean(0)));
            is_cut_short = storage.is_unplugged();
            storage.clear_faults();
            storage.crash();
            let (_, report) = Partition::open(site(&storage, small()), &unclean(0)).expect("it was torn");
            assert_eq!(report.end, bases[2].next(), "after {case}");
            let names = storage.list(Path::new(DIRECTORY)).expect("it is there").into_iter();
            let aside = names.map(|entry| entry.name).filter(|name| name.contains(".torn"));
            let aside: Vec<_> = aside.map(|name| Path::new(DIRECTORY).join(name)).collect();
            for bytes in &cut_off {
                let is_it = |path| storage.contents(path).expect("it is listed") == *bytes;
                assert!(aside.iter().any(|path| is_it(path)), "after {case}");
            }
        }
    }
}

#[test]
fn a_torn_end_does_not_come_back_though_a_sync_that_was_to_cut_it_off_has_failed() {
    for failed in 0.. {
        let mut is_failed = false;
        for seed in 0..SEEDS {
            let case = format!("operation {failed} fails, seed {seed}");
            let (storage, log) = ten_on(disk(failed * SEEDS + seed));
            let position = positions(&storage, &log)[5];
            storage.corrupt(&log, position + 70, 1).expect("the byte is there");
            let open = |recovery_point| {
                Partition::open(site(&storage, PartitionConfig::default()), &unclean(recovery_point))
            };
            let before = storage.operations();
            storage.fail_with(io::ErrorKind::Other, failed);
            drop(open(0));
            is_failed = storage.operations() - before > failed;
            storage.clear_faults();
            storage.kill();
            let (_, report) = open(0).expect("the disk is fine again");
            assert_eq!(report.end, Offset(5), "{case}");
            storage.crash();
            let (partition, report) = open(5).expect("it is sound");
            assert_eq!((report.end, report.truncated), (Offset(5), None), "{case}");
            // Nor is there anything behind what follows.
            partition.append(batch([5])).expect("the disk is fine");
            flush(&partition).expect("the disk is fine");
            storage.crash();
            let (partition, _) = open(6).expect("it is sound");
            assert_eq!(numbers(&partition), (0..6).collect::<Vec<_>>(), "{case}");
        }
        if !is_failed {
            assert!(failed > 10, "{failed} operations");
            return;
        }
    }
}
