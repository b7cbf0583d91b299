//! A bounded queue between one sender and one receiver: two tasks, on one worker or on two.
//!
//! Neither side ever waits inside: a full queue gives the message back, an empty one gives nothing. Whoever
//! could go on now is woken: the receiver when something comes into an empty queue, the sender when there is
//! room again in one that was full to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::message::Message;

/// Wakes a worker that may be asleep. It may be called from any thread, also without reason.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// A queue that holds at most `capacity` messages.
pub(crate) fn channel(capacity: usize, wake_receiver: Waker, wake_sender: Waker) -> (Sender, Receiver) {
    assert!(capacity > 0, "a queue without room lets nothing through");
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        len: AtomicUsize::new(0),
        capacity,
        wake_receiver,
        wake_sender,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end that sends.
pub(crate) struct Sender(Arc<Shared>);

/// The end that receives.
pub(crate) struct Receiver(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// How many messages the queue holds: an empty one is passed by without taking the lock.
    len: AtomicUsize,
    capacity: usize,
    wake_receiver: Waker,
    wake_sender: Waker,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// Whether the sender was refused and has not been woken since.
    sender_waits: bool,
}

impl Sender {
    /// Appends `message`, or gives it back where there is no room; the sender is woken once there is.
    ///
    /// A watermark takes the place of one directly before it that is said of the same partition.
    pub(crate) fn send(&self, message: Message) -> Option<Message> {
        let mut queue = self.0.queue.lock();
        if let (Message::Watermark(new), Some(Message::Watermark(last))) =
            (&message, queue.messages.back_mut())
            && last.partition == new.partition
        {
            last.time = last.time.max(new.time);
            return None;
        }
        if queue.messages.len() >= self.0.capacity {
            queue.sender_waits = true;
            return Some(message);
        }
        queue.messages.push_back(message);
        let len = queue.messages.len();
        self.0.len.store(len, Ordering::Release);
        drop(queue);
        if len == 1 {
            (self.0.wake_receiver)();
        }
        None
    }
}

impl Receiver {
    /// Takes the first message, if there is one.
    pub(crate) fn receive(&self) -> Option<Message> {
        if self.0.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut queue = self.0.queue.lock();
        let message = queue.messages.pop_front();
        self.0.len.store(queue.messages.len(), Ordering::Release);
        let wake = std::mem::take(&mut queue.sender_waits);
        drop(queue);
        if wake {
            (self.0.wake_sender)();
        }
        message
    }
}

#[cfg(test)]
mod tests;
