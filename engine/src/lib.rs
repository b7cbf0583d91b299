//! The running dataflow: workers, operators, state, epochs.
//!
//! This crate knows no user type (it is generic over [`codec::Codec`]) and no external system. RocksDB is
//! imported in one file.

pub mod aggregate;
mod align;
pub mod assembly;
mod bell;
pub mod channel;
pub mod checkpoint;
mod checkpointer;
pub mod codec;
mod conductor;
pub mod counters;
pub mod embedded;
pub mod engine;
pub mod epoch;
pub mod epoch_coordinator;
pub mod epoch_record;
pub mod epoch_writer;
pub mod error;
pub mod event_log;
pub mod frame;
pub mod graph;
pub mod key_group;
pub mod message;
pub mod metrics;
pub mod operator;
pub mod operators;
pub mod options;
pub mod plan;
pub mod processor;
mod seat;
pub mod sink;
mod skew;
pub mod source;
pub mod state;
mod task;
pub mod time;
mod topology;
pub mod window;
pub mod worker;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod memory_log;
#[cfg(test)]
mod test_flow;
