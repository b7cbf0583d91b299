//! The `lotic` command, as a person or a script uses it.
//!
//! - [`told`]: what it says of what it has done, and how it refuses what is wrong.
//! - [`verified`]: what `verify` says of indexes.

mod told;
mod verified;

use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use lotic_log::batch::{BatchBuilder, Compression, SealedBatch};
use lotic_log::{
    Consumer, ConsumerOptions, Durability, Log, LogOptions, PartitionId, Producer, ProducerOptions, Record,
    Timestamp, TopicConfig,
};
use lotic_tests::files::Files;
use lotic_tests::process::{Ended, Process};
use lotic_tests::programs::program;
use lotic_tests::stored::ends;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory of a log, and the command on it.
struct Lotic {
    folder: TempDir,
}

impl Lotic {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With a topic of one partition that holds these lines.
    fn with_topic(topic: &str, lines: &str) -> Self {
        let lotic = Self::new();
        lotic.prints(&["topic", "create", topic]);
        lotic.reads(&["produce", topic], lines);
        lotic
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("lotic").unwrap());
        // Somewhere else than the directory of the tests: the default is `data` below it.
        command.args(arguments).arg("--data").arg(self.data()).current_dir(self.folder.path());
        command.env_remove("LOTIC_DATA");
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Ended {
        Process::start_with(&mut self.command(arguments), input.as_bytes()).unwrap().end().unwrap()
    }

    /// What it prints, given nothing to read.
    #[track_caller]
    fn prints(&self, arguments: &[&str]) -> String {
        self.reads(arguments, "")
    }

    /// What it prints.
    #[track_caller]
    fn reads(&self, arguments: &[&str], input: &str) -> String {
        let ended = self.run(arguments, input);
        assert!(ended.status.success(), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// What it says when it refuses, with this exit status.
    #[track_caller]
    fn refuses(&self, status: i32, arguments: &[&str], input: &str) -> String {
        let ended = self.run(arguments, input);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        ended.stderr
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.prints(arguments);
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts it, and waits until it has printed as much.
    fn printing(&self, arguments: &[&str], expected: &str) -> Process {
        let mut process = Process::start(&mut self.command(arguments)).unwrap();
        process.wait_until_printed(expected).unwrap();
        process
    }
}

#[test]
fn lines_become_records_and_records_become_lines() {
    let lotic = Lotic::new();
    assert_eq!(lotic.prints(&["topic", "create", "words"]), "created words with 1 partition\n");
    let ended = lotic.run(&["produce", "words"], "one\ntwo\r\n\nfour");
    ended.check_success("produce").unwrap();
    assert!(ended.stderr.contains("4 records written to words"), "{}", ended.stderr);
    assert_eq!(lotic.prints(&["consume", "words"]), "one\ntwo\n\nfour\n");
    assert_eq!(lotic.prints(&["consume", "words", "--max-records", "2"]), "one\ntwo\n");
}

#[test]
fn the_directory_is_what_lotic_data_says_unless_it_is_given() {
    let (lotic, elsewhere) = (Lotic::with_topic("words", "one\n"), tempfile::tempdir().unwrap());
    let run = |data: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program("lotic").unwrap());
        // Nothing is in the directory that would be taken otherwise.
        command.args(arguments).env("LOTIC_DATA", data).current_dir(elsewhere.path());
        Process::start(&mut command).unwrap().end().unwrap()
    };
    let ended = run(&lotic.data(), &["consume", "words"]);
    assert_eq!((ended.stdout.as_str(), ended.status.code()), ("one\n", Some(0)), "{}", ended.stderr);

    let given = lotic.data().display().to_string();
    let ended = run(elsewhere.path(), &["consume", "words", "--data", &given]);
    assert_eq!((ended.stdout.as_str(), ended.status.code()), ("one\n", Some(0)), "{}", ended.stderr);
}

#[test]
fn what_stands_before_the_separator_is_the_key() {
    let lotic = Lotic::new();
    lotic.prints(&["topic", "create", "words", "--partitions", "3"]);
    lotic.reads(&["produce", "words", "--key-separator", "=>"], "a=>1\nb=>2\na=>3=>4\n");
    let records = lotic.json(&["consume", "words", "--json"]);
    let of_key = |key: &str| {
        let found: Vec<_> = records.iter().filter(|record| record["key"] == key).collect();
        assert!(found.iter().all(|record| record["partition"] == found[0]["partition"]), "{found:?}");
        found.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((of_key("a"), of_key("b")), (vec!["1".to_owned(), "3=>4".to_owned()], vec!["2".to_owned()]));

    let said = lotic.refuses(1, &["produce", "words", "-K", "=>"], "a=>1\nb\n");
    assert!(said.contains("line 2") && said.contains("\"=>\""), "{said}");
}

#[test]
fn a_record_is_shown_whole_as_json() {
    let lotic = Lotic::new();
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    log.create_topic("all", TopicConfig::default()).unwrap();
    let producer = Producer::new(&log, ProducerOptions::default()).unwrap();
    let record = Record {
        key: Some(b"k".to_vec().into()),
        value: Some(vec![0xff, 0x00].into()),
        timestamp: Some(Timestamp(1_357_034_400_000)),
        headers: vec![lotic_log::Header { key: "step".into(), value: Some(b"x".to_vec().into()) }],
    };
    producer.send("all", record).wait().unwrap();
    let tombstone =
        Record { key: Some(b"k".to_vec().into()), timestamp: Some(Timestamp(5)), ..Record::default() };
    producer.send("all", tombstone).wait().unwrap();
    drop(producer);
    log.close().unwrap();
    let expected = [
        json!({
            "partition": 0, "offset": 0, "timestamp": 1_357_034_400_000_i64, "key": "k",
            "value": { "base64": "/wA=" }, "headers": [{ "key": "step", "value": "x" }],
        }),
        json!({ "partition": 0, "offset": 1, "timestamp": 5, "key": "k", "value": null, "headers": [] }),
    ];
    assert_eq!(lotic.json(&["consume", "all", "--json"]), expected);
}

#[test]
fn reading_starts_where_it_is_told() {
    let lotic = Lotic::with_topic("words", "one\ntwo\nthree\n");
    let check = |more: &[&str], expected: &str| {
        let arguments = [&["consume", "words"], more].concat();
        assert_eq!(lotic.prints(&arguments), expected, "{more:?}");
    };
    check(&["--from-beginning"], "one\ntwo\nthree\n");
    check(&["--from-end"], "");
    check(&["--partition", "0", "--offset", "2"], "three\n");
    check(&["--from-time", "0"], "one\ntwo\nthree\n");
    check(&["--from-time", "2013-01-01T10:00:00Z"], "one\ntwo\nthree\n");
    check(&["--from-time", "2200-01-01T00:00:00Z"], "");

    let said = lotic.refuses(2, &["consume", "words", "--offset", "2"], "");
    assert!(said.contains("--partition"), "{said}");
    for other in [["--from-time", "0"].as_slice(), &["--from-end"]] {
        let both = [&["consume", "words", "--from-beginning"], other].concat();
        let said = lotic.refuses(2, &both, "");
        assert!(said.contains("cannot be used with"), "{said}");
    }
    let said = lotic.refuses(1, &["consume", "words", "--partition", "0", "--offset", "7"], "");
    assert!(said.contains("words") && said.contains('7'), "{said}");
    let said = lotic.refuses(1, &["consume", "words", "--partition", "4"], "");
    assert!(said.contains("topic words has no partition 4"), "{said}");
}

#[test]
fn reading_starts_at_the_first_record_of_a_time() {
    let lotic = Lotic::new();
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    log.create_topic("times", TopicConfig::default()).unwrap();
    let producer = Producer::new(&log, ProducerOptions::default()).unwrap();
    for time in [1_000, 2_000, 3_000] {
        let value = Some(time.to_string().into_bytes().into());
        let record = Record { value, timestamp: Some(Timestamp(time)), ..Record::default() };
        producer.send("times", record).wait().unwrap();
    }
    drop(producer);
    log.close().unwrap();
    assert_eq!(lotic.prints(&["consume", "times", "--from-time", "1001"]), "2000\n3000\n");
    assert_eq!(lotic.prints(&["consume", "times", "--from-time", "1970-01-01T00:00:03Z"]), "3000\n");
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let lotic = Lotic::with_topic("words", "one\ntwo\nthree\n");
    let group = ["consume", "words", "--group", "readers"];
    assert_eq!(lotic.prints(&[&group[..], &["--max-records", "1"]].concat()), "one\n");
    assert_eq!(lotic.prints(&group), "two\nthree\n");
    assert_eq!(lotic.prints(&group), "");
    lotic.reads(&["produce", "words"], "four\n");
    assert_eq!(lotic.prints(&group), "four\n");
    assert_eq!(lotic.prints(&["consume", "words", "--group", "others"]), "one\ntwo\nthree\nfour\n");
    let again = [&group[..], &["--from-beginning"]].concat();
    assert_eq!(lotic.prints(&again), "one\ntwo\nthree\nfour\n");

    let end = ["consume", "words", "--group", "latecomers"];
    assert_eq!(lotic.prints(&[&end[..], &["--from-end"]].concat()), "");
    lotic.reads(&["produce", "words"], "five\n");
    assert_eq!(lotic.prints(&end), "five\n");
}

#[test]
fn a_reader_that_follows_prints_what_comes_until_it_is_told_to_end() {
    let lotic = Lotic::with_topic("words", "one\n");
    let mut follower = lotic.printing(&["consume", "words", "--follow"], "one\n");
    let mut until_three = lotic.printing(&["consume", "words", "--follow", "-n", "3"], "one\n");
    lotic.reads(&["produce", "words"], "two\n");
    follower.wait_until_printed("one\ntwo\n").unwrap();
    until_three.wait_until_printed("one\ntwo\n").unwrap();
    lotic.reads(&["produce", "words"], "three\nfour\n");
    follower.wait_until_printed("one\ntwo\nthree\nfour\n").unwrap();
    follower.terminate().unwrap();
    follower.end().unwrap().check_success("a reader that was told to end").unwrap();
    let ended = until_three.end().unwrap();
    ended.check_success("a reader of three").unwrap();
    assert_eq!(ended.stdout, "one\ntwo\nthree\n");
}

#[test]
fn who_comes_while_segments_are_being_replaced_waits_until_they_are() {
    let lotic = Lotic::with_topic("words", "one\n");
    // It is there from the decision to replace segments until they are replaced.
    let swap = segment(&lotic.data()).with_extension("log.swap");
    for (arguments, printed) in [(["consume", "words"], "one\n"), (["group", "list"], "")] {
        fs::write(&swap, "").unwrap();
        let mut reader = Process::start(&mut lotic.command(&arguments)).unwrap();
        reader.wait_until_said("it is tried again").unwrap();
        fs::remove_file(&swap).unwrap();
        let ended = reader.end().unwrap();
        ended.check_success("a reader that waited").unwrap();
        assert_eq!(ended.stdout, printed);
    }
}

/// As after a power cut: what was not synced is there when the reader comes, and gone after that.
#[test]
fn a_reader_that_follows_goes_on_behind_a_tail_that_was_cut_off() {
    let lotic = Lotic::new();
    let alive = tempfile::tempdir().unwrap();
    let log = Log::open(alive.path(), LogOptions::disk().unwrap()).unwrap();
    let unsynced = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    log.create_topic("words", unsynced).unwrap();
    let producer = Producer::new(&log, ProducerOptions::default()).unwrap();
    let mut bytes = Vec::new();
    for word in ["one", "two", "three"] {
        let record = Record { value: Some(word.as_bytes().to_vec().into()), ..Record::default() };
        producer.send("words", record).wait().unwrap();
        bytes.push(fs::metadata(segment(alive.path())).unwrap().len());
    }
    // What a process leaves that is killed now.
    copy(alive.path(), &lotic.data());
    let mut follower = lotic.printing(&["consume", "words", "--follow"], "one\ntwo\nthree\n");
    OpenOptions::new().write(true).open(segment(&lotic.data())).unwrap().set_len(bytes[1] + 10).unwrap();
    follower.wait_until_said("words-0 goes on at offset 2, not 3").unwrap();
    lotic.reads(&["produce", "words"], "four\n");
    follower.wait_until_printed("one\ntwo\nthree\nfour\n").unwrap();
    follower.terminate().unwrap();
    follower.end().unwrap().check_success("a reader that was told to end").unwrap();
}

fn segment(data: &Path) -> std::path::PathBuf {
    data.join("words-0/00000000000000000000.log")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() != ".lock" {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn records_of_transactions_are_shown_once_committed_if_that_is_asked_for() {
    let lotic = Lotic::new();
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    log.create_topic("words", TopicConfig::default()).unwrap();
    let partition = log.topic("words").unwrap().partition(PartitionId(0)).unwrap();
    let writer = log.transactional("writer").unwrap();
    for (word, is_committed) in [("kept", true), ("dropped", false)] {
        writer.begin().unwrap();
        writer.append(&partition, batch(word)).unwrap();
        let ended = if is_committed { writer.commit(&[]) } else { writer.begin_abort() };
        ended.wait().unwrap();
    }
    drop(writer);
    log.close().unwrap();
    assert_eq!(lotic.prints(&["consume", "words", "--read-committed"]), "kept\n");
    assert_eq!(lotic.prints(&["consume", "words"]), "kept\ndropped\n");
}

#[test]
fn topics_are_listed_described_and_deleted() {
    let lotic = Lotic::with_topic("words", "one\ntwo\n");
    let create = ["topic", "create", "last", "-p", "2", "--cleanup", "compact", "--segment-bytes", "4096"];
    lotic.prints(&[&create[..], &["--compression", "zstd:9"]].concat());
    assert_eq!(lotic.prints(&["topic", "list"]), "last\nwords\n");
    let listed = lotic.json(&["topic", "list", "--json"]);
    assert_eq!((&listed[0]["name"], &listed[0]["partitions"]), (&json!("last"), &json!(2)));
    assert_eq!((&listed[0]["cleanup"], &listed[1]["cleanup"]), (&json!("compact"), &json!("delete")));

    let described = &lotic.json(&["topic", "describe", "last", "--json"])[0];
    assert_eq!(described["id"], listed[0]["id"]);
    assert_eq!(described["segment_bytes"], 4096);
    assert_eq!(described["compression"], "zstd:9");
    let words = &lotic.json(&["topic", "describe", "words", "--json"])[0];
    let bytes = fs::metadata(segment(&lotic.data())).unwrap().len();
    let partition = json!({
        "partition": 0, "start": 0, "stable": 2, "end": 2, "segments": 1, "bytes": bytes,
        "open_transactions": [],
    });
    assert_eq!(words["partitions"], json!([partition]));
    let text = lotic.prints(&["topic", "describe", "words"]);
    assert!(text.contains("cleanup         delete"), "{text}");
    let row: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["0", "0", "2", "2", "1", &bytes.to_string()]);

    let said = lotic.refuses(1, &["topic", "create", "words"], "");
    assert!(said.contains("topic words exists already"), "{said}");
    assert_eq!(lotic.prints(&["topic", "delete", "words"]), "deleted words\n");
    assert_eq!(lotic.prints(&["topic", "list"]), "last\n");
    assert!(!lotic.data().join("words-0").exists());
}

#[test]
fn an_unknown_topic_is_refused_with_the_nearest_one() {
    let lotic = Lotic::with_topic("flights", "one\n");
    let commands: [&[&str]; 5] = [
        &["produce", "flihgts"],
        &["consume", "flihgts"],
        &["consume", "flihgts", "--group", "readers"],
        &["topic", "describe", "flihgts"],
        &["topic", "delete", "flihgts"],
    ];
    let before = Files::below(&lotic.data()).unwrap();
    for arguments in commands {
        let said = lotic.refuses(1, arguments, "two\n");
        assert!(said.contains("there is no topic flihgts; did you mean flights?"), "{arguments:?}: {said}");
    }
    Files::below(&lotic.data()).unwrap().check_unchanged_since(&before).unwrap();
}

#[test]
fn a_folder_without_a_log_stays_as_it_is() {
    let lotic = Lotic::new();
    let commands: [&[&str]; 6] = [
        &["produce", "words"],
        &["consume", "words"],
        &["consume", "words", "--group", "readers"],
        &["topic", "list"],
        &["topic", "describe", "words"],
        &["topic", "delete", "words"],
    ];
    for arguments in commands {
        let said = lotic.refuses(1, arguments, "one\n");
        assert!(
            said.contains(&format!("there is no log in {}", lotic.data().display())),
            "{arguments:?}: {said}"
        );
        assert!(!lotic.data().exists(), "{arguments:?}");
    }
    fs::create_dir(lotic.data()).unwrap();
    for arguments in commands {
        lotic.refuses(1, arguments, "one\n");
        assert_eq!(fs::read_dir(lotic.data()).unwrap().count(), 0, "{arguments:?}");
    }
}

#[test]
fn a_directory_that_a_process_holds_can_be_read_and_not_written() {
    let lotic = Lotic::with_topic("words", "one\n");
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    assert_eq!(lotic.prints(&["consume", "words"]), "one\n");
    assert_eq!(lotic.prints(&["topic", "list"]), "words\n");
    assert!(lotic.prints(&["topic", "describe", "words"]).contains("partition"));
    assert!(lotic.prints(&["verify"]).contains("sound"));
    let before = ends(&lotic.data()).unwrap();
    let commands: [&[&str]; 4] = [
        &["produce", "words"],
        &["consume", "words", "--group", "readers"],
        &["topic", "create", "more"],
        &["topic", "delete", "words"],
    ];
    for arguments in commands {
        let said = lotic.refuses(1, arguments, "two\n");
        let holder = format!("process {}", std::process::id());
        assert!(said.contains(&holder), "{arguments:?}: {said}");
    }
    assert_eq!(ends(&lotic.data()).unwrap(), before);
    log.close().unwrap();
    lotic.reads(&["produce", "words"], "two\n");
    assert_eq!(lotic.prints(&["consume", "words"]), "one\ntwo\n");
}

#[test]
fn a_line_longer_than_a_record_may_be_is_named() {
    let lotic = Lotic::new();
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    log.create_topic("small", TopicConfig { batch_bytes_max: 1_000, ..TopicConfig::default() }).unwrap();
    log.close().unwrap();
    let said = lotic.refuses(1, &["produce", "small"], &format!("short\n{}\nshort\n", "x".repeat(1_001)));
    assert!(said.contains("line 2 is longer than 1000 bytes"), "{said}");
    // A batch takes some bytes itself.
    let said = lotic.refuses(1, &["produce", "small"], &format!("{}\n", "x".repeat(1_000)));
    assert!(said.contains("line 1") && said.contains("small"), "{said}");
}

#[test]
fn a_damaged_partition_is_cut_where_verify_says_and_what_is_cut_is_kept() {
    let lotic = Lotic::new();
    lotic.prints(&["topic", "create", "words"]);
    for word in ["a\n", "b\n", "c\n", "d\n"] {
        lotic.reads(&["produce", "words"], word);
    }
    let path = segment(&lotic.data());
    let mut bytes = fs::read(&path).unwrap();
    // One batch of each, all of the same size.
    let size = bytes.len() / 4;
    bytes[2 * size + 64] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let ended = lotic.run(&["verify", "words", "--json"], "");
    assert_eq!(ended.status.code(), Some(1));
    let verified: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    assert_eq!(verified["damage"]["offset"], 2);
    assert_eq!(verified["indexes"], json!([]));

    let cut = ["repair", "words", "--partition", "0", "--truncate-at", "2"];
    let before = Files::below(&lotic.data()).unwrap();
    let said = lotic.prints(&[&cut[..], &["--dry-run"]].concat());
    assert!(
        said.contains("words-0 would end at offset 2") && said.contains("1 records in 1 batches"),
        "{said}"
    );
    Files::below(&lotic.data()).unwrap().check_unchanged_since(&before).unwrap();
    let said = lotic.refuses(1, &["repair", "words", "--partition", "0", "--truncate-at", "3"], "");
    assert!(said.contains("offset 2"), "{said}");
    let report = &lotic.json(&[&cut[..], &["--json"]].concat())[0];
    assert_eq!((&report["cut_at"], &report["damaged_bytes"]), (&json!(2), &json!(size)));
    let kept = Path::new(report["kept_in"].as_str().unwrap()).join("00000000000000000002.log");
    assert_eq!(fs::read(kept).unwrap(), bytes[2 * size..]);
    assert!(lotic.prints(&["verify", "words"]).ends_with("sound\n"));
    assert_eq!(lotic.prints(&["consume", "words"]), "a\nb\n");
}

#[test]
fn what_consume_prints_as_json_produce_reads() {
    let lotic = Lotic::new();
    lotic.prints(&["topic", "create", "from", "--partitions", "3"]);
    lotic.prints(&["topic", "create", "to", "--partitions", "3"]);
    let lines = [
        json!({ "partition": 2, "timestamp": 7, "key": "k", "value": { "base64": "//79" }, "headers": [] }),
        json!({ "partition": 0, "timestamp": 8, "key": null, "value": null,
            "headers": [{ "key": "h", "value": "1" }, { "key": "h", "value": null }] }),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    lotic.reads(&["produce", "from", "--json"], &lines);
    let printed = lotic.prints(&["consume", "from", "--json"]);
    lotic.reads(&["produce", "to", "--json", "--compression", "zstd:9"], &printed);
    assert_eq!(lotic.prints(&["consume", "to", "--json"]), printed);
    let found = lotic.json(&["consume", "to", "--json"]);
    assert_eq!(found.len(), 2);
    let of_two = found.iter().find(|line| line["partition"] == 2).unwrap();
    assert_eq!((&of_two["timestamp"], &of_two["value"]), (&json!(7), &json!({ "base64": "//79" })));
    let said = lotic.refuses(1, &["produce", "to", "--json"], "{\"value\":\"v\",\"partition\":3}\n");
    assert!(said.contains("line 1") && said.contains("topic to has no partition 3"), "{said}");
}

#[test]
fn a_topic_is_made_with_the_settings_that_alter_knows() {
    let lotic = Lotic::new();
    let settings =
        ["timestamp-type=append", "batch-bytes-max=500", "retention-time=7d", "segment-bytes=4000"];
    let settings = settings.iter().flat_map(|setting| ["--config", setting]);
    let create: Vec<_> =
        ["topic", "create", "words", "--segment-bytes", "9000"].into_iter().chain(settings).collect();
    lotic.prints(&create);
    let made = &lotic.json(&["topic", "describe", "words", "--json"])[0];
    assert_eq!((&made["timestamp_type"], &made["batch_bytes_max"]), (&json!("append"), &json!(500)));
    assert_eq!((&made["retention_ms"], &made["segment_bytes"]), (&json!(604_800_000), &json!(4000)));
    let said = lotic.refuses(2, &["topic", "create", "more", "--config", "colour=red"], "");
    assert!(said.contains("colour") && said.contains("retention-bytes"), "{said}");
}

#[test]
fn whose_time_records_carry_and_how_large_batches_are_can_be_altered() {
    let lotic = Lotic::with_topic("words", "a\n");
    let alter =
        ["topic", "alter", "words", "--timestamp-type", "append", "--batch-bytes-max", "500", "--json"];
    let altered = &lotic.json(&alter)[0];
    assert_eq!((&altered["timestamp_type"], &altered["batch_bytes_max"]), (&json!("append"), &json!(500)));
    lotic.reads(&["produce", "words", "--json"], "{\"value\":\"b\",\"timestamp\":7}\n");
    let found = lotic.json(&["consume", "words", "--offset", "1", "--partition", "0", "--json"]);
    assert!(found[0]["timestamp"].as_i64().unwrap() > 1_000_000_000_000, "{found:?}");
}

fn batch(value: &str) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(Timestamp(0), None, Some(value.as_bytes()), &[]).unwrap();
    builder.seal()
}

#[test]
fn a_group_is_listed_described_reset_and_deleted() {
    let lotic = Lotic::with_topic("words", "one\ntwo\nthree\nfour\n");
    assert_eq!(lotic.prints(&["group", "list"]), "");
    lotic.prints(&["consume", "words", "--group", "readers", "--max-records", "3"]);
    let listed = json!({ "group": "readers", "state": "Empty", "members": 0, "lag": 1 });
    assert_eq!(lotic.json(&["group", "list", "--json"]), [listed]);
    let table = lotic.prints(&["group", "list"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["readers", "Empty", "0", "1"]);
    let described = lotic.prints(&["group", "describe", "readers"]);
    let row: Vec<_> = described.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["words", "0", "3", "4", "1", "-"]);

    let reset = ["group", "reset", "readers", "--topic", "words", "--to-earliest"];
    let ended = lotic.run(&reset, "");
    assert_eq!(ended.stdout, "words-0: 3 -> 0\n");
    assert!(ended.stderr.contains("nothing was changed; --execute does it"), "{}", ended.stderr);
    assert_eq!(lotic.prints(&["consume", "words", "--group", "readers", "-n", "1"]), "four\n");
    assert_eq!(lotic.prints(&[&reset[..], &["--execute"]].concat()), "words-0: 4 -> 0\n");
    assert_eq!(lotic.prints(&["consume", "words", "--group", "readers", "-n", "1"]), "one\n");

    assert_eq!(lotic.prints(&["group", "delete", "readers"]), "deleted group readers\n");
    let said = lotic.refuses(1, &["group", "describe", "readers"], "");
    assert!(said.contains("there is no group readers"), "{said}");
    assert_eq!(lotic.prints(&["consume", "words", "--group", "readers", "-n", "1"]), "one\n");
}

#[test]
fn a_reset_leads_to_offsets_times_and_ends_of_the_partitions_that_are_named() {
    let lotic = Lotic::new();
    lotic.prints(&["topic", "create", "words", "--partitions", "3"]);
    lotic.reads(&["produce", "words", "-K", "="], "a=1\nb=2\nc=3\nd=4\ne=5\nf=6\n");
    let ends = lotic.json(&["topic", "describe", "words", "--json"]).remove(0);
    let end = |partition: usize| ends["partitions"][partition]["end"].as_i64().unwrap();
    let after = |arguments: &[&str]| -> Vec<(i64, i64)> {
        let arguments = [&["group", "reset", "g", "--json"], arguments].concat();
        let number = |object: &Value, field: &str| object[field].as_i64().unwrap();
        let objects = lotic.json(&arguments);
        objects.iter().map(|object| (number(object, "partition"), number(object, "after"))).collect()
    };
    assert_eq!(after(&["--topic", "words", "--to-latest"]), [(0, end(0)), (1, end(1)), (2, end(2))]);
    assert_eq!(after(&["--topic", "words:2,0", "--to-offset", "999"]), [(2, end(2)), (0, end(0))]);
    assert_eq!(after(&["--topic", "words:1", "--to-datetime", "1970-01-01T00:00:00Z"]), [(1, 0)]);
    assert_eq!(after(&["--topic", "words:1", "--to-datetime", "2999-01-01T00:00:00Z"]), [(1, end(1))]);
    assert_eq!(after(&["--topic", "words:1", "--to-latest", "--execute"]), [(1, end(1))]);
    assert_eq!(after(&["--all-topics", "--shift-by", "-1"]), [(1, end(1) - 1)]);
    lotic.prints(&["group", "delete-offsets", "g", "--topic", "words:1"]);
    let said = lotic.refuses(1, &["group", "describe", "g"], "");
    assert!(said.contains("there is no group g"), "{said}");
    for wrong in [
        &["group", "reset", "g", "--to-latest"][..],
        &["group", "reset", "g", "--all-topics"],
        &["group", "reset", "g", "--all-topics", "--to-latest", "--to-earliest"],
        &["group", "reset", "g", "--topic", "words:x", "--to-latest"],
        &["group", "reset", "g", "--all-topics", "--to-latest", "--dry-run", "--execute"],
    ] {
        lotic.refuses(2, wrong, "");
    }
}

#[test]
fn groups_are_shown_beside_the_program_that_has_the_log_open_and_not_changed() {
    let lotic = Lotic::with_topic("words", "one\ntwo\n");
    let log = Log::open(lotic.data(), LogOptions::disk().unwrap()).unwrap();
    let options = ConsumerOptions { group: Some("live".to_owned()), ..ConsumerOptions::default() };
    let mut consumer = Consumer::new(&log, options).unwrap();
    consumer.subscribe(&["words"]).unwrap();
    consumer.poll(|_, _| ControlFlow::Break(())).unwrap();
    consumer.commit().unwrap();
    let group = lotic.json(&["group", "describe", "live", "--json"]).remove(0);
    assert_eq!((&group["state"], &group["generation"]), (&json!("Stable"), &json!(1)));
    assert_eq!(group["members"][0]["partitions"], json!(["words-0"]));
    assert_eq!(group["partitions"][0]["member"], group["members"][0]["id"]);
    assert_eq!(group["partitions"][0]["lag"], json!(1));
    let reset = ["group", "reset", "live", "--all-topics", "--to-latest"];
    assert_eq!(lotic.prints(&reset), "words-0: 1 -> 2\n");
    let said = lotic.refuses(1, &[&reset[..], &["--execute"]].concat(), "");
    assert!(said.contains("words") || said.contains("lock") || said.contains("open"), "{said}");
    drop(consumer);
    log.close().unwrap();
}
