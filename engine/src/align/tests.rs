use proptest::prelude::*;

use super::*;

/// What a sender sends: so many messages in each epoch, then the barrier.
fn senders() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (1..6usize, 1..5usize).prop_flat_map(|(senders, epochs)| {
        prop::collection::vec(prop::collection::vec(0..4u8, epochs), senders)
    })
}

proptest! {
    #[test]
    fn what_is_taken_before_a_release_is_of_its_epoch_and_none_is_left_out(
        senders in senders(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        let epochs = senders[0].len();
        let mut aligner = Aligner::new(senders.len(), Epoch(1));
        // By sender: the epoch it sends in, and what it has sent of it.
        let mut sent = vec![(0usize, 0u8); senders.len()];
        let mut taken = vec![0u32; epochs];
        let mut working_on = 0;
        let mut choices = choices.into_iter().cycle();
        while working_on < epochs {
            let open: Vec<usize> = (0..senders.len()).filter(|&sender| aligner.is_open(sender)).collect();
            prop_assert!(!open.is_empty(), "before the release some sender may always be read");
            let sender = *choices.next().expect("it is a cycle").get(&open);
            let (epoch, count) = sent[sender];
            prop_assert_eq!(epoch, working_on, "an open sender is in the epoch that is worked on");
            if count < senders[sender][epoch] {
                sent[sender].1 += 1;
                taken[working_on] += 1;
                continue;
            }
            sent[sender] = (epoch + 1, 0);
            let last = aligner.barrier(sender, Epoch(epoch as u64 + 1));
            prop_assert_eq!(last, sent.iter().all(|(epoch, _)| *epoch > working_on));
            if last {
                aligner.release();
                working_on += 1;
            }
        }
        for epoch in 0..epochs {
            let expected: u32 = senders.iter().map(|sender| u32::from(sender[epoch])).sum();
            prop_assert_eq!(taken[epoch], expected);
        }
    }
}

#[test]
#[should_panic(expected = "barriers come in order and without a gap")]
fn a_barrier_of_another_epoch_is_a_bug() {
    Aligner::new(1, Epoch(1)).barrier(0, Epoch(2));
}

#[test]
#[should_panic(expected = "nothing is taken from a sender behind its barrier")]
fn a_closed_sender_is_not_read() {
    let mut aligner = Aligner::new(2, Epoch(1));
    assert!(!aligner.barrier(0, Epoch(1)));
    aligner.barrier(0, Epoch(1));
}

#[test]
#[should_panic(expected = "a barrier is passed on when it has come from every sender")]
fn nothing_is_released_early() {
    let mut aligner = Aligner::new(2, Epoch(1));
    assert!(!aligner.barrier(1, Epoch(1)));
    aligner.release();
}
