//! What the programs refuse: the message names the thing, and the directory is as it was, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lotic_log::{Log, LogOptions, Offset, TopicConfig};
use lotic_tests::files::Files;
use lotic_tests::flights::{Csvs, DELAYS_BY_AIRLINE, Input, RESULTS, Run};
use lotic_tests::process::{Ended, Process};
use lotic_tests::programs::program;
use lotic_tests::stored::{StoredTopic, ends};
use tempfile::TempDir;

/// A folder with an input, over which the example has not been run yet.
struct Scene {
    folder: TempDir,
    run: Run,
}

impl Scene {
    fn new() -> Self {
        Self::of_rows(2_000)
    }

    fn of_rows(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = Input::generated(rows, 5, folder.path()).unwrap();
        let run = Run { epoch: "5ms".to_owned(), ..Run::new(&input, folder.path()) };
        Self { folder, run }
    }

    /// One over which it has been run to the end.
    fn finished() -> Self {
        let scene = Self::new();
        scene.run.finish().unwrap();
        scene
    }

    /// The flights with line `number` (the header is line 1) replaced, under another name.
    fn flights_with_line(&self, number: usize, change: impl Fn(&str) -> String) -> PathBuf {
        let text = fs::read_to_string(&self.run.input.flights).unwrap();
        let changed = text.lines().enumerate().map(|(index, line)| {
            if index + 1 == number { change(line) + "\n" } else { line.to_owned() + "\n" }
        });
        let path = self.folder.path().join("changed.csv");
        fs::write(&path, changed.collect::<String>()).unwrap();
        path
    }

    fn with_flights(&self, flights: &Path) -> Run {
        let input = Input { flights: flights.to_owned(), ..self.run.input.clone() };
        Run { input, ..self.run.clone() }
    }

    fn lotic(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(program("lotic").unwrap());
        command.args(arguments).arg("--data").arg(&self.run.data);
        Process::start(&mut command).unwrap().end().unwrap()
    }

    /// Refused, saying all of `words`, and nothing below the folder is changed.
    #[track_caller]
    fn check_refused(&self, run: &Run, words: &[&str]) {
        let before = Files::below(self.folder.path()).unwrap();
        let ended = run.end().unwrap();
        check_says(&ended, words);
        Files::below(self.folder.path()).unwrap().check_unchanged_since(&before).unwrap();
    }

    /// As if the process had been killed: nobody has marked that all is well.
    fn forget_clean_shutdown(&self) {
        fs::remove_file(self.run.data.join("clean-shutdown")).expect("the run before ended well");
    }

    /// The segments of a topic's partitions, by their bytes.
    fn files_of(&self, topic: &str) -> Files {
        let is_own = |path: &Path| {
            let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let partition = folder.and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'));
            partition.is_some_and(|partition| partition.parse::<u32>().is_ok())
                && path.extension().is_some_and(|name| name == "log")
        };
        Files::below(&self.run.data).unwrap().only(is_own)
    }
}

#[track_caller]
fn check_says(ended: &Ended, words: &[&str]) {
    let said = &ended.stderr;
    assert_eq!(ended.status.code(), Some(1), "a refusal exits with 1; it said:\n{said}");
    for word in words {
        assert!(said.contains(word), "the message has to name {word}; it said:\n{said}");
    }
}

/// `line` with the field of column 6, `dep_delay`, replaced.
fn with_bad_delay(line: &str) -> String {
    let mut fields: Vec<_> = line.split(',').collect();
    fields[5] = "soon";
    fields.join(",")
}

#[test]
fn a_malformed_row_is_refused_by_file_line_and_column() {
    let scene = Scene::new();
    let flights = scene.flights_with_line(700, with_bad_delay);
    let run = scene.with_flights(&flights);
    scene.check_refused(&run, &["changed.csv", "line 700", "dep_delay", "soon"]);
    assert!(!run.data.exists(), "a refused run makes no directory");
}

#[test]
fn a_malformed_row_after_a_good_run_is_refused_and_what_was_there_stays() {
    let scene = Scene::finished();
    let flights = scene.flights_with_line(2_001, with_bad_delay);
    scene.check_refused(&scene.with_flights(&flights), &["changed.csv", "line 2001", "dep_delay"]);
}

#[test]
fn a_malformed_row_may_be_skipped_and_is_counted_once_however_often_the_program_runs() {
    let scene = Scene::new();
    let bad = scene.flights_with_line(700, with_bad_delay);
    let run = Run { more: vec!["--bad-rows".into(), "skip".into()], ..scene.with_flights(&bad) };
    for _ in 0..2 {
        let ended = run.end().unwrap();
        ended.check_success("flights").unwrap();
        assert!(
            ended.stdout.contains("skipped in flights-file: 1 row\n"),
            "{}{}",
            ended.stdout,
            ended.stderr
        );
    }
    check_answer_without_line(&scene, &run, 700);
}

#[test]
fn a_malformed_row_may_go_to_a_dead_letter_topic() {
    let scene = Scene::new();
    let bad = scene.flights_with_line(700, with_bad_delay);
    let run = Run { more: vec!["--bad-rows".into(), "dead-letter".into()], ..scene.with_flights(&bad) };
    run.finish().unwrap();
    let row = fs::read_to_string(&bad).unwrap().lines().nth(699).expect("it has 2,001 lines").to_owned();
    let rejected = StoredTopic::read(&run.data, "rejected-rows").unwrap();
    let kept: Vec<_> = rejected.records().map(|record| record.value.clone().unwrap_or_default()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(String::from_utf8_lossy(&kept[0]).trim_end(), row);
    check_answer_without_line(&scene, &run, 700);
}

#[track_caller]
fn check_answer_without_line(scene: &Scene, run: &Run, number: usize) {
    let text = fs::read_to_string(&scene.run.input.flights).unwrap();
    let kept = text.lines().enumerate().filter(|(index, _)| index + 1 != number);
    let input = Input { flights: scene.folder.path().join("kept.csv"), ..run.input.clone() };
    fs::write(&input.flights, kept.map(|(_, line)| line.to_owned() + "\n").collect::<String>()).unwrap();
    let expected = Csvs::of_oracle(&[&input], &run.disorder).unwrap();
    Csvs::read(&run.out).unwrap().check_equal(&expected, "DuckDB").unwrap();
}

#[test]
fn a_missing_column_is_refused_by_name() {
    let scene = Scene::new();
    let flights = scene.flights_with_line(1, |header| header.replace("dep_delay", "delay"));
    scene.check_refused(&scene.with_flights(&flights), &["changed.csv", "dep_delay", "missing"]);
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let scene = Scene::new();
    scene.check_refused(&scene.with_flights(Path::new("/nowhere/flights.csv")), &["/nowhere/flights.csv"]);
}

#[test]
fn a_file_with_another_beginning_is_refused_naming_both() {
    let scene = Scene::finished();
    let text = fs::read_to_string(&scene.run.input.flights).unwrap();
    fs::write(&scene.run.input.flights, text.replacen("2013,1,1", "2013,1,2", 1)).unwrap();
    // The source once, then the file.
    let file = scene.run.input.flights.display();
    let said = format!("flights: source flights-file: {file} is not the file that was read before");
    scene.check_refused(&scene.run, &[&said, "Only a file that has grown is read on"]);
}

#[test]
fn another_disorder_over_data_that_was_processed_is_refused_naming_both() {
    let scene = Scene::finished();
    for (disorder, milliseconds) in [("31h", "111600000 ms"), ("6h", "21600000 ms")] {
        let run = Run { disorder: disorder.to_owned(), ..scene.run.clone() };
        scene.check_refused(
            &run,
            &["source topic:flights", "108000000 ms", milliseconds, "in another directory"],
        );
    }
    scene.run.finish().unwrap();
}

#[test]
fn a_topic_with_another_partition_count_is_refused() {
    let scene = Scene::new();
    scene.lotic(&["topic", "create", "flights", "--partitions", "4"]).check_success("lotic").unwrap();
    scene.check_refused(&scene.run, &["topic flights", "4 partitions", "declares 6"]);
}

#[test]
fn a_result_topic_with_another_partition_count_is_refused_before_anything_is_read() {
    let scene = Scene::new();
    scene.lotic(&["topic", "create", DELAYS_BY_AIRLINE, "--partitions", "3"]).check_success("lotic").unwrap();
    scene.check_refused(&scene.run, &[DELAYS_BY_AIRLINE, "3 partitions", "declares 1"]);
}

#[test]
fn a_topic_with_other_keys_is_refused() {
    let scene = Scene::new();
    let log = Log::open(&scene.run.data, LogOptions::disk().unwrap()).unwrap();
    let config =
        TopicConfig { partitions: 3, key_format: Some("postcard/1".to_owned()), ..TopicConfig::default() };
    log.create_topic("weather", config).unwrap();
    log.close().unwrap();
    drop(log);
    scene.check_refused(&scene.run, &["topic weather", "keys", "postcard/1"]);
}

#[test]
fn a_topic_deleted_and_made_again_is_refused() {
    for (topic, partitions) in [("flights", "6"), ("airlines", "1"), (DELAYS_BY_AIRLINE, "1")] {
        let scene = Scene::finished();
        scene.lotic(&["topic", "delete", topic]).check_success("lotic").unwrap();
        scene.lotic(&["topic", "create", topic, "--partitions", partitions]).check_success("lotic").unwrap();
        scene.check_refused(&scene.run, &[topic, "deleted and made again"]);
    }
}

#[test]
fn a_topic_deleted_is_refused() {
    let scene = Scene::finished();
    scene.lotic(&["topic", "delete", "flights"]).check_success("lotic").unwrap();
    scene.check_refused(&scene.run, &["flights", "deleted"]);
}

/// A batch in a file of a log: by Kafka's layout, base offset (8 bytes) and length behind it (4 bytes).
struct BatchPlace {
    position: usize,
    offset: Offset,
    bytes: usize,
}

fn batches(log: &[u8]) -> Vec<BatchPlace> {
    let mut places = Vec::new();
    let mut position = 0;
    while let Some(prefix) = log.get(position..position + 12) {
        let offset = i64::from_be_bytes(prefix[..8].try_into().expect("eight bytes"));
        let length = i32::from_be_bytes(prefix[8..].try_into().expect("four bytes"));
        let bytes = 12 + usize::try_from(length).expect("a length");
        places.push(BatchPlace { position, offset: Offset(offset), bytes });
        position += bytes;
    }
    places
}

/// Turns one bit of the largest batch of the partition's last segment, the first of several, and back if
/// called again. Returns the batch's offset.
fn damage(data: &Path, partition: &str) -> Offset {
    let files = fs::read_dir(data.join(partition)).unwrap().map(|entry| entry.unwrap().path());
    let path =
        files.filter(|path| path.extension().is_some_and(|name| name == "log")).max().expect("a segment");
    let mut bytes = fs::read(&path).unwrap();
    let batch = batches(&bytes).into_iter().rev().max_by_key(|batch| batch.bytes).expect("it holds batches");
    bytes[batch.position + batch.bytes - 3] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    batch.offset
}

#[test]
fn a_corrupted_batch_is_found_by_whoever_reads_it_and_by_verify() {
    let scene = Scene::finished();
    let offset = damage(&scene.run.data, "delays-by-airline-0").to_string();
    scene.check_refused(&scene.run, &["delays-by-airline", "partition 0", &offset]);

    let before = Files::below(scene.folder.path()).unwrap();
    let verified = scene.lotic(&["verify"]);
    assert_eq!(verified.status.code(), Some(1), "{}{}", verified.stdout, verified.stderr);
    let told = verified.stdout + &verified.stderr;
    assert!(told.contains("delays-by-airline") && told.contains(&offset), "{told}");
    assert!(told.contains("1 damaged"), "{told}");
    Files::below(scene.folder.path()).unwrap().check_unchanged_since(&before).unwrap();
}

/// A scene in which the import has run and the results have not, and how it goes on. Epochs are not committed
/// by time, and each partition of flights has several batches.
fn imported() -> (Scene, Run) {
    let scene = Scene::of_rows(10_000);
    let run = Run { epoch: "1h".to_owned(), ..scene.run.clone() };
    // A file is in the way of the state, which the import has none of.
    let in_the_way = run.data.join("state");
    fs::create_dir_all(&run.data).unwrap();
    fs::write(&in_the_way, "").unwrap();
    check_says(&run.end().unwrap(), &["state/delays", "cannot be made"]);
    fs::remove_file(&in_the_way).unwrap();
    (scene, run)
}

#[track_caller]
fn check_goes_on(run: &Run) {
    let expected = Csvs::of_oracle(&[&run.input], &run.disorder).unwrap();
    run.finish().unwrap().check_equal(&expected, "DuckDB").unwrap();
}

/// After a crash the log is read from the last snapshot of each partition on, or from its beginning.
#[test]
fn a_corrupted_batch_below_the_recovery_point_is_refused_after_a_crash() {
    let (scene, run) = imported();
    let offset = damage(&run.data, "flights-0");
    remove_snapshots(&run.data.join("flights-0"));
    scene.forget_clean_shutdown();
    let before = Files::below(scene.folder.path()).unwrap();
    for _ in 0..2 {
        check_says(&run.end().unwrap(), &["topic flights", "partition 0", &format!("offset {offset}")]);
        // Partitions that are whole may have got their indexes and snapshots by now.
        Files::below(scene.folder.path()).unwrap().check_kept_since(&before).unwrap();
        assert!(!scene.run.data.join("state").exists(), "no flow has begun");
    }
    damage(&run.data, "flights-0");
    check_goes_on(&run);
}

/// As where the process died before it took one.
fn remove_snapshots(partition: &Path) {
    for entry in fs::read_dir(partition).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|name| name == "snapshot") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A log that was closed well is not read through when it is opened. So the flow has begun by the time that
/// the batch is read, and what was read before it may have been committed. What is promised is this: nothing
/// is lost or taken for an end, nothing is concluded from what is missing, and once the batch is whole again
/// the run goes on as if nothing had been.
#[test]
fn a_corrupted_batch_that_a_flow_comes_upon_is_refused_and_nothing_is_lost() {
    let (scene, run) = imported();
    let sources = || ["flights", "weather", "airlines"].map(|topic| scene.files_of(topic));
    for _ in 0..2 {
        let offset = damage(&run.data, "flights-0");
        let before = sources();
        check_says(&run.end().unwrap(), &["flights-0", &format!("offset {offset}")]);
        for (now, before) in sources().iter().zip(&before) {
            now.check_unchanged_since(before).unwrap();
        }
        assert_eq!(damage(&run.data, "flights-0"), offset, "it is whole again");
        for result in RESULTS {
            let results = StoredTopic::read(&run.data, result).unwrap();
            assert_eq!(results.records().count(), 0, "{result}");
        }
    }
    check_goes_on(&run);
}

#[test]
fn a_run_with_nothing_to_do_leaves_everything_as_it_was() {
    let scene = Scene::finished();
    let before = Files::below(scene.folder.path()).unwrap();
    scene.run.finish().unwrap();
    Files::below(scene.folder.path()).unwrap().check_unchanged_since(&before).unwrap();
}

#[test]
fn verify_finds_nothing_wrong_with_what_is_right() {
    let scene = Scene::finished();
    let before = Files::below(scene.folder.path()).unwrap();
    let verified = scene.lotic(&["verify"]);
    verified.check_success("lotic verify").unwrap();
    assert!(verified.stdout.contains("sound"), "{}", verified.stdout);
    Files::below(scene.folder.path()).unwrap().check_unchanged_since(&before).unwrap();
}

/// The checkpoints of the flow of results, the newest first.
fn checkpoints(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("checkpoints/delays")).unwrap();
    let mut found: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn a_checkpoint_with_a_wrong_checksum_is_passed_over_for_the_one_before_and_that_is_said() {
    let scene = Scene::new();
    let run = &scene.run;
    let whole = fs::read_to_string(&run.input.flights).unwrap();
    let half: String = whole.lines().take(1_000).map(|line| line.to_owned() + "\n").collect();
    for flights in [half, whole] {
        fs::write(&run.input.flights, flights).unwrap();
        run.finish().unwrap();
    }
    let expected = Csvs::read(&run.out).unwrap();
    let checkpoints = checkpoints(&run.data);
    assert_eq!(checkpoints.len(), 2, "each run has taken one at its end: {checkpoints:?}");
    let appended = ends(&run.data).unwrap();

    let manifest = checkpoints[0].join("manifest");
    let mut bytes = fs::read(&manifest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&manifest, bytes).unwrap();
    fs::remove_dir_all(run.data.join("state/delays")).unwrap();

    let ended = run.end().unwrap();
    ended.check_success("flights").unwrap();
    let newest = checkpoints[0].file_name().and_then(|name| name.to_str()).expect("a number");
    let names = format!("checkpoint {newest}");
    assert!(ended.stderr.contains(&names) && ended.stderr.contains("checksum"), "{}", ended.stderr);
    Csvs::read(&run.out).unwrap().check_equal(&expected, "the run before").unwrap();
    assert_eq!(ends(&run.data).unwrap(), appended);
}
