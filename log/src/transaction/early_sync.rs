//! Syncing what a transaction has written while it is still open, so that its commit finds little to do.

use crate::ticket::FlushTicket;

/// Bytes of a transaction in one partition after which it is synced early. Less is not worth a sync of its
/// own: the one of the commit takes it in.
pub(super) const EARLY_SYNC_BYTES: usize = 4 << 20;

/// What a transaction has written to one partition since it was last asked to be synced.
///
/// Nothing waits for these syncs and nothing stands on them: they only bring forward what the commit waits
/// for. A sync that fails poisons the partition, so that the commit fails too.
#[derive(Default)]
pub(super) struct EarlySync {
    bytes: usize,
    /// One at a time: a slow disk gets no queue of them.
    under_way: Option<FlushTicket>,
}

impl EarlySync {
    /// Notes so many more bytes, and has them synced by `request` if those are enough.
    pub(super) fn note(&mut self, bytes: usize, request: impl FnOnce() -> FlushTicket) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes < EARLY_SYNC_BYTES {
            return;
        }
        if self.under_way.as_ref().is_none_or(|ticket| ticket.outcome().is_some()) {
            self.bytes = 0;
            self.under_way = Some(request());
        }
    }
}
