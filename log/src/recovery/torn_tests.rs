//! What is kept aside of a log whose end is torn, when that is cut short.

use std::path::Path;

use super::tests::{many_segments_on, positions, segments};
use crate::files::FileKind;
use crate::partition::Partition;
use crate::partition::tests::{DIRECTORY, disk, site, small, unclean};
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
