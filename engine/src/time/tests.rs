use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn watermark(partition: Option<i32>, time: i64) -> Watermark {
    Watermark { partition: partition.map(PartitionId), time: Timestamp(time) }
}

/// What each sender has promised, as a plain history.
type History = Vec<(usize, Watermark)>;

fn history() -> impl Strategy<Value = (usize, History)> {
    (1..4usize).prop_flat_map(|senders| {
        let said = (0..senders, prop::option::of(0..3i32), -5..20i64);
        let said = said.prop_map(|(sender, partition, time)| (sender, watermark(partition, time)));
        (Just(senders), prop::collection::vec(said, 0..60))
    })
}

/// The largest of the promises in `history` that `sender` made about `partition`, or about everything.
fn promised(history: &History, sender: usize, partition: Option<PartitionId>) -> Timestamp {
    let about = |said: &Watermark| said.partition.is_none() || said.partition == partition;
    let times =
        history.iter().filter(|(from, said)| *from == sender && about(said)).map(|(_, said)| said.time);
    times.max().unwrap_or(NO_WATERMARK)
}

proptest! {
    #[test]
    fn an_input_promises_what_all_of_its_senders_promise((senders, history) in history()) {
        let mut input = InputWatermarks::new(senders);
        let mut said = BTreeMap::new();
        for count in 0..history.len() {
            let (sender, watermark) = history[count];
            let mut risen = Vec::new();
            input.raise(sender, watermark, &mut risen);
            for watermark in risen {
                let before = said.insert(watermark.partition, watermark.time);
                prop_assert!(before.is_none_or(|before| before < watermark.time), "watermarks only rise");
            }
            let so_far = history[..=count].to_vec();
            for partition in [None, Some(0), Some(1), Some(2)].map(|number| number.map(PartitionId)) {
                let expected =
                    (0..senders).map(|sender| promised(&so_far, sender, partition)).min().unwrap();
                let whole = said.get(&None).copied().unwrap_or(NO_WATERMARK);
                let known = said.get(&partition).copied().unwrap_or(NO_WATERMARK).max(whole);
                prop_assert_eq!(known, expected, "{:?} after {:?}", partition, so_far);
            }
        }
    }
}

#[test]
fn a_partition_follows_its_one_reader_when_the_others_expect_nothing_of_it() {
    let mut input = InputWatermarks::new(2);
    let mut risen = Vec::new();
    input.raise(0, watermark(Some(1), NOTHING_EXPECTED.0), &mut risen);
    input.raise(1, watermark(Some(0), NOTHING_EXPECTED.0), &mut risen);
    assert_eq!(risen, []);
    input.raise(1, watermark(Some(1), 10), &mut risen);
    assert_eq!(risen, [watermark(Some(1), 10)], "though the reader of partition 0 has said nothing of it");
    risen.clear();
    input.raise(0, watermark(None, 3), &mut risen);
    assert_eq!(risen, [watermark(Some(0), 3)]);
}

#[test]
fn an_input_without_a_word_from_one_sender_promises_nothing() {
    let mut input = InputWatermarks::new(2);
    let mut risen = Vec::new();
    input.raise(0, watermark(None, 1_000), &mut risen);
    assert_eq!(risen, []);
    input.raise(1, watermark(None, 5), &mut risen);
    assert_eq!(risen, [watermark(None, 5)]);
}
