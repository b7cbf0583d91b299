//! What the tests of Lotic as a whole are made of.

pub mod event_log;
pub mod simulator;
