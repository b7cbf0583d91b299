//! What holds for Lotic as a whole, in one binary. Where a new test belongs:
//!
//! - [`absences`]: what a package must not depend on, what only one file may do.
//! - [`cli`]: the `lotic` command: what it prints, what it changes, what it refuses.
//! - [`crash`]: the flights example killed and restarted. The campaign is in `src/crash`.
//! - [`differential`]: Lotic does what a real Kafka does. The scripts are in `src/differential`.
//! - [`event_log`]: what every kind of event log promises. The checks are in `src/event_log.rs`.
//! - [`files`]: a flow between files, with the front door and the connectors together.
//! - [`following`]: a log that other processes read while it is written.
//! - [`kafka_files`]: Kafka's tools read what Lotic writes, and Lotic reads what a broker writes.
//! - [`power_cut`]: what must hold when the power fails, at any storage operation. The processor, its disk
//!   and what must come of them are in `src/simulator`.
//! - [`processes`]: a long-lived processor and its operating system: signals, a second one, a full disk.
//! - [`readers`]: a log that is read while another handle writes to it.
//! - [`refusals`]: what a program refuses, with which message, and that it changes nothing then.
//! - [`results`]: the flights example's answers, against DuckDB's.
//! - [`same_answer`]: what a result must not depend on.
//!
//! A test of one package's own behaviour stands in that package, beside the code.

mod absences;
mod cli;
mod crash;
mod differential;
mod event_log;
mod files;
mod following;
mod kafka_files;
mod power_cut;
mod processes;
mod readers;
mod refusals;
mod results;
mod same_answer;
