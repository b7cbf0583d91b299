//! How the operators of one worker get at their stores.

use std::collections::HashMap;
use std::sync::Arc;

use lotic_log::Offset;
use parking_lot::Mutex;

use super::budget::StateBudget;
use super::changelog::{Changelog, CommittedEnds, ValueCodec};
use super::keyed::StoreParts;
use super::{KeyedState, Slice, StateBackend, StateLimits, StoreChangelog, StoreId, StoreOrder};
use crate::codec::Codec;
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{PartitionKey, TopicHandle};
use crate::frame::Data;

/// What the stores of a worker stand on.
pub struct StateAccessOptions<'a> {
    /// The restored backend.
    pub backend: Arc<dyn StateBackend>,
    /// Every store of the flow with its changelog.
    pub stores: &'a [StoreChangelog],
    /// Which worker this is.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    /// The bounds of this worker's memory.
    pub limits: StateLimits,
}

/// The stores of one worker: opens them, bounds what they take together, and tells them what was committed.
/// Clones are the same stores.
#[derive(Clone)]
pub struct StateAccess {
    backend: Arc<dyn StateBackend>,
    stores: HashMap<String, (StoreId, TopicHandle)>,
    slice: Slice,
    budget: Arc<StateBudget>,
    committed: Arc<Mutex<CommittedEnds>>,
}

/// How much a worker's state has changed since it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorePressure {
    /// As it should be.
    Low,
    /// The dirty budget is reached: the epoch should end now.
    EndEpoch,
    /// Twice the budget is taken by what no epoch has brought to the backend yet: sources should wait.
    Hold,
}

impl StateAccess {
    /// The stores of one worker.
    pub fn new(options: StateAccessOptions<'_>) -> Result<Self> {
        let open = |store: &StoreChangelog| {
            let id = options.backend.open_store(&store.name)?;
            Ok((store.name.clone(), (id, store.topic.clone())))
        };
        let stores = options.stores.iter().map(open).collect::<Result<_>>()?;
        Ok(Self {
            stores,
            backend: options.backend,
            slice: Slice::new(options.worker, options.workers),
            budget: Arc::new(StateBudget { limits: options.limits, ..StateBudget::default() }),
            committed: Arc::default(),
        })
    }

    /// Opens a store that the graph declares.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for one that it does not declare.
    pub fn store<V: Data>(
        &self,
        name: &str,
        codec: Arc<dyn Codec<V>>,
        order: StoreOrder,
    ) -> Result<KeyedState<V>> {
        let Some((store, topic)) = self.stores.get(name) else {
            let what = format!("the step opens store {name}, which its node does not declare");
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        Ok(KeyedState::new(StoreParts {
            backend: self.backend.clone(),
            store: *store,
            codec: ValueCodec::new(name.into(), codec),
            changelog: Changelog::new(topic.clone(), self.slice, self.committed.clone()),
            budget: self.budget.clone(),
            order,
        }))
    }

    /// `epoch` is committed, and its transaction ended there in the partitions that it wrote. Called
    /// before the operators' [`committed`](crate::operator::Operator::committed).
    pub fn publish_ends(&self, epoch: Epoch, ends: &[(PartitionKey, Offset)]) {
        self.committed.lock().publish(epoch, ends);
    }

    /// Whether so much has changed that the epoch should end early, or input should wait.
    pub fn pressure(&self) -> StorePressure {
        let dirty = self.budget.dirty_bytes.get();
        let limit = self.budget.limits.dirty_bytes_max;
        if dirty + self.budget.frozen_bytes.get() >= 2 * limit {
            StorePressure::Hold
        } else if dirty >= limit {
            StorePressure::EndEpoch
        } else {
            StorePressure::Low
        }
    }

    /// Bytes of entries in memory, changed or not.
    pub fn memory_bytes(&self) -> usize {
        self.budget.clean_bytes.get() + self.budget.dirty_bytes.get() + self.budget.frozen_bytes.get()
    }
}
