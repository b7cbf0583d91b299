//! The same operations on Lotic and on a real Kafka. `differential --seed S --scripts N` does others.

use std::io::Write;

use lotic_tests::differential::Comparison;
use lotic_tests::failure::Result;
use lotic_tests::kafka::Kafka;

#[test]
fn the_same_scripts_come_to_the_same_on_lotic_and_on_kafka() -> Result<()> {
    let Some(kafka) = Kafka::find("the_same_scripts_come_to_the_same_on_lotic_and_on_kafka")? else {
        return Ok(());
    };
    let mut told = Vec::new();
    let comparison = Comparison {
        scripts: 450,
        compacting: 60,
        overdue: 6,
        retaining: 12,
        sizing: 24,
        restarting: 30,
        forgetting: 24,
        seed: 1,
    };
    let outcome = comparison.run(&kafka, &mut told);
    // Past what the test harness keeps to itself: the seeds are told of scripts that agree too.
    std::io::stderr().write_all(&told)?;
    outcome
}
