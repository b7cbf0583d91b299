//! Each sync is needed: where one place in the code leaves it out, some script of power cuts is broken. Where none is,
//! the sync is listed here, with what comes of a power cut without it.
//!
//! A sync is told from another by the place that names its purpose, and by what is synced. A new one fails these tests
//! until a script misses it; one that no script comes by does too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::storage::SyncPurpose;
use crate::storage::memory::{SyncPlace, trial};
use crate::{compaction, consistent_cut, group, import, log, partition, recovery, transaction};

/// Something that must go well wherever the power fails.
struct Script {
    run: fn(u64),
    /// So many seeds say where it syncs.
    looked_at: u64,
    /// So many seeds may miss a sync.
    seeds: u64,
}

const SCRIPTS: [Script; 30] = [
    Script { run: partition::tests::crash::check_script, looked_at: 60, seeds: 1500 },
    Script { run: partition::tests::snapshots::check_sealed_at_rest, looked_at: 1, seeds: 60 },
    Script { run: partition::failed_sync::tests::check_durable, looked_at: 1, seeds: 60 },
    Script { run: recovery::tests::check_kept_aside, looked_at: 2, seeds: 60 },
    Script { run: recovery::tests::check_producers_known, looked_at: 2, seeds: 60 },
    Script { run: recovery::tests::check_begun_anew, looked_at: 1, seeds: 60 },
    Script { run: log::tests::check_script, looked_at: 120, seeds: 1500 },
    Script { run: log::tests::check_damaged, looked_at: 1, seeds: 50 },
    Script { run: log::tests::check_deleted, looked_at: 8, seeds: 400 },
    Script { run: log::untouched_tests::check_script, looked_at: 1, seeds: 30 },
    Script { run: log::untouched_tests::check_closed, looked_at: 10, seeds: 900 },
    Script { run: log::unsynced_tests::check_closed_early, looked_at: 1, seeds: 30 },
    Script { run: compaction::tests::crash::check_script, looked_at: 90, seeds: 900 },
    Script { run: compaction::tests::crash::check_finished, looked_at: 60, seeds: 200 },
    Script { run: log::repair::tests::check_script, looked_at: 120, seeds: 3000 },
    Script { run: log::repair::tests::check_between, looked_at: 120, seeds: 3000 },
    Script { run: log::repair::tests::check_unsynced, looked_at: 60, seeds: 720 },
    Script { run: log::repair::transaction_tests::check_script, looked_at: 480, seeds: 1920 },
    Script { run: import::tests::check_script, looked_at: 240, seeds: 1440 },
    Script { run: import::tests::check_groups, looked_at: 1, seeds: 60 },
    Script { run: group::crash_tests::check_script, looked_at: 120, seeds: 720 },
    Script { run: group::crash_tests::check_seen, looked_at: 1, seeds: 60 },
    Script { run: group::crash_tests::check_read, looked_at: 2, seeds: 60 },
    Script { run: consistent_cut::tests::check_script, looked_at: 30, seeds: 300 },
    Script { run: consistent_cut::tests::check_mark_taken_away, looked_at: 20, seeds: 1200 },
    Script { run: log::upkeep_tests::check_altered, looked_at: 60, seeds: 900 },
    Script { run: log::upkeep_tests::check_upkeep, looked_at: 4, seeds: 80 },
    Script { run: log::upkeep_tests::check_unsynced, looked_at: 2, seeds: 80 },
    Script { run: transaction::crash_tests::check_script, looked_at: 40, seeds: 600 },
    Script { run: transaction::snapshot_tests::check_removed, looked_at: 1, seeds: 60 },
];

/// What is lost without the syncs for a purpose.
fn loss(purpose: SyncPurpose) -> &'static str {
    match purpose {
        SyncPurpose::Records => "records that were acknowledged",
        SyncPurpose::Consumed => "what a committed transaction stands on",
        SyncPurpose::Decision => "transactions that were committed",
        SyncPurpose::Markers => "the ends of transactions that the table has forgotten",
        SyncPurpose::Recovered => "what was read after a recovery or kept by a repair",
        SyncPurpose::Directory => "files and directories, with all that is in them",
        SyncPurpose::Catalogue => "topics",
        SyncPurpose::RecoveryPoint | SyncPurpose::RecoveryPointFile => {
            "what tells damage from a torn end, and where a consistent cut is"
        }
        // Indexes of sealed segments are among them.
        SyncPurpose::Snapshot => "what is found by time",
        SyncPurpose::Marks => "where a partition begins, and what was decided of its segments",
        SyncPurpose::Compacted => "what was compacted",
        SyncPurpose::Cut => "a part of a consistent cut",
        SyncPurpose::Unsynced => "that there are records which nobody has synced",
        SyncPurpose::Checkpoint | SyncPurpose::Export => "nothing of the log",
        SyncPurpose::Closing => "records that a sync has found nothing of left to do",
    }
}

/// An index of a segment that is wrong, torn or gone is noticed by what the segment and the note beside it say, and
/// made anew from the batches. That takes time, and no more.
const MADE_ANEW: &str = "an index that disagrees with its segment is made anew";
/// A rename from one directory to another is one change, which a sync of either makes durable; the one at the end of
/// the cut covers all of them. A file system for which it is two has the new name first, and the segments go from the
/// last one on, as whoever finds the cut without its note would have it.
const ORDER: &str = "keeps an order that a sync later on makes up for";

type Excuse = (SyncPurpose, &'static str, &'static str, &'static [usize], &'static str);

/// What no script misses: for what, in which source file, of what, which of these in the order of lines, and why.
const EXCUSED: &[Excuse] = &[
    (SyncPurpose::Recovered, "log/repair/carry_out.rs", "cut/", &[1], ORDER),
    (SyncPurpose::Recovered, "log/repair/carry_out.rs", "partition/", &[1], ORDER),
    (SyncPurpose::Recovered, "partition/shorten.rs", "#.index.cleaned", &[0], MADE_ANEW),
    (SyncPurpose::Recovered, "partition/shorten.rs", "#.timeindex.cleaned", &[0], MADE_ANEW),
    (SyncPurpose::Recovered, "partition/shorten.rs", "#.txnindex.cleaned", &[0], MADE_ANEW),
    (SyncPurpose::Recovered, "partition/shorten.rs", "#.sum.cleaned", &[0], MADE_ANEW),
    (SyncPurpose::Recovered, "recovery/repair.rs", "#.txnindex", &[0], MADE_ANEW),
    (SyncPurpose::Recovered, "recovery/repair.rs", "#.sum", &[0], MADE_ANEW),
    (SyncPurpose::Compacted, "partition/replace.rs", "#.sum.cleaned", &[0], MADE_ANEW),
    (
        SyncPurpose::Snapshot,
        "transaction/snapshot.rs",
        "transaction-table",
        &[0],
        "one that is not whole is made anew from the table's topic",
    ),
    (
        SyncPurpose::Marks,
        "log/repair/note.rs",
        "partition/",
        &[1],
        "a note that comes back speaks of transactions that have ended, in epochs that nobody takes again",
    ),
    (
        SyncPurpose::Unsynced,
        "consistent_cut/mark.rs",
        "log/",
        &[0],
        "after a power cut the mark before it says the same: it is of another boot",
    ),
];

/// Syncs that stand in for one another: each covers what the others cover, as the same names are synced several times
/// before anything stands on them. Left out at once, they are missed.
const STAND_INS: &[&[(SyncPurpose, &str, &str, usize)]] = &[&[
    (SyncPurpose::Directory, "partition/metadata.rs", "import/", 0),
    (SyncPurpose::Recovered, "recovery/repair.rs", "import/", 0),
    (SyncPurpose::Directory, "partition/sync.rs", "import/", 0),
]];

/// Places that no script comes by, in which source file and for what, and why.
const UNVISITED: &[(&str, &str, &str)] = &[(
    "transaction/producer.rs",
    "Records",
    "early, so that the commit of a large transaction waits for less: the commit syncs all that is not",
)];

/// How a place is found in the lists.
fn is_listed(
    place: &SyncPlace,
    all: &[SyncPlace],
    listed: (SyncPurpose, &str, &str),
    numbers: &[usize],
) -> bool {
    let key = |place: &SyncPlace| (place.purpose, place.file, place.of.clone());
    let alike = all.iter().filter(|other| key(other) == key(place));
    let number = alike.filter(|other| other.line < place.line).count();
    let (purpose, file, of) = listed;
    purpose == place.purpose && place.file.ends_with(file) && of == place.of && numbers.contains(&number)
}

fn is_excused(place: &SyncPlace, all: &[SyncPlace]) -> bool {
    let is_it = |excuse: &Excuse| is_listed(place, all, (excuse.0, excuse.1, excuse.2), excuse.3);
    EXCUSED.iter().any(is_it)
}

fn stands_in(place: &SyncPlace, all: &[SyncPlace]) -> bool {
    let is_it = |it: &(SyncPurpose, &str, &str, usize)| is_listed(place, all, (it.0, it.1, it.2), &[it.3]);
    STAND_INS.iter().any(|group| group.iter().any(is_it))
}

/// Where the scripts sync, and which of them do.
fn places() -> BTreeMap<SyncPlace, BTreeSet<usize>> {
    let mut places: BTreeMap<SyncPlace, BTreeSet<usize>> = BTreeMap::new();
    for (number, script) in SCRIPTS.iter().enumerate() {
        for seed in 0..script.looked_at {
            let outcome = trial::run(seed, &[], || (script.run)(seed));
            assert!(!outcome.is_broken, "script {number} with seed {seed} is broken with all of its syncs");
            for place in outcome.places.into_iter().filter(|place| !is_in_a_test(place.file)) {
                places.entry(place).or_default().insert(number);
            }
        }
    }
    places
}

/// Whether a script has asked for it itself: that is not the product's to leave out.
fn is_in_a_test(file: &str) -> bool {
    file.contains("tests")
}

/// So many seeds of one script are tried before the next script is.
const STRIDE: u64 = 30;

/// Whether one of the scripts misses these places, left out at once.
fn is_missed(left_out: &[SyncPlace], scripts: &BTreeSet<usize>) -> bool {
    let scripts: Vec<_> = scripts.iter().map(|number| &SCRIPTS[*number]).collect();
    let seeds_max = scripts.iter().map(|script| script.seeds).max().unwrap_or_default();
    let is_missed_by = |script: &Script, first: u64| {
        let mut seeds = first..script.seeds.min(first + STRIDE);
        let is_broken = |seed: u64, left_out| trial::run(seed, left_out, || (script.run)(seed)).is_broken;
        seeds.any(|seed| {
            let is_missed = is_broken(seed, left_out);
            // What breaks anyway shows nothing.
            assert!(
                !is_missed || !is_broken(seed, &[]),
                "with seed {seed} a script is broken with all of its syncs"
            );
            is_missed
        })
    };
    (0..seeds_max).step_by(STRIDE as usize).any(|first| scripts.iter().any(|it| is_missed_by(it, first)))
}

#[test]
fn each_place_that_syncs_is_missed_by_some_script_or_it_is_said_why_not() {
    let places = places();
    let all: Vec<_> = places.keys().cloned().collect();
    let mut wrong = unlisted(&all);
    for (place, scripts) in &places {
        let is_expected = !is_excused(place, &all) && !stands_in(place, &all);
        if is_expected && !is_missed(std::slice::from_ref(place), scripts) {
            wrong.push(format!("no script misses {place}, without which is lost: {}", loss(place.purpose)));
        }
    }
    for group in STAND_INS {
        let is_of_it =
            |place: &&SyncPlace| group.iter().any(|it| is_listed(place, &all, (it.0, it.1, it.2), &[it.3]));
        let left_out: Vec<_> = all.iter().filter(is_of_it).cloned().collect();
        let scripts = left_out.iter().flat_map(|place| &places[place]).copied().collect();
        if left_out.len() != group.len() || !is_missed(&left_out, &scripts) {
            wrong.push(format!("no script misses all of {group:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is excused and not there, and what is named in the code and no script comes by.
fn unlisted(all: &[SyncPlace]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (purpose, file, of, numbers, _) in EXCUSED {
        for number in *numbers {
            let is_it = |place: &SyncPlace| is_listed(place, all, (*purpose, file, of), &[*number]);
            if all.iter().filter(|place| is_it(place)).count() != 1 {
                wrong.push(format!("there is no {purpose:?} of {of}, number {number}, in {file}"));
            }
        }
    }
    let visited: BTreeSet<_> = all.iter().map(|place| (place.file, place.line)).collect();
    let mut unvisited: Vec<_> = UNVISITED.iter().map(|(file, purpose, _)| (*file, *purpose)).collect();
    for (file, line, text) in named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        if visited.iter().any(|(at, number)| *number == line && at.ends_with(&file)) {
            continue;
        }
        match unvisited.iter().position(|(at, purpose)| file.ends_with(at) && text.contains(purpose)) {
            Some(place) => drop(unvisited.remove(place)),
            None => wrong.push(format!("no script comes by line {line} of {file}: {text}")),
        }
    }
    wrong.extend(unvisited.iter().map(|(file, purpose)| format!("all of {file} is come by, {purpose} too")));
    wrong
}

/// The lines of the code under a folder that name what to sync for: the file within it, the line, what it says.
fn named(folder: &Path) -> Vec<(String, u32, String)> {
    let mut folders = vec![folder.to_owned()];
    let mut named = Vec::new();
    while let Some(within) = folders.pop() {
        for entry in fs::read_dir(&within).expect("the code is there") {
            let path = entry.expect("it is listed").path();
            let file = path.strip_prefix(folder).expect("it is within").to_string_lossy().into_owned();
            if is_in_a_test(&file) || file.starts_with("storage") || file == "needed_syncs.rs" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("it is text");
            let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (line, text) in (1..).zip(product.lines()).filter(|(_, text)| names_purpose(text)) {
                named.push((file.clone(), line, text.trim().to_owned()));
            }
        }
    }
    named
}

/// Whether the line hands a purpose over: it does not compare one, and is no comment.
fn names_purpose(line: &str) -> bool {
    let is_compared = line.contains("== SyncPurpose::") || line.contains("!= SyncPurpose::");
    line.contains("SyncPurpose::") && !is_compared && !line.trim_start().starts_with("//")
}
