//! The same answer, whatever a flow is run with.

use std::time::Duration;

use lotic_engine::epoch::Epoch;
use lotic_engine::options::EngineOptions;
use lotic_tests::simulator::answer::Answer;
use lotic_tests::simulator::life::{Life, live, tight_options};

/// The answer to the input of `seed`, with these options, and how many epochs it took. [`live`] has compared
/// it with a plain function of the input.
fn answer(seed: u64, options: EngineOptions) -> (Answer, Epoch) {
    let life = Life { batches_first: 120, actions: 0, options, ..Life::new(seed) };
    let lived = live(&life).unwrap_or_else(|promise| panic!("{promise}\n{life:?}"));
    (lived.answer, lived.epochs)
}

#[test]
fn the_answer_does_not_depend_on_workers_frames_or_epochs() {
    for seed in 0..3 {
        let (expected, _) = answer(seed, tight_options());
        assert!(!expected.late.is_empty() && !expected.totals.is_empty(), "the input has something of all");
        for workers in [1, 2, 4] {
            for frame_rows_max in [1, 4096] {
                let [short, long] =
                    [Duration::from_millis(1), Duration::from_secs(10)].map(|epoch_interval| {
                        let roomy = EngineOptions {
                            workers,
                            frame_rows_max,
                            epoch_interval,
                            ..EngineOptions::default()
                        };
                        let tight =
                            EngineOptions { workers, frame_rows_max, epoch_interval, ..tight_options() };
                        let (found, epochs) = answer(seed, roomy.clone());
                        assert_eq!(found, expected, "{roomy:?}");
                        assert_eq!(answer(seed, tight.clone()).0, expected, "{tight:?}");
                        epochs
                    });
                assert!(short > long, "{short} epochs of a millisecond, {long} of ten seconds");
            }
        }
    }
}
