//! What the tests of the whole share: a simulated machine, and the real programs as processes.
//!
//! | module | owns |
//! |---|---|
//! | [`event_log`] | what every kind of event log promises |
//! | [`simulator`] | a processor stepped on a disk that loses power |
//! | [`failure`] | why a check of a program failed |
//! | [`process`] | a program that runs: waiting with a deadline, SIGKILL, SIGTERM, what it printed |
//! | [`terminal`] | what a program shows where somebody looks |
//! | [`programs`] | where the built programs and the scripts of the repository are |
//! | [`flights`] | the flights example: its input, its arguments, the CSVs it writes, what DuckDB answers |
//! | [`namespace`] | mounts that only one program sees |
//! | [`stored`] | the committed records of a directory |
//! | [`files`] | every file of a directory by its bytes: was anything changed? |
//! | [`kafka`] | a real Kafka: its broker, its clients and its tools |
//! | [`differential`] | the same operations on Lotic and on a real Kafka, compared |
//! | [`skipped`] | tests that cannot be done here: named and counted |
//! | [`crash`] | the flights example killed over and over, and compared with a run that was not |
//!
//! Nothing here is used by the product, and nothing expected is computed by what is under test: it comes
//! from the input, from DuckDB, or from a run that nobody disturbed.

pub mod crash;
pub mod differential;
pub mod event_log;
pub mod failure;
pub mod files;
pub mod flights;
pub mod kafka;
pub mod namespace;
pub mod process;
pub mod programs;
pub mod simulator;
pub mod skipped;
pub mod stored;
pub mod terminal;
