//! Both ways with Kafka's files. A test that finds no Java or no Maven says so and is counted as skipped.

mod compacted;
mod dumping;
mod ours;
mod theirs;
