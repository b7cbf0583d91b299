//! The same answer, whatever a flow is run with.

use std::time::Duration;

use lotic_engine::options::EngineOptions;
use lotic_tests::simulator::answer::Answer;
use lotic_tests::simulator::life::{Life, live, tight_options};

/// The answer to the input of `seed`, with these options. [`live`] has compared it with a plain function of
/// the input.
fn answer(seed: u64, options: EngineOptions) -> Answer {
    let life = Life { batches_first: 120, actions: 0, options, ..Life::new(seed) };
    live(&life).unwrap_or_else(|promise| panic!("{promise}\n{life:?}")).answer
}

#[test]
fn the_answer_does_not_depend_on_workers_frames_or_epochs() {
    for seed in 0..3 {
        let expected = answer(seed, tight_options());
        assert!(!expected.late.is_empty() && !expected.totals.is_empty(), "the input has something of all");
        for workers in [1, 2, 4] {
            for frame_rows_max in [1, 4096] {
                for epoch_interval in [Duration::from_millis(1), Duration::from_secs(10)] {
                    let roomy =
                        EngineOptions { workers, frame_rows_max, epoch_interval, ..EngineOptions::default() };
                    let tight = EngineOptions { workers, frame_rows_max, epoch_interval, ..tight_options() };
                    assert_eq!(answer(seed, roomy.clone()), expected, "{roomy:?}");
                    assert_eq!(answer(seed, tight.clone()), expected, "{tight:?}");
                }
            }
        }
    }
}
