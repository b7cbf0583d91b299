//! Buffers that fetched batches are read into; they come back when the last reader lets go of them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// How many buffers are kept while nobody uses them.
const BUFFERS_MAX: usize = 16;

/// The largest buffer that is kept.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// A smaller read gets memory of its own: it would pin a large buffer for as long as it is held.
const POOLED_BYTES_MIN: usize = 64 << 10;

/// A pool of read buffers, shared by the partitions of a log. What it keeps is bounded: sixteen buffers
/// of at most 4 MiB.
#[derive(Clone, Debug, Default)]
pub struct ReadBuffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl ReadBuffers {
    /// A pool that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `bytes` bytes, whatever they are.
    pub(crate) fn take(&self, bytes: usize) -> ReadBuffer {
        let pooled = (POOLED_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&bytes);
        let room = if pooled { self.reuse(bytes) } else { None };
        let room = room.unwrap_or_else(|| {
            vec![0; if pooled { bytes.next_power_of_two().min(BUFFER_BYTES_MAX) } else { bytes }]
        });
        ReadBuffer { room, bytes, home: pooled.then(|| self.clone()) }
    }

    fn reuse(&self, bytes: usize) -> Option<Vec<u8>> {
        let mut free = self.free.lock();
        let fitting = free.iter().rposition(|room| room.len() >= bytes)?;
        Some(free.swap_remove(fitting))
    }

    fn give_back(&self, room: Vec<u8>) {
        let mut free = self.free.lock();
        if free.len() < BUFFERS_MAX {
            free.push(room);
        }
    }
}

/// A buffer on loan.
pub(crate) struct ReadBuffer {
    room: Vec<u8>,
    bytes: usize,
    home: Option<ReadBuffers>,
}

impl ReadBuffer {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.room[..self.bytes]
    }

    /// Gives the buffer to its readers; it comes home with the last of them.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.room[..self.bytes]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_back(std::mem::take(&mut self.room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_home_when_its_last_reader_lets_go() {
        let buffers = ReadBuffers::new();
        let mut buffer = buffers.take(POOLED_BYTES_MIN);
        buffer.as_mut_slice().fill(7);
        let whole = buffer.freeze();
        let part = whole.slice(10..20);
        drop(whole);
        assert_eq!(buffers.free.lock().len(), 0);
        assert_eq!(&part[..], [7; 10]);
        drop(part);
        assert_eq!(buffers.free.lock().len(), 1);
        drop(buffers.take(POOLED_BYTES_MIN));
        assert_eq!(buffers.free.lock().len(), 1, "it is used again");
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let buffers = ReadBuffers::new();
        let taken: Vec<_> = (0..2 * BUFFERS_MAX).map(|_| buffers.take(POOLED_BYTES_MIN)).collect();
        drop(taken);
        drop(buffers.take(BUFFER_BYTES_MAX + 1));
        drop(buffers.take(1));
        assert_eq!(buffers.free.lock().len(), BUFFERS_MAX);
        assert!(buffers.free.lock().iter().all(|room| room.len() <= BUFFER_BYTES_MAX));
    }
}
