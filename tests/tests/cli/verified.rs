//! What `verify` says of indexes that are not what was written, and of what else it finds beside them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use lotic_log::{Log, LogOptions, TopicConfig};
use lotic_tests::files::Files;
use serde_json::{Value, json};

use super::{Lotic, batch};

const SUMMARY: &str = "1 partitions, 7 batches, 7 records, ";

/// A topic of one partition, closed, with segments from the offsets 0, 3 and 6 on. Each has an entry for every batch but
/// its first in the index by offset.
fn written() -> Lotic {
    let lotic = Lotic::new();
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    let config = TopicConfig { segment_bytes: 220, index_interval_bytes: 1, ..TopicConfig::default() };
    let topic = log.create_topic("words", config).unwrap();
    for word in ["a", "b", "c", "d", "e", "f", "g"] {
        topic.partitions()[0].append(batch(word)).unwrap();
    }
    log.close().unwrap();
    lotic
}

fn file(lotic: &Lotic, base: u64, extension: &str) -> PathBuf {
    lotic.data().join(format!("words-0/{base:020}.{extension}"))
}

fn cut(lotic: &Lotic, base: u64, extension: &str, bytes: u64) {
    let file = OpenOptions::new().write(true).open(file(lotic, base, extension)).unwrap();
    assert!(file.metadata().unwrap().len() > bytes);
    file.set_len(bytes).unwrap();
}

fn tear(lotic: &Lotic) {
    let mut last = OpenOptions::new().append(true).open(file(lotic, 6, "log")).unwrap();
    last.write_all(b"half of a batch").unwrap();
}

/// The lines that `verify` prints, with this exit status, and its object as JSON. Nothing is changed by that.
#[track_caller]
fn verified(lotic: &Lotic, status: i32) -> (Vec<String>, Value) {
    let before = Files::below(&lotic.data()).unwrap();
    let [lines, object] = [&["verify", "words"][..], &["verify", "words", "--json"]].map(|arguments| {
        let ended = lotic.run(arguments, "");
        assert_eq!(ended.status.code(), Some(status), "{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stderr, "");
        ended.stdout
    });
    Files::below(&lotic.data()).unwrap().check_unchanged_since(&before).unwrap();
    let lines = lines.lines().map(str::to_owned).collect();
    (lines, serde_json::from_str(object.trim()).unwrap())
}

/// What is told of an index, as a line and as JSON.
fn told(
    lotic: &Lotic,
    base: u64,
    extension: &str,
    offset: u64,
    position: u64,
    reason: &str,
) -> (String, Value) {
    let path = file(lotic, base, extension);
    let line = format!(
        "index      topic words, partition 0, offset {offset}: {} is damaged at position {position}: {reason}",
        path.display()
    );
    (line, json!({ "offset": offset, "file": path, "position": position, "reason": reason }))
}

#[test]
fn verify_names_each_index_that_lacks_something_and_says_so_by_its_exit_status_until_the_log_was_opened() {
    let lotic = written();
    let (lines, object) = verified(&lotic, 0);
    assert!(lines[0].starts_with(SUMMARY) && lines[1] == "sound" && lines.len() == 2, "{lines:?}");
    assert_eq!((&object["status"], &object["indexes"]), (&json!("sound"), &json!([])));

    cut(&lotic, 0, "index", 8);
    fs::remove_file(file(&lotic, 0, "timeindex")).unwrap();
    fs::remove_file(file(&lotic, 3, "sum")).unwrap();
    let anew = "opening the log to write makes it anew";
    let (expected, objects): (Vec<_>, Vec<_>) = [
        told(&lotic, 0, "index", 2, 8, &format!("1 of 2 entries are left; {anew}")),
        told(&lotic, 0, "timeindex", 0, 0, &format!("it is missing; {anew}")),
        told(&lotic, 3, "sum", 3, 0, &format!("what the indexes up to offset 6 hold is not noted; {anew}")),
    ]
    .into_iter()
    .unzip();
    let (lines, object) = verified(&lotic, 1);
    assert_eq!(lines[..3], expected);
    assert!(lines[3].starts_with(SUMMARY) && lines[4] == "1 damaged" && lines.len() == 5, "{lines:?}");
    assert_eq!((&object["status"], &object["damage"]), (&json!("untrue index"), &Value::Null));
    assert_eq!(object["indexes"], json!(objects));
    assert_eq!((&object["topic"], &object["partition"]), (&json!("words"), &json!(0)));

    Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap().close().unwrap();
    let (_, object) = verified(&lotic, 0);
    assert_eq!((&object["status"], &object["indexes"]), (&json!("sound"), &json!([])));
}

#[test]
fn verify_tells_of_an_untrue_index_beside_a_torn_tail_which_is_no_damage_by_itself() {
    let lotic = written();
    tear(&lotic);
    let (lines, object) = verified(&lotic, 0);
    let last = file(&lotic, 6, "log");
    let torn = format!("torn tail  topic words, partition 0, offset 7: {} is damaged", last.display());
    assert!(lines[0].starts_with(&torn) && lines[2] == "sound" && lines.len() == 3, "{lines:?}");
    assert_eq!((&object["status"], &object["indexes"]), (&json!("torn tail"), &json!([])));
    assert_eq!((&object["damage"]["offset"], &object["damage"]["file"]), (&json!(7), &json!(last)));

    // An entry that is not true, which opening would not notice: it is not the last.
    let index = file(&lotic, 3, "index");
    let mut bytes = fs::read(&index).unwrap();
    bytes[7] ^= 1;
    fs::write(&index, &bytes).unwrap();
    let (lines, object) = verified(&lotic, 1);
    let untrue = format!("index      topic words, partition 0, offset 4: {} is damaged", index.display());
    assert!(lines[0].starts_with(&untrue) && lines[0].contains("without this file"), "{lines:?}");
    assert!(lines[1].starts_with(&torn) && lines[3] == "1 damaged" && lines.len() == 4, "{lines:?}");
    assert_eq!((&object["status"], &object["damage"]["offset"]), (&json!("torn tail"), &json!(7)));
    assert_eq!(object["indexes"].as_array().map(Vec::len), Some(1), "{object}");
    assert_eq!((&object["indexes"][0]["offset"], &object["indexes"][0]["file"]), (&json!(4), &json!(index)));
}

#[test]
fn verify_tells_of_an_untrue_index_before_the_place_where_a_partition_is_corrupt() {
    let lotic = written();
    cut(&lotic, 0, "index", 0);
    let log = file(&lotic, 3, "log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[64] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let (lines, object) = verified(&lotic, 1);
    let corrupt = format!("corrupt    topic words, partition 0, offset 3: {} is damaged", log.display());
    assert!(lines[0].starts_with("index      ") && lines[1].starts_with(&corrupt), "{lines:?}");
    assert!(lines[3] == "1 damaged" && lines.len() == 4, "{lines:?}");
    assert_eq!((&object["status"], &object["damage"]["file"]), (&json!("corrupt"), &json!(log)));
    assert_eq!(object["indexes"][0]["file"], json!(file(&lotic, 0, "index")));
}
