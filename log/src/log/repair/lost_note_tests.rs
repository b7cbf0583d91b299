//! Repairs that are cut short, and of which somebody removes the note before they are done.

use std::sync::Arc;

use super::note::CutNote;
use super::tests::{
    BATCHES, DIRECTORY, at, check_sound, closed_log, directory, numbers, numbers_in, open, options, repair,
};
use super::transaction_tests::{ABORTED, OFFSETS, TRANSACTIONS, decided_log};
use super::*;
use crate::log::Log;
use crate::log::follower::partition;
use crate::partition::Isolation;
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;

/// Where logs are cut.
const CUT: i64 = 20;

/// Repairs the log, cut short at an operation, and removes the note. None if it was not cut short; whether readers are
/// kept out.
fn cut_short(storage: &Arc<MemoryStorage>, cut: i64, operations: u64) -> Option<bool> {
    storage.fail_after(operations);
    drop(repair(storage, &at(cut)));
    let is_done = !storage.is_unplugged();
    storage.clear_faults();
    storage.kill();
    let marks = Marks::read_in(&**storage, &directory()).expect("they are whole");
    if is_done {
        return None;
    }
    if marks.being_cut.is_none() {
        return Some(false);
    }
    let note = directory().join("cut");
    storage.remove_file(&note).expect("it is there as long as the cut is not done");
    let error = Log::open_read_only(DIRECTORY, options(storage)).expect_err("it is half done");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let marks = directory().join("marks");
    assert!(error.to_string().contains(&marks.display().to_string()), "{error}");
    assert!(error.to_string().contains("opening the log for writing"), "{error}");
    Some(true)
}

#[test]
fn a_log_whose_repair_has_lost_its_note_is_readable_once_it_was_opened_or_repaired() {
    for is_repaired in [false, true] {
        let mut kept_out = 0;
        for operations in 0.. {
            let storage = closed_log();
            let reader = Log::open_read_only(DIRECTORY, options(&storage)).expect("it is sound");
            let Some(is_kept_out) = cut_short(&storage, CUT, operations) else { break };
            if !is_kept_out {
                continue;
            }
            kept_out += 1;
            let dry_run = Repair { dry_run: true, ..at(CUT) };
            assert_eq!(repair(&storage, &dry_run).expect_err("first").kind(), ErrorKind::Retry);
            if is_repaired && let Err(error) = repair(&storage, &at(CUT)) {
                assert_eq!(error.kind(), ErrorKind::Invalid, "it was cut, but for the end: {error}");
            }
            let log = open(&storage).expect("it is done then");
            let found = numbers(&log, Isolation::ReadUncommitted);
            log.close().expect("the disk is fine");
            assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>(), "after {operations}");
            let end = found.len() as i64;
            assert!(if is_repaired { end == CUT } else { (CUT..=BATCHES).contains(&end) }, "{end}");
            check_sound(&storage);
            let now = Log::open_read_only(DIRECTORY, options(&storage)).expect("nobody is kept out");
            assert_eq!(numbers(&now, Isolation::ReadUncommitted), found);
            let rewritten = partition(&now).rewritten_since(&partition(&reader));
            assert_eq!(rewritten, Some(Offset(CUT)), "after {operations}");
        }
        assert!(kept_out > 5, "{kept_out} times");
    }
}

#[test]
fn no_half_of_a_transaction_is_shown_where_a_repair_has_lost_its_note() {
    // Between the first and the second record of a transaction, which others follow.
    let cut = 2 * OFFSETS + 1;
    let mut kept_out = 0;
    for operations in 0.. {
        let storage = decided_log(operations);
        let Some(is_kept_out) = cut_short(&storage, cut, operations) else { break };
        if !is_kept_out {
            continue;
        }
        kept_out += 1;
        // It is cut short once more, now that it has a note again.
        storage.fail_after(operations % 40);
        drop(open(&storage));
        storage.clear_faults();
        storage.kill();
        for _ in 0..2 {
            let log = open(&storage).expect("it is done then");
            let found = numbers(&log, Isolation::ReadCommitted);
            for number in 0..TRANSACTIONS {
                let shown =
                    found.iter().filter(|record| (10 * number..10 * number + 3).contains(*record)).count();
                assert!(shown == 0 || shown == 3 && number != ABORTED, "{number}: {found:?}");
                assert!(shown == 3 || number >= 2, "{number} is before the cut: {found:?}");
            }
            let partition = log.topic("t").expect("it is there").partitions()[0].clone();
            assert_eq!(partition.offsets().stable, partition.offsets().end, "all is decided");
            let others: Vec<_> = (0..TRANSACTIONS).filter(|number| *number != ABORTED).collect();
            assert_eq!(numbers_in(&log, "u", Isolation::ReadCommitted), others);
            log.close().expect("the disk is fine");
        }
        let site = site(Path::new(DIRECTORY), &options(&storage), &at(0)).expect("it is there");
        assert_eq!(CutNote::read(&site).expect("it is readable"), None);
        check_sound(&storage);
    }
    assert!(kept_out > 5, "{kept_out} times");
}
