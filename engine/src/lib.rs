//! The running dataflow: workers, operators, state, epochs.
//!
//! This crate knows no user type (it is generic over [`codec::Codec`]) and no external system. RocksDB is
//! imported in one file.

pub mod aggregate;
pub mod codec;
pub mod counters;
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
pub mod operator;
pub mod operators;
pub mod options;
pub mod sink;
pub mod source;
pub mod state;
pub mod window;

#[cfg(test)]
mod memory_log;
