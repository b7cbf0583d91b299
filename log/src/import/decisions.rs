//! What a broker had decided about transactions whose markers it had not written yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hashbrown::HashMap;

use super::broker_directory::{BrokerDirectory, BrokerTopic, TRANSACTIONS_TOPIC};
use super::staging::StagedPartition;
use crate::batch::{DecompressionBuffer, MarkerKind};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::partition::{Isolation, Partition};
use crate::record::{ProducerId, TopicPartition};
use crate::topic::TopicConfig;
use crate::transaction::{TransactionRecord, TransactionStatus};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

/// The decisions in `__transaction_state`, which is read when the first open transaction is found, and the
/// copies of the broker's internal topics that were made to read them.
pub(super) struct Decisions<'a> {
    broker: &'a BrokerDirectory,
    /// The partitions of transactions that are to be committed, by producer.
    committed: Option<HashMap<ProducerId, Vec<TopicPartition>>>,
    copies: Vec<PathBuf>,
}

impl<'a> Decisions<'a> {
    pub(super) fn new(broker: &'a BrokerDirectory) -> Self {
        Self { broker, committed: None, copies: Vec::new() }
    }

    /// How the open transaction of this producer ends in this partition. One that was not decided is
    /// aborted: nobody is left to go on with it.
    pub(super) fn on(
        &mut self,
        log: &Log,
        partition: &TopicPartition,
        producer: ProducerId,
    ) -> Result<MarkerKind> {
        let committed = match self.committed.take() {
            Some(committed) => committed,
            None => self.read(log)?,
        };
        let is_committed = committed.get(&producer).is_some_and(|partitions| partitions.contains(partition));
        self.committed = Some(committed);
        Ok(if is_committed { MarkerKind::Commit } else { MarkerKind::Abort })
    }

    /// A copy of a partition of an internal topic, to be read and thrown away.
    pub(super) fn copies_of(&mut self, log: &Log, topic: &BrokerTopic) -> Result<Vec<StagedPartition>> {
        let config = TopicConfig::default();
        let stage = |source| StagedPartition::stage(log, &source, topic, &config);
        let staged: Result<Vec<_>> = self.broker.partitions(topic).into_iter().map(stage).collect();
        let staged = staged?;
        self.copies.extend(staged.iter().map(|partition| partition.directory.clone()));
        Ok(staged)
    }

    /// Removes the copies.
    pub(super) fn clean_up(self) -> Result<()> {
        for copy in self.copies {
            let removed = self.broker.storage.remove_dir_all(&copy);
            removed.map_err(|error| Error::io(format!("cannot remove {}", copy.display()), error))?;
        }
        Ok(())
    }

    fn read(&mut self, log: &Log) -> Result<HashMap<ProducerId, Vec<TopicPartition>>> {
        let mut newest = BTreeMap::new();
        let broker = self.broker;
        if let Some(topic) = broker.internal(TRANSACTIONS_TOPIC) {
            for copy in self.copies_of(log, topic)? {
                read_table(&copy.partition, &mut newest)?;
            }
        }
        let prepared =
            newest.into_values().filter(|record| record.status == TransactionStatus::PrepareCommit);
        Ok(prepared.map(|record| (record.producer_id, record.partitions)).collect())
    }
}

/// Reads the newest record of each transactional id.
fn read_table(partition: &Partition, newest: &mut BTreeMap<Vec<u8>, TransactionRecord>) -> Result<()> {
    let mut scratch = DecompressionBuffer::new();
    let mut position = partition.offsets().start;
    loop {
        // Copies of internal topics are read for this process alone: what they hold is synced.
        let fetched = partition.fetch(position, READ_BYTES, Isolation::ReadUncommitted)?;
        if fetched.next <= position {
            return Ok(());
        }
        for batch in fetched.committed() {
            let batch = batch.map_err(|error| error.within(partition.name()))?;
            for record in batch.records(&mut scratch).map_err(|error| error.within(partition.name()))? {
                let record = record.map_err(|error| error.within(partition.name()))?;
                let Some(key) = record.key else { continue };
                match record.value.and_then(TransactionRecord::decode) {
                    Some(value) => newest.insert(key.to_vec(), value),
                    None => newest.remove(key),
                };
            }
        }
        position = fetched.next;
    }
}
