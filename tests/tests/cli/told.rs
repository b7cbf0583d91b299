//! What a command says of what it has done, and how it refuses what is wrong.

use std::fs;

use lotic_tests::files::Files;
use serde_json::{Value, json};

use super::{Lotic, segment};

#[test]
fn what_a_command_has_changed_is_told_as_json_if_that_is_asked_for() {
    let lotic = Lotic::new();
    let create = ["topic", "create", "words", "--retention-time", "1h", "--durability", "os", "--json"];
    let made = lotic.json(&create).remove(0);
    assert_eq!((&made["name"], &made["partitions"]), (&json!("words"), &json!(1)));
    assert_eq!((&made["retention_ms"], &made["durability"]), (&json!(3_600_000), &json!("os")));

    let produce = ["produce", "words", "--report", "json"];
    for first in [0, 3] {
        let ended = lotic.run(&produce, "one\ntwo\nthree\n");
        ended.check_success("produce").unwrap();
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let extent = json!({ "partition": 0, "records": 3, "first_offset": first, "last_offset": first + 2 });
        assert_eq!(report, json!({ "topic": "words", "records": 3, "partitions": [extent] }));
        assert_eq!(ended.stderr, "");
    }

    lotic.prints(&["consume", "words", "--group", "readers", "-n", "4"]);
    let forgotten = lotic.json(&["group", "delete-offsets", "readers", "--topic", "words", "--json"]);
    assert_eq!(forgotten, [json!({ "group": "readers", "topic": "words", "partition": 0, "committed": 4 })]);
    lotic.prints(&["consume", "words", "--group", "readers", "-n", "4"]);
    assert_eq!(lotic.json(&["group", "delete", "readers", "--json"]), [json!({ "group": "readers" })]);

    lotic.prints(&["topic", "create", "prices", "--cleanup", "compact", "--segment-bytes", "1M"]);
    lotic.reads(&["produce", "prices", "-K", "="], "a=1\na=2\n");
    let compacted = lotic.json(&["compact", "prices", "--json"]).remove(0);
    assert_eq!((&compacted["topic"], &compacted["partition"]), (&json!("prices"), &json!(0)));
    assert_eq!(lotic.json(&["topic", "describe", "prices", "--json"])[0]["segment_bytes"], 1 << 20);

    let gone = json!({ "name": "words", "id": made["id"], "partitions": 1, "cleanup": "delete" });
    assert_eq!(lotic.json(&["topic", "delete", "words", "--json"]), [gone]);
}

#[test]
fn a_topic_that_cannot_be_leaves_no_folder() {
    let lotic = Lotic::new();
    for setting in ["--partitions=-1", "--index-interval-bytes=0"] {
        let said = lotic.refuses(1, &["topic", "create", "words", setting], "");
        assert!(said.contains("topic words: ") && said.contains('1'), "{said}");
        assert!(!lotic.data().exists(), "{setting}");
    }
}

#[test]
fn what_the_log_keeps_for_itself_can_be_read_and_not_changed() {
    const OFFSETS: &str = "__consumer_offsets";
    let lotic = Lotic::new();
    for topic in [OFFSETS, "__transaction_state"] {
        let said = lotic.refuses(1, &["topic", "create", topic, "--partitions", "3"], "");
        assert!(said.contains(&format!("topic {topic} holds ")), "{said}");
        assert!(!lotic.data().exists(), "{topic}");
    }
    let lotic = Lotic::with_topic("words", "one\ntwo\n");
    lotic.prints(&["consume", "words", "--group", "readers", "-n", "1"]);
    let before = Files::below(&lotic.data()).unwrap();
    let commands: [(&[&str], &str); 6] = [
        (&["topic", "create", OFFSETS], ""),
        (&["topic", "delete", OFFSETS], ""),
        (&["produce", OFFSETS], "k\n"),
        // Nobody is let type the first line in vain.
        (&["produce", OFFSETS], ""),
        (&["delete-records", OFFSETS, "--partition", "0", "--before", "end"], ""),
        (&["delete-records", OFFSETS, "--partition", "0", "--before", "1"], ""),
    ];
    for (arguments, input) in commands {
        let said = lotic.refuses(1, arguments, input);
        let expected = format!("lotic: topic {OFFSETS} holds what consumer groups have committed");
        assert!(said.starts_with(&expected), "{arguments:?}: {said}");
    }
    Files::below(&lotic.data()).unwrap().check_unchanged_since(&before).unwrap();
    assert_ne!(lotic.prints(&["consume", OFFSETS]), "");
    assert_eq!(lotic.prints(&["consume", "words", "--group", "readers"]), "two\n");
}

#[test]
fn messages_that_go_to_no_terminal_have_no_colours() {
    let lotic = Lotic::with_topic("words", "one\n");
    fs::create_dir(lotic.data().join("more-0")).unwrap();
    let ended = lotic.run(&["topic", "create", "more", "--verbose"], "");
    ended.check_success("topic create").unwrap();
    assert!(ended.stderr.contains("a directory of no topic was in the way"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "{:?}", ended.stderr);
}

#[test]
fn a_line_of_json_that_is_none_is_named_with_its_column() {
    let lotic = Lotic::with_topic("words", "one\n");
    let said = lotic.refuses(1, &["produce", "words", "--json"], "{}\n{}\nx\n");
    assert_eq!(said, "lotic: line 3: expected value at column 1\n");
}

#[test]
fn a_date_is_a_time_to_start_at() {
    let lotic = Lotic::with_topic("words", "one\n");
    assert_eq!(lotic.prints(&["consume", "words", "--from-time", "2013-01-01"]), "one\n");
    assert_eq!(lotic.prints(&["consume", "words", "--from-time", "2200-01-01"]), "");
}

/// Its segments are as a broker's: what tells the two directories apart is the catalogue.
#[test]
fn an_import_takes_no_file_and_no_log_of_lotic_for_a_brokers_directory() {
    let theirs = Lotic::with_topic("words", "one\n");
    let lotic = Lotic::new();
    let refuses = |path: &std::path::Path, expected: &str| {
        let said = lotic.refuses(1, &["import", "kafka-dir", path.to_str().unwrap()], "");
        assert!(said.contains(expected), "{said}");
        assert!(!lotic.data().join("catalogue").exists(), "no log was begun");
    };
    refuses(&theirs.data(), "is a directory of Lotic, not of a Kafka broker: it has a catalogue");
    refuses(&segment(&theirs.data()), ".log is not a directory");
    refuses(&theirs.data().join("nothing"), "nothing: No such file or directory");
    // Called like a partition's directory, as in `/etc`.
    let other = theirs.folder.path().join("etc");
    fs::create_dir_all(other.join("dbus-1")).unwrap();
    refuses(
        &other,
        "etc is no data directory of a Kafka broker: it has no meta.properties, and no directory in it a",
    );
}

#[test]
fn an_import_warns_of_a_topic_whose_settings_it_has_not_found() {
    let theirs = Lotic::with_topic("words", "one\n");
    fs::remove_file(theirs.data().join("catalogue")).unwrap();
    let lotic = Lotic::new();
    let folder = theirs.data();
    let import = ["import", "kafka-dir", folder.to_str().unwrap(), "--json"];
    let ended = lotic.run(&import, "");
    ended.check_success("import").unwrap();
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&told["has_settings"], &told["cleanup"]), (&json!(false), &json!("delete")));
    let warning = format!("settings of words not found: no __cluster_metadata in {}", folder.display());
    assert!(ended.stderr.contains(&warning) && ended.stderr.contains("cleanup delete"), "{}", ended.stderr);
    assert_eq!(lotic.prints(&["consume", "words"]), "one\n");
    let again = lotic.run(&import, "");
    assert_eq!(again.stderr, "", "it is there: nothing was chosen for it");
}

#[test]
fn damage_leaves_the_rest_to_be_read_unless_it_is_at_the_end_of_a_partition() {
    let lotic = Lotic::new();
    let create = ["topic", "create", "words", "--partitions", "2"];
    // Opening reads what lies behind the last entry of an index.
    let small = ["--segment-bytes", "250", "--index-interval-bytes", "1"];
    lotic.prints(&[&create[..], &small[..]].concat());
    for line in ["a", "b", "c", "d", "e"] {
        let record = |partition| json!({ "value": line, "partition": partition });
        lotic.reads(&["produce", "words", "--json"], &format!("{}\n{}\n", record(0), record(1)));
    }
    // Three batches and two, all of the same size.
    let damage = |base: i64, index: usize, batches: usize| {
        let path = segment(&lotic.data()).with_file_name(format!("{base:020}.log"));
        let mut bytes = fs::read(&path).unwrap();
        let size = bytes.len() / batches;
        bytes[index * size + 64] ^= 1;
        fs::write(&path, &bytes).unwrap();
    };
    let refuses = |arguments: &[&str], offset: i64| {
        let ended = lotic.run(arguments, "");
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
        let named = format!("words, partition 0, offset {offset}");
        assert!(ended.stderr.contains(&named), "{}", ended.stderr);
    };
    let other = ["consume", "words", "--partition", "1"];
    damage(0, 1, 3);
    refuses(&["consume", "words"], 1);
    assert_eq!(lotic.prints(&other), "a\nb\nc\nd\ne\n");
    assert_eq!(lotic.prints(&["consume", "words", "--partition", "0", "--offset", "2"]), "c\nd\ne\n");
    damage(3, 1, 2);
    refuses(&other, 4);
}

#[test]
fn what_is_missing_is_answered_with_the_nearest_there_is_also_where_nothing_is_opened() {
    let lotic = Lotic::with_topic("flights", "one\n");
    let commands: [&[&str]; 4] = [
        &["verify", "flihgts"],
        &["repair", "flihgts", "--partition", "0", "--truncate-at", "0"],
        &["compact", "flihgts"],
        &["topic", "alter", "flihgts", "--retention-time", "1h"],
    ];
    for arguments in commands {
        let said = lotic.refuses(1, arguments, "");
        assert!(said.contains("there is no topic flihgts; did you mean flights?"), "{arguments:?}: {said}");
    }
}
