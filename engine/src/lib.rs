//! The running dataflow: workers, operators, state, epochs.
//!
//! # Floor plan
//!
//! From what a flow is, by way of who runs it, to where it all ends up:
//!
//! | module | owns |
//! |---|---|
//! | [`graph`], [`plan`] | the flow as data; the tasks that it is laid out in |
//! | `topology` | what state depends on: a flow that does not fit the state it finds is refused |
//! | [`frame`], [`message`] | events that travel together, their types erased once; all that ever travels on an edge |
//! | [`key_group`] | which worker owns a key |
//! | [`codec`], [`aggregate`], [`mod@window`] | how a user's type becomes bytes; what is made of a key's values; tumbling windows |
//! | [`operator`], [`operators`] | the port of a step; the steps that flows are made of |
//! | [`timers`], [`timed_operator`] | what a step is to be told once the watermark has passed a time; the port of such steps |
//! | [`source`], [`sink`] | the ports that connectors implement |
//! | [`mod@time`], `skew` | watermarks of inputs; which source is read first |
//! | `align`, `task`, [`worker`], [`channel`], `bell` | barriers; a chain of steps; one thread's share of all tasks; queues; waking |
//! | [`state`] | what steps keep by key: the layers in memory, the store below, the changelog, restoring |
//! | [`checkpoint`], `checkpointer` | the live store and the checkpoints beside it; taking one while the flow runs |
//! | [`epoch`], [`epoch_coordinator`] | epochs; what happens when in one, as a state machine |
//! | [`epoch_writer`], [`epoch_record`] | what a worker writes to the log, by epoch; what the last epoch left |
//! | [`event_log`], [`embedded`] | the port to the log; the embedded log behind it |
//! | [`mod@engine`], [`assembly`] | a flow that is opened and stepped; its workers, made |
//! | `conductor`, `seat` | carrying out what the coordinator decides; where commands and reports cross threads |
//! | [`processor`] | the long-lived thing: threads, restarts, the end |
//! | [`options`], [`counters`], [`metrics`] | settings; what is counted; what a processor tells of itself |
//! | [`error`] | the one error |
//! | `harness`, `test_flow`, `memory_log` | for tests: small graphs stepped in an order that a seed decides; a log in memory |
//!
//! # Absent on purpose
//!
//! This crate knows no user type (it is generic over [`codec::Codec`]) and no external system. RocksDB is imported in
//! one file, `state/rocks.rs`. No operator reads a clock or a random number, and no step blocks: both come from
//! outside, so that the same code runs on threads and in a simulator.

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
pub mod timed_operator;
pub mod timers;
mod topology;
pub mod window;
pub mod worker;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod memory_log;
#[cfg(test)]
mod test_flow;
