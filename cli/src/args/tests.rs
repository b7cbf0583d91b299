//! The help's examples are commands, settings are named alike wherever they are set, and what is wrong is
//! answered with what is possible.

use clap::{Command, CommandFactory, Parser};
use lotic_log::TopicConfig;

use super::{Arguments, TopicCommand};
use crate::time::show_duration;

/// All commands, with the names that lead to them.
fn commands(command: &Command, path: &str) -> Vec<(String, Command)> {
    let path = format!("{path} {}", command.get_name());
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    let found: Vec<_> = below.flat_map(|below| commands(below, &path)).collect();
    [vec![(path, command.clone())], found].concat()
}

/// Those that do something.
fn leaves() -> Vec<(String, Command)> {
    let all = commands(&Arguments::command(), "").into_iter();
    all.filter(|(_, command)| !command.has_subcommands()).collect()
}

/// The words of a `lotic` in a line of shell, up to what it is connected with.
fn words(line: &str) -> Option<Vec<&str>> {
    let from = line.find("lotic ")?;
    Some(line[from..].split_whitespace().take_while(|word| !["|", "<", ">"].contains(word)).collect())
}

#[test]
fn every_command_has_examples_each_of_which_is_a_command_and_says_its_exit_status() {
    let all = commands(&Arguments::command(), "");
    assert!(all.len() > 20, "{}", all.len());
    for (path, command) in all {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:"), "{path} has no examples");
        let own = &path.trim_start()["lotic".len()..];
        assert!(help.contains(&format!("lotic{own}")), "{path}: {help}");
        let (examples, status) = help.split_once("\n\n").unwrap_or_else(|| panic!("{path}: {help}"));
        assert!(status.starts_with("Exit status: 0 ") && status.contains("; 2 "), "{path}: {status}");
        for line in examples.lines().skip(1) {
            let words = words(line).unwrap_or_else(|| panic!("{path}: {line}"));
            let parsed = Arguments::try_parse_from(words);
            parsed.unwrap_or_else(|error| panic!("{path}: {line}: {error}"));
        }
    }
}

#[test]
fn a_topic_is_made_with_every_setting_that_it_can_be_altered_in() {
    let parse = |arguments: &[&str]| Arguments::try_parse_from([&["lotic", "topic"], arguments].concat());
    let values = [
        "cleanup=compact,delete",
        "retention-time=7d",
        "retention-bytes=none",
        "segment-bytes=1M",
        "batch-bytes-max=500",
        "timestamp-type=append",
        "segment-age=1h",
        "compression=zstd:9",
        "dirty-percent=20",
        "compaction-lag=1s",
        "compaction-lag-max=none",
        "delete-retention=12h",
    ];
    let lasting = ["durability=os", "durability=sync", "durability=1s", "index-interval-bytes=512"];
    for setting in values.into_iter().chain(lasting) {
        let (key, value) = setting.split_once('=').expect("a setting");
        let flag = format!("--{key}={value}");
        assert_eq!(parse(&["alter", "t", &flag]).is_ok(), !lasting.contains(&setting), "{setting}");
        let made = |arguments: &[&str]| {
            let made = parse(&[&["create", "t"], arguments].concat()).expect("a setting").command;
            let super::Command::Topic(TopicCommand::Create(options)) = made else { panic!("{made:?}") };
            options
        };
        let as_flag = format!("{:?}", made(&[&flag]).flags);
        assert!(as_flag.contains("Some"), "{setting}: {as_flag}");
        assert_eq!(format!("{:?}", made(&["--config", setting]).words[0]), as_flag, "{setting}");
    }
    let help = Arguments::command().find_subcommand("topic").and_then(|topic| {
        let alter = topic.find_subcommand("alter")?;
        Some(alter.get_arguments().filter(|flag| !flag.is_positional() && !flag.is_hide_set()).count())
    });
    // Beside these: partitions, json.
    assert_eq!(help, Some(values.len() + 2));
    for (wrong, said) in [
        ("retention-time", "KEY=VALUE"),
        ("retention=7d", "compaction-lag-max"),
        ("retention-time=7", "7"),
        ("json=true", "there is no setting json"),
        ("durability=fast", "`sync`, `os`"),
    ] {
        let error = parse(&["create", "t", "--config", wrong]).expect_err("no setting").to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn several_settings_are_given_at_once_and_those_that_stay_are_refused_to_be_altered() {
    let flags =
        ["--cleanup", "compact", "--retention-time", "1h", "--segment-bytes", "4000", "--partitions", "2"];
    for command in ["create", "alter"] {
        let words = [&["lotic", "topic", command, "t"], &flags[..]].concat();
        Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
    assert!(Arguments::try_parse_from(["lotic", "topic", "alter", "t"]).is_err(), "nothing is changed");
    for lasting in ["--durability=os", "--index-interval-bytes=1"] {
        let said =
            Arguments::try_parse_from(["lotic", "topic", "alter", "t", lasting]).expect_err("it stays");
        assert!(said.to_string().contains("it is chosen when a topic is made, and stays"), "{said}");
    }
}

#[test]
fn a_negative_number_is_answered_with_what_is_possible() {
    let mut checked = 0;
    for (path, command) in leaves() {
        for flag in command.get_opts() {
            let name = flag.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
            let numbers = ["N", "OFFSET", "BYTES", "PERCENT", "TIME", "sync|os|TIME"];
            if !name.is_some_and(|name| numbers.contains(&name)) {
                continue;
            }
            let long = format!("--{}", flag.get_long().expect("it has a name"));
            let words = path.split_whitespace().chain([long.as_str(), "-1"]);
            // Others that are required are missing: what is said is whichever of the two is seen first.
            let said =
                Arguments::try_parse_from(words).expect_err("something is missing or wrong").to_string();
            assert!(!said.contains("unexpected argument"), "{path} {long}: {said}");
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked}");

    let check = |words: &str, expected: &str| {
        let said = Arguments::try_parse_from(words.split(' ')).expect_err("it is negative").to_string();
        assert!(said.contains(expected), "{words}: {said}");
    };
    check("lotic consume t --partition 0 --offset -1", "an offset is a number from 0 on");
    check("lotic consume t --partition 0 --offset end", "--from-beginning and --from-end start at the ends");
    check("lotic consume t --partition -1", "a partition is a number from 0 on");
    check("lotic consume t --max-records -1", "a count is a number from 0 on");
    check("lotic delete-records t --partition 0 --before -1", "an offset is a number from 0 on, or `end`");
    check("lotic repair t --partition 0 --truncate-at -1", "an offset is a number from 0 on");
    check("lotic group reset g --all-topics --to-offset -1", "an offset is a number from 0 on");
    check("lotic topic alter t --retention-time -1", "or `none`");
    check("lotic topic alter t --retention-bytes -1", "a size is a number of bytes, or of KiB");
    check("lotic topic alter t --retention-bytes -1", "1G, or `none`");
    check("lotic topic alter t --segment-bytes -1", "a size is a number of bytes");
    check("lotic topic alter t --dirty-percent -1", "-1 is not in 0..=99");
    assert!(Arguments::try_parse_from(["lotic", "consume", "t", "--from-time", "-1"]).is_ok(), "in 1969");
}

#[test]
fn a_separator_of_nothing_is_refused_by_name() {
    for words in [["-K", ""], ["--key-separator", ""]] {
        let said = Arguments::try_parse_from([&["lotic", "produce", "t"], &words[..]].concat())
            .expect_err("nothing stands between key and value")
            .to_string();
        assert!(said.contains("'--key-separator <TEXT>': it is empty"), "{said}");
    }
}

#[test]
fn what_is_out_of_range_is_answered_with_the_range() {
    let check = |setting: &str, expected: &str| {
        let flag = format!("--{setting}");
        for words in [
            ["lotic", "topic", "alter", "t", &flag].as_slice(),
            &["lotic", "topic", "create", "t", &flag],
            &["lotic", "topic", "create", "t", "--config", setting],
        ] {
            let said = Arguments::try_parse_from(words).expect_err("it is too much").to_string();
            assert!(said.contains(expected), "{words:?}: {said}");
        }
    };
    check("dirty-percent=120", "120 is not in 0..=99");
    check("dirty-percent=300", "300 is not in 0..=99");
    check("compression=zstd:99", "zstd has no level 99: -131072 to 22 are possible");
    check("compression=gzip:12", "gzip has no level 12: 1 to 9 are possible");
    let produce = ["lotic", "produce", "t", "--compression", "gzip:12"];
    let said = Arguments::try_parse_from(produce).expect_err("there is none").to_string();
    assert!(said.contains("1 to 9"), "{said}");
}

#[test]
fn the_help_says_how_a_topic_is_made_of_which_nothing_is_said() {
    let command = Arguments::command();
    let create = command.find_subcommand("topic").and_then(|topic| topic.find_subcommand("create"));
    let help = create.and_then(Command::get_long_about).expect("it has one").to_string();
    let config = TopicConfig::default();
    let (gigabytes, megabytes) = (config.segment_bytes >> 30, config.batch_bytes_max >> 20);
    assert_eq!((config.segment_bytes, config.batch_bytes_max), (gigabytes << 30, megabytes << 20));
    assert_eq!((config.retention.time, config.retention.bytes), (None, None));
    for words in [
        "cleanup delete, records are kept for ever".to_owned(),
        format!("segments of {gigabytes} GiB or {}", show_duration(config.segment_age_max)),
        format!("batches of up to {megabytes} MiB"),
        format!("at more than {} percent", config.compaction.dirty_percent_min),
        format!("tombstones kept for {}", show_duration(config.compaction.delete_retention)),
    ] {
        assert!(help.replace('\n', " ").contains(&words), "{words}: {help}");
    }
}
