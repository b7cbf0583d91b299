//! What holds for Lotic as a whole, in one binary. Where a new test belongs:
//!
//! - [`absences`]: what a package must not depend on, what only one file may do.
//! - [`event_log`]: what every kind of event log promises. The checks are in `src/event_log.rs`.
//! - [`power_cut`]: what must hold when the power fails, at any storage operation. The processor, its disk
//!   and what must come of them are in `src/simulator`.
//! - [`same_answer`]: what a result must not depend on.
//!
//! A test of one package's own behaviour stands in that package, beside the code.

mod absences;
mod event_log;
mod power_cut;
mod same_answer;
