//! A processor and its log in one thread: time, storage, the order of steps and every crash follow from a
//! seed.
//!
//! [`flow`] is what runs: sources of both durabilities, a hash exchange, a window, a timer, a late output, a
//! join that rows wait for. [`shown`] is what it feeds outside the log.
//! [`answer`] says what must come of it, from the input alone. A [`life`] is run against that, on a disk
//! that is struck where it is told to be.

pub mod answer;
pub mod flow;
pub mod life;
pub mod shown;
mod world;
