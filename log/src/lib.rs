//! An embedded, durable, partitioned commit log in Kafka's format.
//!
//! Bytes, files and offsets: this crate knows no RocksDB, no tokio runtime and no user type. It is
//! synchronous and called straight from the threads of its user.
//!
//! # Floor plan
//!
//! | module | owns |
//! |---|---|
//! | [`Log`] | a directory of topics: opens, locks, recovers, closes |
//! | [`Topic`], `catalogue` | named sets of partitions, and which there are |
//! | [`Producer`] | gathers records into batches and writes them |
//! | [`Consumer`] | reads partitions from a position on: assigned by hand, or by its group |
//! | [`group`] | groups of consumers: who reads what, and what they have committed |
//! | [`record`] | records and the newtypes that name their place |
//! | [`batch`] | record batch v2: the layout on disk, checksums, compression |
//! | [`Progress`] | tells who reads at the end of a log that there is more |
//! | [`partitioner`] | which partition a record goes to |
//! | `whole_file` | small files that are replaced in one piece |
//! | `segment`, `index`, `scanner`, `files` | one file of a log, the indexes beside it, reading it forward, names |
//! | `sound_batches` | finding what is sound among bytes of which some are damaged |
//! | `open_files` | files that are open while they are used, up to a bound |
//! | `unsynced_files` | files that are open because they are not synced, up to a bound |
//! | `internal_topic` | which topics the log keeps for itself |
//! | `message_reader` | the values in Kafka's internal topics |
//! | `producer_state` | idempotence and open transactions of a partition, and their snapshots |
//! | [`Cleanup`], `retention`, `compaction`, `upkeep` | what becomes of old records: settings, decisions, who sees to it |
//! | [`Partition`] | ordered segments with one writer: append, roll, fetch, sync |
//! | `recovery`, `clean_shutdown` | opening a partition after a crash; whether there was one |
//! | [`ImportOptions`], `import` | bringing in what a Kafka broker has left |
//! | [`walk_log`] | checking every byte without opening anything |
//! | [`TransactionalProducer`], `transaction` | records in many partitions that count together or not at all |
//! | `consistent_cut` | what a power cut leaves of transactions that nobody synced one by one |
//! | [`flusher`], `recovery_point` | group commit, and up to where everything was synced |
//! | [`ticket`], `driver`, `alarms` | what a caller holds while the log works; who moves that work along; waking tasks in time |
//! | [`storage`] | the port to files and directories: disk, and a memory that crashes |
//! | [`clock`], [`spawn`] | the only place that reads a clock, the only one that starts a thread |
//! | [`error`] | the one error |

mod alarms;
pub mod batch;
mod catalogue;
mod clean_shutdown;
mod cleanup;
pub mod clock;
mod compaction;
mod consistent_cut;
mod consumer;
mod driver;
pub mod error;
mod files;
pub mod flusher;
pub mod group;
mod import;
mod index;
mod internal_topic;
mod log;
mod message_reader;
#[cfg(test)]
mod needed_syncs;
mod open_files;
mod partition;
pub mod partitioner;
mod producer;
mod producer_state;
mod progress;
mod read_buffers;
pub mod record;
mod recovery;
mod recovery_point;
mod retention;
mod scanner;
mod segment;
mod sound_batches;
pub mod spawn;
pub mod storage;
#[cfg(test)]
mod test_log;
pub mod ticket;
mod topic;
mod transaction;
mod unsynced_files;
mod upkeep;
mod verify;
mod whole_file;

pub use cleanup::{Cleanup, CleanupPolicy, CompactionConfig, Retention};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compaction::CompactionReport;
pub use consumer::{
    ConsumedRecord, Consumer, ConsumerOptions, OffsetAndMetadata, OutOfRange, RebalanceListener,
    RecordStream, StartAt,
};
pub use error::{Error, ErrorKind, Result};
pub use import::{ImportOptions, Imported, ImportedPartition, ImportedTopic};
pub use index::AbortedTransaction;
pub use log::{Log, LogOptions, Repair, RepairReport, TouchedTransaction, TransactionFate};
pub use partition::{
    Appended, CommittedBatches, Durability, Fetched, FoundOffset, Isolation, OffsetSpec, Partition,
    PartitionConfig, PartitionContext, PartitionOffsets, PartitionSite, PartitionSize, Pin,
};
pub use partitioner::{Partitioner, murmur2, partition_for_key};
pub use producer::{Producer, ProducerOptions, RecordPlace, SendFuture};
pub use producer_state::OpenTransaction;
pub use progress::Progress;
pub use read_buffers::ReadBuffers;
pub use record::{
    Header, LeaderEpoch, Offset, PartitionId, PartitionKey, ProducerEpoch, ProducerId, Record, Sequence,
    Timestamp, TopicId, TopicPartition,
};
pub use recovery::{RecoveryBorder, RecoveryReport, Truncation};
pub use spawn::Drive;
pub use ticket::{CommitTicket, FlushTicket, Ticket};
pub use topic::{Topic, TopicConfig};
pub use transaction::{TransactionOptions, TransactionalProducer};
pub use upkeep::UpkeepOptions;
pub use verify::{Damage, Walk, WalkEnd, WalkRules, walk, walk_log};
