//! An embedded, durable, partitioned commit log in Kafka's format.
//!
//! Bytes, files and offsets: this crate knows no RocksDB, no tokio runtime and no user type. It is
//! synchronous and called straight from the threads of its user.
//!
//! # Floor plan
//!
//! | module | owns |
//! |---|---|
//! | [`record`] | records and the newtypes that name their place |
//! | [`batch`] | record batch v2: the layout on disk, checksums, compression |
//! | [`partitioner`] | which partition a record goes to |
//! | [`flusher`] | group commit |
//! | [`storage`] | the port to files and directories: disk, and a memory that crashes |
//! | [`clock`], [`spawn`] | the only place that reads a clock, the only one that starts a thread |
//! | [`error`] | the one error |

pub mod batch;
pub mod clock;
pub mod error;
pub mod flusher;
pub mod partitioner;
pub mod record;
pub mod spawn;
pub mod storage;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use partitioner::{Partitioner, murmur2, partition_for_key};
pub use record::{
    Header, LeaderEpoch, Offset, PartitionId, PartitionKey, ProducerEpoch, ProducerId, Record, Sequence,
    Timestamp, TopicId, TopicPartition,
};
pub use spawn::Drive;
