//! The log, beside a plain loop that moves the same bytes and beside Kafka's own tools.
//!
//! What is Lotic's or the plain loop's runs as a process of its own (`side`), so that its CPU time and its
//! peak of memory are its own, as Kafka's are.
//!
//! | module | asks |
//! |---|---|
//! | `throughput` | produce and consume: sizes, partitions, compression, durability |
//! | `transactions` | what transactions of 100 ms cost |
//! | `latency` | from `send` to a consumer that waits: percentiles |
//! | `compaction` | how fast old values go |
//! | `memory` | memory while 20 GB go through |
//! | `case`, `payload` | what is produced |
//! | `side`, `work`, `plain` | the process of one side, and what it does |

pub(crate) mod case;
mod compaction;
mod latency;
mod memory;
pub(crate) mod payload;
mod plain;
pub(crate) mod side;
mod throughput;
mod transactions;
mod work;

use std::path::Path;

use crate::Failure;
use crate::kafka::Kafka;

pub(crate) use compaction::run as run_compaction;
pub(crate) use latency::run as run_latency;
pub(crate) use memory::run as run_memory;
pub(crate) use throughput::{run, run_grid};
pub(crate) use transactions::run as run_transactions;

/// A broker, or `None` with a word on why: that Java is missing is no failure of ours.
fn broker(settings: &[&str]) -> Option<Kafka> {
    unless_missing(Kafka::start(settings))
}

/// The same, with its data in this folder.
pub(crate) fn broker_in(data: &Path, settings: &[&str]) -> Option<Kafka> {
    unless_missing(Kafka::start_in(Some(data), settings))
}

fn unless_missing(started: Result<Kafka, Failure>) -> Option<Kafka> {
    match started {
        Ok(kafka) => Some(kafka),
        Err(failure) => {
            println!("Kafka is left out (scripts/setup kafka brings what it needs): {failure}");
            None
        }
    }
}

/// A line of JSON that a side has printed.
fn parsed<T: serde::de::DeserializeOwned>(printed: &str) -> Result<T, Failure> {
    serde_json::from_str(printed.trim()).map_err(|error| format!("{error} in {printed:?}").into())
}
