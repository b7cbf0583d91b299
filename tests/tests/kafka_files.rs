//! Both ways with Kafka's files. A test that finds no Java or no Maven says so and is counted as skipped.

mod dumping;
mod ours;
mod theirs;
