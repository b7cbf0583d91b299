//! Records that wait for the table to reach their time.
//!
//! Store: group, table partition (`i32` BE), time (8 bytes that sort as times), key length (`u32` BE),
//! encoded key, origin (source `u32`, partition `i32`, offset `i64`, BE), number (epoch `u64`, place in it
//! `u32`, BE); the record's own watermark (`i64` BE), then its row. The number tells apart what has the same
//! origin, time and key, as rows that were made of one record do: it is never given twice, since nothing is
//! left of an epoch that is run again. In memory there is only the earliest time of each group and partition.

use std::sync::Arc;

use lotic_log::{Offset, PartitionId, Timestamp};

use crate::codec::{Codec, CodecError, CodecId};
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Data, NO_WATERMARK, Origin};
use crate::key_group::{KEY_GROUPS, KeyGroup};
use crate::state::keys::{GROUP_BYTES, group_of, time_bytes, time_from, write_key};
use crate::state::{ChangelogWriter, KeyedState, Stretch, Visit};

/// The source of a record that came without an origin.
const NO_SOURCE: u32 = u32::MAX;

/// The time of the earliest record where there is none.
const NOBODY: Timestamp = Timestamp(i64::MAX);

const PARTITION_END: usize = GROUP_BYTES + 4;
const TIME_END: usize = PARTITION_END + 8;
const KEY_START: usize = TIME_END + 4;
const ORIGIN_BYTES: usize = 16;
const NUMBER_BYTES: usize = 12;

/// What waits, besides what its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting<V> {
    pub(super) watermark: Timestamp,
    pub(super) row: V,
}

/// The place of a waiting record.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) group: KeyGroup,
    pub(super) time: Timestamp,
    pub(super) key: &'a [u8],
    pub(super) origin: Option<Origin>,
}

/// The waiting records of one worker.
pub(super) struct WaitingRoom<V> {
    pub(super) store: KeyedState<Waiting<V>>,
    groups: Vec<KeyGroup>,
    partitions: Vec<Partition>,
    /// The running epoch, and how many have come in it.
    epoch: Epoch,
    entered: u32,
    key: Vec<u8>,
}

/// Who waits for one partition of the table.
struct Partition {
    watermark: Timestamp,
    /// By key group.
    earliest: Vec<Timestamp>,
    least: Timestamp,
    /// The first of those who stayed when some of their group were let go: what lies before it is removed,
    /// and is not passed over again.
    stayed: Option<Vec<u8>>,
}

impl<V: Data> WaitingRoom<V> {
    /// The records that wait for a table of so many partitions, as the store has them after `last`.
    pub(super) fn open(
        store: KeyedState<Waiting<V>>,
        groups: Vec<KeyGroup>,
        partitions: usize,
        last: Epoch,
    ) -> Result<Self> {
        let nobody = || Partition {
            watermark: NO_WATERMARK,
            earliest: vec![NOBODY; usize::from(KEY_GROUPS)],
            least: NOBODY,
            stayed: None,
        };
        let partitions = (0..partitions).map(|_| nobody()).collect();
        let mut room = Self { store, groups, partitions, epoch: last.next(), entered: 0, key: Vec::new() };
        for index in 0..room.groups.len() {
            room.find_earliest(room.groups[index])?;
        }
        Ok(room)
    }

    /// The watermark of a partition of the table.
    pub(super) fn watermark(&self, partition: usize) -> Timestamp {
        self.partitions[partition].watermark
    }

    /// The table's partition has come so far.
    pub(super) fn raise(&mut self, partition: usize, watermark: Timestamp) {
        let held = &mut self.partitions[partition].watermark;
        *held = watermark.max(*held);
    }

    /// The least time that somebody waits for.
    pub(super) fn least(&self) -> Timestamp {
        self.partitions.iter().map(|partition| partition.least).min().unwrap_or(NOBODY)
    }

    /// Lets a record wait for a partition.
    pub(super) fn enter(&mut self, partition: usize, place: Place<'_>, waiting: Waiting<V>) {
        let number = i32::try_from(partition).expect("partitions are counted as i32");
        self.set_key(number, place);
        self.entered = self.entered.checked_add(1).expect("an epoch's changes fit into memory");
        self.store.put_new(&self.key, waiting);
        let partition = &mut self.partitions[partition];
        partition.stayed.take_if(|stayed| group_of(stayed) == place.group && self.key < *stayed);
        let earliest = &mut partition.earliest[usize::from(place.group.0)];
        *earliest = place.time.min(*earliest);
        partition.least = place.time.min(partition.least);
    }

    /// This epoch is over.
    pub(super) fn freeze(
        &mut self,
        epoch: Epoch,
        time: Timestamp,
        writer: &mut impl ChangelogWriter,
    ) -> Result<()> {
        (self.epoch, self.entered) = (epoch.next(), 0);
        self.store.freeze(epoch, time, writer)
    }

    /// Takes out those who wait for a partition and a time before `until`, `rows_max` of them at most.
    /// Whether these were all.
    pub(super) fn leave(
        &mut self,
        partition: usize,
        until: Timestamp,
        rows_max: usize,
        left: &mut Vec<(Vec<u8>, Waiting<V>)>,
    ) -> Result<bool> {
        let held = &mut self.partitions[partition];
        if held.least >= until {
            return Ok(true);
        }
        let number = i32::try_from(partition).expect("partitions are counted as i32");
        let bounds_of = |group: KeyGroup| {
            let from = time_start(group, number, held.earliest[usize::from(group.0)]);
            let stayed = held.stayed.as_deref().filter(|stayed| group_of(stayed) == group);
            let from = stayed.unwrap_or_default().max(&from[..]).to_vec();
            (from, partition_start(group, number + 1))
        };
        let due = self.groups.iter().filter(|group| held.earliest[usize::from(group.0)] < until);
        let due: Vec<_> = due.map(|&group| (group, bounds_of(group))).collect();
        let stretches: Vec<_> = due.iter().map(|(_, (from, end))| Stretch::all(from, end)).collect();
        // Of each group that was come to, who is the next to leave.
        let mut next: Vec<_> = due.iter().map(|_| NOBODY).collect();
        let mut come_to = due.len();
        self.store.scan_many(&stretches, |index, key, waiting, _| {
            let time = time_in(key);
            if time < until && left.len() < rows_max {
                left.push((key.to_vec(), waiting.clone()));
                return Visit::More;
            }
            next[index] = time;
            held.stayed = Some(key.to_vec());
            if time >= until {
                return Visit::Stop;
            }
            come_to = index + 1;
            Visit::End
        })?;
        let all = next.iter().all(|next| *next >= until);
        for (&(group, _), next) in due.iter().zip(next).take(come_to) {
            held.earliest[usize::from(group.0)] = next;
        }
        held.least = held.earliest.iter().copied().min().unwrap_or(NOBODY);
        left.iter().for_each(|(key, _)| self.store.remove(key));
        Ok(all)
    }

    fn set_key(&mut self, partition: i32, place: Place<'_>) {
        let nowhere = Origin { source: NO_SOURCE, partition: PartitionId(0), offset: Offset(0) };
        let origin = place.origin.unwrap_or(nowhere);
        let length = u32::try_from(place.key.len()).expect("a key is shorter than 4 GiB").to_be_bytes();
        self.key.clear();
        write_key(
            &mut self.key,
            place.group,
            &[
                &partition.to_be_bytes(),
                &time_bytes(place.time),
                &length,
                place.key,
                &origin.source.to_be_bytes(),
                &origin.partition.0.to_be_bytes(),
                &origin.offset.0.to_be_bytes(),
                &self.epoch.0.to_be_bytes(),
                &self.entered.to_be_bytes(),
            ],
        );
    }

    /// Reads, for every partition, the earliest record of a group.
    fn find_earliest(&mut self, group: KeyGroup) -> Result<()> {
        let mut partition = 0;
        loop {
            let mut found = None;
            self.store.scan(&partition_start(group, partition), &(group.0 + 1).to_be_bytes(), |key, _| {
                found = Some((partition_in(key), time_in(key)));
                Visit::Stop
            })?;
            let Some((number, time)) = found else { return Ok(()) };
            let Some(held) = usize::try_from(number).ok().and_then(|index| self.partitions.get_mut(index))
            else {
                let what = format!(
                    "a record waits for partition {number} of a table of {} partitions",
                    self.partitions.len()
                );
                return Err(Error::new(ErrorKind::Incompatible, what));
            };
            held.earliest[usize::from(group.0)] = time;
            held.least = time.min(held.least);
            partition = number + 1;
        }
    }
}

/// The place that a backend key names.
pub(super) fn place_in(backend_key: &[u8]) -> Place<'_> {
    let key_end = backend_key.len() - ORIGIN_BYTES - NUMBER_BYTES;
    let (key, origin) = (&backend_key[KEY_START..key_end], &backend_key[key_end..]);
    let source = u32::from_be_bytes(*origin.first_chunk().expect("an origin has 16 bytes"));
    let partition = i32::from_be_bytes(*origin[4..].first_chunk().expect("an origin has 16 bytes"));
    let offset = i64::from_be_bytes(*origin[8..].first_chunk().expect("an origin has 16 bytes"));
    let origin = Origin { source, partition: PartitionId(partition), offset: Offset(offset) };
    Place {
        group: group_of(backend_key),
        time: time_in(backend_key),
        key,
        origin: (source != NO_SOURCE).then_some(origin),
    }
}

fn partition_start(group: KeyGroup, partition: i32) -> [u8; PARTITION_END] {
    let mut key = [0; PARTITION_END];
    key[..GROUP_BYTES].copy_from_slice(&group.0.to_be_bytes());
    key[GROUP_BYTES..].copy_from_slice(&partition.to_be_bytes());
    key
}

fn time_start(group: KeyGroup, partition: i32, time: Timestamp) -> [u8; TIME_END] {
    let mut key = [0; TIME_END];
    key[..PARTITION_END].copy_from_slice(&partition_start(group, partition));
    key[PARTITION_END..].copy_from_slice(&time_bytes(time));
    key
}

fn partition_in(backend_key: &[u8]) -> i32 {
    i32::from_be_bytes(backend_key[GROUP_BYTES..PARTITION_END].try_into().expect("four bytes"))
}

fn time_in(backend_key: &[u8]) -> Timestamp {
    time_from(backend_key[PARTITION_END..TIME_END].try_into().expect("eight bytes"))
}

/// The watermark in front of the row.
pub(super) struct WaitingCodec<V>(pub(super) Arc<dyn Codec<V>>);

impl<V: Data> Codec<Waiting<V>> for WaitingCodec<V> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, waiting: &Waiting<V>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&waiting.watermark.0.to_be_bytes());
        self.0.encode(&waiting.row, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Waiting<V>, CodecError> {
        let Some((watermark, row)) = bytes.split_first_chunk() else {
            return Err(CodecError::new("a waiting record begins with eight bytes of watermark"));
        };
        Ok(Waiting { watermark: Timestamp(i64::from_be_bytes(*watermark)), row: self.0.decode(row)? })
    }
}
