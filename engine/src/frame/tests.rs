use proptest::prelude::*;

use super::*;

fn batch(keys: &[String]) -> Batch<String> {
    let mut batch = Batch::default();
    for (index, key) in keys.iter().enumerate() {
        batch.rows.push(format!("{key} {index}"));
        let columns = &mut batch.columns;
        columns.times.push(Timestamp(index as i64));
        columns.watermarks.push(Timestamp(index as i64 - 7));
        let (partition, offset) = (PartitionId(3), Offset(index as i64));
        columns.origins.push(Origin { source: 1, partition, offset });
        columns.keys.push(key.as_bytes(), lotic_log::murmur2(key.as_bytes()) as u32);
    }
    batch
}

/// Every event as one text, from all that is known of it.
fn events(batch: &Batch<String>) -> Vec<String> {
    let columns = &batch.columns;
    assert_eq!(batch.rows.len(), columns.len());
    let event = |index: usize| {
        let (key, hash) = (String::from_utf8_lossy(columns.keys.key(index)), columns.keys.hash(index));
        let (time, watermark) = (columns.times[index], columns.watermarks[index]);
        format!("{} {key} {hash} {time} {watermark} {:?}", batch.rows[index], columns.origins[index])
    };
    (0..batch.rows.len()).map(event).collect()
}

proptest! {
    #[test]
    fn a_split_frame_has_every_event_once_with_the_worker_that_owns_its_key(
        keys in prop::collection::vec("[a-e]{0,3}", 0..50),
        workers in 1..5usize,
    ) {
        let all = batch(&keys);
        let parts = Frame::from(all.clone()).split_by_worker(workers);
        prop_assert_eq!(parts.len(), workers);
        let mut found = Vec::new();
        for (worker, part) in parts.into_iter().enumerate() {
            let part = part.into_batch::<String>();
            for index in 0..part.rows.len() {
                let hash = lotic_log::murmur2(part.columns.keys.key(index)) as u32;
                prop_assert_eq!((hash & 0x7fff_ffff) as usize % 256 % workers, worker);
            }
            prop_assert!(part.columns.times.is_sorted(), "order stays");
            found.extend(events(&part));
        }
        let mut expected = events(&all);
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn events_are_kept_whole(
        keys in prop::collection::vec("[a-e]{0,3}", 0..50),
        kept in prop::collection::vec(any::<bool>(), 50),
    ) {
        let all = batch(&keys);
        let keep = &kept[..keys.len()];
        let mut left = all.clone();
        retain(&mut left.rows, keep);
        left.columns.retain(keep);
        let expected: Vec<_> = events(&all).into_iter().zip(keep).filter(|(_, keep)| **keep).collect();
        prop_assert_eq!(events(&left), expected.into_iter().map(|(event, _)| event).collect::<Vec<_>>());
    }

    #[test]
    fn a_range_is_appended_whole(
        keys in prop::collection::vec("[a-e]{0,3}", 1..50),
        at in any::<prop::sample::Index>(),
        count in 0..50usize,
    ) {
        let all = batch(&keys);
        let from = at.index(keys.len());
        let to = (from + count).min(keys.len());
        let mut copy = all.clone();
        copy.rows.extend_from_slice(&all.rows[from..to]);
        copy.columns.push_range(&all.columns, from..to);
        let mut expected = events(&all);
        expected.extend_from_within(from..to);
        prop_assert_eq!(events(&copy), expected);
    }
}

#[test]
fn a_key_that_cannot_be_encoded_leaves_no_trace() {
    let mut keys = KeyColumn::default();
    let written = keys.push_with(|out| {
        out.extend_from_slice(b"one");
        Ok::<_, &str>(())
    });
    assert_eq!(written, Ok(()));
    let failed = keys.push_with(|out| {
        out.extend_from_slice(b"half");
        Err("no")
    });
    assert_eq!(failed, Err("no"));
    keys.push(b"two", 2);
    assert_eq!((keys.len(), keys.key(0), keys.key(1)), (2, &b"one"[..], &b"two"[..]));
}

#[test]
#[should_panic(expected = "the graph joins only steps whose row types agree")]
fn rows_of_another_type_are_a_bug() {
    Frame::from(batch(&["a".to_owned()])).into_batch::<u64>();
}
