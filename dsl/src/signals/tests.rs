//! Each test runs itself again as a program of its own, which sends itself the signal where it hurts.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, exit};

use lotic_log::PartitionId;
use lotic_log::batch::{BatchBuilder, Compression};
use signal_hook::low_level::raise;

use super::*;
use crate::TopicConfig;
use crate::prelude::*;

/// Where a program of these tests finds its directory, and that it is one.
const DIRECTORY: &str = "LOTIC_SIGNALS_DIRECTORY";
/// How a program ends that found otherwise than it should.
const WRONG: i32 = 3;

/// Runs the test `name` again in a process of its own, where it is `program`.
fn run_as_program(name: &str, program: fn(&Path), check: fn(ExitStatus, &Path)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        program(Path::new(&directory));
        exit(WRONG);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("signals::tests::{name}")]).env(DIRECTORY, folder.path());
    let output = command.output().unwrap();
    check(output.status, folder.path());
}

fn number(processor: &Processor) {
    // What is appended can be read at once.
    let config = TopicConfig { durability: Some(Durability::Os), ..TopicConfig::default() };
    let topic = processor.log().create_topic("numbers", config).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(Timestamp(0), None, Some(b"5"), &[]).unwrap();
    topic.partition(PartitionId(0)).unwrap().append(batch.seal()).unwrap();
}

fn copy(name: &str, from: &str, to: &str) -> Flow {
    let mut flow = Flow::new(name);
    flow.topic::<i64>(from).record_time(Lateness::none()).to(to);
    flow
}

/// How many records of a topic are committed; `None` if there is no such topic.
fn committed(directory: &Path, topic: &str) -> Option<i64> {
    let processor = Processor::open(directory).unwrap();
    let topic = processor.log().topic(topic).ok()?;
    Some(topic.partition(PartitionId(0)).unwrap().offsets().stable.0)
}

fn ended_well(status: ExitStatus, _: &Path) {
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_signal_between_two_flows_keeps_the_second_from_being_begun() {
    let program = |directory: &Path| {
        let processor = Processor::open(directory).unwrap();
        number(&processor);
        assert_eq!(processor.run_to_end(copy("first", "numbers", "imported")).unwrap(), Ending::InputUsedUp);
        raise(SIGTERM).unwrap();
        assert!(processor.has_been_told_to_end());
        assert_eq!(processor.run_to_end(copy("second", "imported", "results")).unwrap(), Ending::Stopped);
        processor.run(copy("third", "imported", "more-results")).unwrap();
        exit(0);
    };
    let name = "a_signal_between_two_flows_keeps_the_second_from_being_begun";
    run_as_program(name, program, |status, directory| {
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(committed(directory, "imported").is_some_and(|end| end > 0), "the first one's is committed");
        assert_eq!(committed(directory, "results"), None);
        assert_eq!(committed(directory, "more-results"), None);
    });
}

#[test]
fn a_signal_ends_a_flow_that_runs_and_what_it_read_is_committed() {
    let program = |directory: &Path| {
        let processor = Processor::open(directory).unwrap();
        number(&processor);
        let mut flow = Flow::new("endless");
        let numbers = flow.topic::<i64>("numbers").record_time(Lateness::none());
        numbers.inspect(|_| raise(SIGINT).unwrap()).to("results");
        processor.run(flow).unwrap();
        exit(0);
    };
    let name = "a_signal_ends_a_flow_that_runs_and_what_it_read_is_committed";
    run_as_program(name, program, ended_well);
}

#[test]
fn a_signal_ends_a_flow_that_somebody_only_waits_for() {
    let program = |directory: &Path| {
        let running = {
            let processor = Processor::open(directory).unwrap();
            number(&processor);
            processor.start(copy("endless", "numbers", "results"), Until::Stopped).unwrap()
        };
        raise(SIGTERM).unwrap();
        assert!(running.wait_for(Duration::from_secs(60)), "it has ended");
        running.wait().unwrap();
        exit(0);
    };
    let name = "a_signal_ends_a_flow_that_somebody_only_waits_for";
    run_as_program(name, program, ended_well);
}

#[test]
fn a_signal_ends_a_program_whose_processor_is_gone() {
    let program = |directory: &Path| {
        let processor = Processor::open(directory).unwrap();
        number(&processor);
        assert_eq!(processor.run_to_end(copy("first", "numbers", "imported")).unwrap(), Ending::InputUsedUp);
        drop(processor);
        raise(SIGTERM).unwrap();
    };
    run_as_program("a_signal_ends_a_program_whose_processor_is_gone", program, |status, directory| {
        assert_eq!(status.signal(), Some(SIGTERM), "{status}");
        assert!(committed(directory, "imported").is_some_and(|end| end > 0));
    });
}
