use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::{Catalogue, CatalogueEntry, DeletedTopic, FILE_NAME, text};
use crate::ErrorKind;
use crate::batch::{Compression, TimestampType};
use crate::cleanup::CleanupPolicy;
use crate::partition::Durability;
use crate::record::TopicId;
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenMode, Storage, SyncPurpose};
use crate::topic::TopicConfig;

fn catalogues() -> impl Strategy<Value = Catalogue> {
    let durability = prop_oneof![
        Just(None),
        Just(Some(Durability::Sync)),
        Just(Some(Durability::Os)),
        (0..100_000u64)
            .prop_map(|milliseconds| Some(Durability::Interval(Duration::from_millis(milliseconds)))),
    ];
    let compression = prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        Just(Compression::Snappy),
        (1..10).prop_map(|level| Compression::Gzip { level }),
        (1..22).prop_map(|level| Compression::Zstd { level }),
    ];
    let words = [prop::option::of("[!-~]{1,12}"), prop::option::of("[!-~]{1,12}")];
    let config = (1..100i32, any::<[bool; 3]>(), durability, compression, 128..1u64 << 31, words);
    let config = config.prop_map(
        |(
            partitions,
            [compacts, has_gaps, is_append_time],
            durability,
            compression,
            segment_bytes,
            [key_format, owner],
        )| {
            TopicConfig {
                partitions,
                cleanup: if compacts { CleanupPolicy::Compact } else { CleanupPolicy::Delete },
                durability,
                compression,
                segment_bytes,
                has_gaps,
                timestamp_type: if is_append_time { TimestampType::LogAppend } else { TimestampType::Create },
                key_format,
                owner,
                ..TopicConfig::default()
            }
        },
    );
    let entry = (any::<u128>(), config)
        .prop_map(|(id, config)| CatalogueEntry { id: TopicId(Uuid::from_u128(id)), config });
    let name = "[a-zA-Z0-9._-]{3,20}";
    let topics = prop::collection::btree_map(name, entry, 0..5);
    let deleted = (any::<u128>(), 1..9i32)
        .prop_map(|(id, partitions)| DeletedTopic { id: TopicId(Uuid::from_u128(id)), partitions });
    (topics, prop::collection::btree_map(name, deleted, 0..3), 0..i64::MAX, any::<u64>()).prop_map(
        |(topics, deleting, producer_ids_end, topics_made)| Catalogue {
            topics,
            deleting,
            producer_ids_end,
            topics_made,
        },
    )
}

proptest! {
    #[test]
    fn a_catalogue_is_read_as_it_was_written(catalogue in catalogues()) {
        prop_assert_eq!(text::decode(text::encode(&catalogue).as_bytes()).unwrap(), catalogue);
    }

    #[test]
    fn a_catalogue_that_is_cut_off_or_changed_is_refused(
        catalogue in catalogues(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let whole = text::encode(&catalogue).into_bytes();
        let at = at.index(whole.len());
        prop_assert!(text::decode(&whole[..at]).is_err());
        let mut changed = whole.clone();
        changed[at] ^= 1 << bit;
        // The newline at the end is not covered by the checksum, nor needed.
        prop_assert!(at + 1 == whole.len() || text::decode(&changed).is_err());
    }
}

#[test]
fn a_later_version_is_named() {
    let error = text::decode(b"lotic-catalogue 2\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_level_of_compression_that_there_is_not_is_read_as_the_nearest_one() {
    let with = |compression| {
        let config = TopicConfig { compression, ..TopicConfig::default() };
        let entry = CatalogueEntry { id: TopicId(Uuid::from_u128(7)), config };
        Catalogue { topics: [("t".to_owned(), entry)].into(), ..Catalogue::default() }
    };
    let stored = text::encode(&with(Compression::Zstd { level: 99 }));
    assert_eq!(text::decode(stored.as_bytes()).unwrap(), with(Compression::Zstd { level: 22 }));
}

#[test]
fn after_a_crash_at_any_operation_the_catalogue_is_the_old_or_the_new_one() {
    let directory = Path::new("/log");
    let old = Catalogue { topics_made: 1, ..Catalogue::default() };
    let new = Catalogue { topics_made: 2, producer_ids_end: 5, ..Catalogue::default() };
    for seed in 0..50 {
        for operation in 0..10 {
            let storage = MemoryStorage::new(seed);
            storage.create_dir_all(directory).unwrap();
            storage.sync_dir(Path::new("/"), SyncPurpose::Directory).unwrap();
            old.write(&*storage, directory).unwrap();
            storage.fail_after(operation);
            let written = new.write(&*storage, directory);
            storage.clear_faults();
            storage.crash();
            let found = Catalogue::read(&*storage, directory).unwrap().unwrap();
            assert!(found == new || (found == old && written.is_err()), "seed {seed}, operation {operation}");
            old.write(&*storage, directory).unwrap();
        }
    }
}

#[test]
fn an_error_names_the_file() {
    let storage = MemoryStorage::new(1);
    let file = storage.open(&Path::new("/").join(FILE_NAME), OpenMode::Create).unwrap();
    file.write_at(0, b"lotic-catalogue 1\nproducer-ids x\ncrc32 00000000\n").unwrap();
    let error = Catalogue::read(&*storage, Path::new("/")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().starts_with("/catalogue: "), "{error}");
}
