//! The help's examples are commands, and settings are named alike wherever they are set.

use clap::{Command, CommandFactory, Parser};

use super::{Arguments, TopicCommand};

/// All commands that do something, with the names that lead to them.
fn leaves(command: &Command, path: &str) -> Vec<(String, Command)> {
    let path = format!("{path} {}", command.get_name());
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    let found: Vec<_> = below.flat_map(|below| leaves(below, &path)).collect();
    if found.is_empty() { vec![(path, command.clone())] } else { found }
}

/// The words of a `lotic` in a line of shell, up to what it is connected with.
fn words(line: &str) -> Option<Vec<&str>> {
    let from = line.find("lotic ")?;
    Some(line[from..].split_whitespace().take_while(|word| !["|", "<", ">"].contains(word)).collect())
}

#[test]
fn every_command_has_examples_and_each_of_them_is_a_command() {
    let all = leaves(&Arguments::command(), "");
    assert!(all.len() > 15, "{}", all.len());
    for (path, command) in all {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:"), "{path} has no examples");
        let own = &path.trim_start()["lotic".len()..];
        assert!(help.contains(&format!("lotic{own}")), "{path}: {help}");
        for line in help.lines().skip(1) {
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
        "segment-bytes=1000",
        "batch-bytes-max=500",
        "timestamp-type=append",
        "segment-age=1h",
        "compression=zstd:9",
        "dirty-percent=20",
        "compaction-lag=1s",
        "compaction-lag-max=none",
        "delete-retention=12h",
    ];
    for setting in values {
        let (key, value) = setting.split_once('=').expect("a setting");
        let flag = format!("--{key}={value}");
        assert!(parse(&["alter", "t", &flag]).is_ok(), "{setting}");
        let made = parse(&["create", "t", "--config", setting]).expect("a setting").command;
        let super::Command::Topic(TopicCommand::Create(options)) = made else { panic!("{made:?}") };
        assert!(format!("{:?}", options.settings).contains("Some"), "{setting}: {:?}", options.settings);
    }
    let help = Arguments::command().find_subcommand("topic").and_then(|topic| {
        let alter = topic.find_subcommand("alter")?;
        Some(alter.get_arguments().filter(|flag| !flag.is_positional()).count())
    });
    // Beside these: partitions, json.
    assert_eq!(help, Some(values.len() + 2));
    for (wrong, said) in [
        ("retention-time", "KEY=VALUE"),
        ("retention=7d", "compaction-lag-max"),
        ("retention-time=7", "7"),
        ("json=true", "there is no setting json"),
    ] {
        let error = parse(&["create", "t", "--config", wrong]).expect_err("no setting").to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}
