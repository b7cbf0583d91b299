use std::sync::atomic::AtomicUsize;

use lotic_log::{PartitionId, Timestamp};

use super::*;
use crate::epoch::Epoch;
use crate::message::Watermark;

fn counter() -> (Waker, impl Fn() -> usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let waker: Waker = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    (waker, move || count.load(Ordering::SeqCst))
}

fn barrier(epoch: u64) -> Message {
    Message::Barrier(Epoch(epoch))
}

fn watermark(partition: Option<i32>, time: i64) -> Message {
    Message::Watermark(Watermark { partition: partition.map(PartitionId), time: Timestamp(time) })
}

fn shown(message: Option<Message>) -> String {
    match message {
        None => "nothing".to_owned(),
        Some(Message::Frame(_)) => "frame".to_owned(),
        Some(Message::Watermark(Watermark { partition, time })) => format!("{partition:?} {time}"),
        Some(Message::Barrier(epoch)) => format!("barrier {epoch}"),
        Some(Message::End) => "end".to_owned(),
    }
}

#[test]
fn a_full_queue_gives_the_message_back_and_wakes_its_sender_once_there_is_room() {
    let ((receiver_waker, received), (sender_waker, sent)) = (counter(), counter());
    let (sender, receiver) = channel(2, receiver_waker, sender_waker);
    assert!(sender.send(barrier(1)).is_none());
    assert!(sender.send(barrier(2)).is_none());
    assert_eq!(received(), 1, "only something in an empty queue is news");
    assert_eq!(shown(sender.send(barrier(3))), "barrier 3");
    assert_eq!(sent(), 0);
    assert_eq!(shown(receiver.receive()), "barrier 1");
    assert_eq!(sent(), 1);
    assert_eq!(shown(receiver.receive()), "barrier 2");
    assert_eq!(sent(), 1, "nobody waits any more");
    assert_eq!(shown(receiver.receive()), "nothing");
    assert!(sender.send(barrier(3)).is_none());
    assert_eq!(received(), 2);
}

#[test]
fn a_watermark_takes_the_place_of_the_one_before_even_in_a_full_queue() {
    let (sender, receiver) = channel(2, Arc::new(|| ()), Arc::new(|| ()));
    assert!(sender.send(watermark(None, 1)).is_none());
    assert!(sender.send(watermark(Some(1), 2)).is_none());
    assert!(sender.send(watermark(Some(1), 5)).is_none());
    assert!(sender.send(watermark(Some(1), 4)).is_none());
    assert!(sender.send(watermark(None, 6)).is_some(), "what is not directly before stays");
    assert_eq!(shown(receiver.receive()), "None 1");
    assert_eq!(shown(receiver.receive()), "Some(PartitionId(1)) 5");
    assert_eq!(shown(receiver.receive()), "nothing");
}

#[test]
fn messages_pass_between_threads_in_order() {
    let (sender, receiver) = channel(4, Arc::new(|| ()), Arc::new(|| ()));
    let thread = lotic_log::spawn::spawn("sender", move || {
        for epoch in 0..10_000 {
            while sender.send(barrier(epoch)).is_some() {
                std::thread::yield_now();
            }
        }
    });
    for epoch in 0..10_000 {
        let message = loop {
            match receiver.receive() {
                None => std::thread::yield_now(),
                message => break message,
            }
        };
        assert_eq!(shown(message), format!("barrier {epoch}"));
    }
    thread.unwrap().join().unwrap();
}
