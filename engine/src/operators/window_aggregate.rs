//! Tumbling windows of event time, aggregated by key.
//!
//! A record is late for its window when the record's *own* watermark has reached the window's end plus
//! grace; the operator's watermark is never ahead of it, so a record in time always finds its window. A
//! window emits once, when the operator's watermark reaches that point, and is gone. At the end of the
//! input open windows emit what they have and stay: a record that comes later still finds them, and a
//! window that has not changed since it emitted stays silent.
//!
//! Store: group, window start (8 bytes that sort as times), encoded key; a flag (1: emitted as it is), then
//! the aggregate's state. In memory there are only the earliest and the latest window of each key group.

use std::marker::PhantomData;
use std::sync::Arc;

use lotic_log::{Timestamp, murmur2};

use super::hold::held_back;
use super::select::split_late;
use crate::aggregate::Aggregate;
use crate::codec::{Codec, CodecError, CodecId};
use crate::epoch::Epoch;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Batch, Data, Frame};
use crate::key_group::{KEY_GROUPS, KeyGroup};
use crate::message::Watermark;
use crate::operator::{Context, OpenContext, Operator, OperatorFactory, Progress, operator_factory};
use crate::state::keys::{GROUP_BYTES, group_of, time_bytes, time_from};
use crate::state::{KeyedState, Keys, Slot, StoreOrder, Stretch, Visit};
use crate::window::{WindowSpec, Windowed};

/// The port of results.
const RESULTS: usize = 0;
/// The port of late records.
const LATE: usize = 1;

/// Where the encoded key begins in a backend key.
const KEY_START: usize = GROUP_BYTES + 8;

/// The start of a window that is not there.
const NO_WINDOW: Timestamp = Timestamp(i64::MAX);

/// Aggregates `(K, V)` by key and window. Port 0 emits `(Windowed<K>, result)`, still keyed by `K`, at the
/// window's last millisecond; port 1 the `(K, V)` that came too late.
///
/// # Panics
/// If the window's size is not positive or its grace is negative.
pub fn window_aggregate<K, V, A>(
    store: &str,
    spec: WindowSpec,
    aggregate: Arc<A>,
    state_codec: Arc<dyn Codec<A::State>>,
    key_codec: Arc<dyn Codec<K>>,
) -> Arc<dyn OperatorFactory>
where
    K: Data,
    V: Data,
    A: Aggregate<V>,
{
    assert!(spec.size_ms > 0 && spec.grace_ms >= 0, "a window has a size, and grace is not negative");
    let store = store.to_owned();
    let codec: Arc<dyn Codec<Window<A::State>>> = Arc::new(WindowCodec(state_codec));
    operator_factory(move |context| {
        let state = context.state.store(&store, codec.clone(), StoreOrder::Sorted)?;
        WindowAggregate::<K, V, A>::open(spec, aggregate.clone(), key_codec.clone(), state, context)
    })
}

struct WindowAggregate<K, V, A: Aggregate<V>> {
    spec: WindowSpec,
    aggregate: Arc<A>,
    key_codec: Arc<dyn Codec<K>>,
    state: KeyedState<Window<A::State>>,
    open: OpenWindows,
    frame_rows_max: usize,
    /// Where [`Operator::end`] goes on.
    end_from: Option<Vec<u8>>,
    /// The keys of one frame, and their entries; kept for their memory.
    keys: Keys,
    slots: Vec<Slot>,
    values: PhantomData<fn(V)>,
}

/// One key's window.
#[derive(Clone)]
struct Window<S> {
    state: S,
    /// Whether the state was emitted as it is.
    emitted: bool,
}

impl<K: Data, V: Data, A: Aggregate<V>> WindowAggregate<K, V, A> {
    fn open(
        spec: WindowSpec,
        aggregate: Arc<A>,
        key_codec: Arc<dyn Codec<K>>,
        state: KeyedState<Window<A::State>>,
        context: &OpenContext<'_>,
    ) -> Result<Self> {
        let mut open = OpenWindows::new(KeyGroup::owned_by(context.worker, context.workers).collect());
        for index in 0..open.groups.len() {
            let group = open.groups[index];
            let mut earliest = None;
            state.scan(&group_start(group), &group_end(group), |key, _| {
                earliest = Some(start_in(key));
                Visit::Stop
            })?;
            if let Some(earliest) = earliest {
                open.note(group, earliest);
            }
            state.last_before(&group_start(group), &group_end(group), |key, _| {
                open.note_stored(group, start_in(key));
            })?;
        }
        Ok(Self {
            spec,
            aggregate,
            key_codec,
            state,
            open,
            frame_rows_max: context.frame_rows_max,
            end_from: None,
            keys: Keys::default(),
            slots: Vec::new(),
            values: PhantomData,
        })
    }

    fn add(&mut self, batch: Batch<(K, V)>) -> Result<()> {
        self.keys.clear();
        for (index, &time) in batch.columns.times.iter().enumerate() {
            let keys = &batch.columns.keys;
            let (group, start) = (keys.group(index), self.spec.start_of(time));
            self.keys.push(group, &[&time_bytes(start), keys.key(index)]);
            self.open.note(group, start);
        }
        let (keys, times) = (&batch.columns.keys, &batch.columns.times);
        self.state.resolve_where(&self.keys, &mut self.slots, |index| {
            self.open.may_be_stored(keys.group(index), self.spec.start_of(times[index]))
        })?;
        for ((_, value), &slot) in batch.rows.iter().zip(&self.slots) {
            let window = self
                .state
                .value_mut(slot)
                .get_or_insert_with(|| Window { state: self.aggregate.init(), emitted: false });
            self.aggregate.add(&mut window.state, value);
            window.emitted = false;
        }
        Ok(())
    }

    /// Emits and removes the windows that begin before `until`, a frame of them at most.
    fn close(&mut self, until: Timestamp, context: &mut Context<'_>) -> Result<Progress> {
        let mut results = Results::new(self.spec, &*self.key_codec);
        self.keys.clear();
        let due = self.open.groups.iter().filter(|&&group| self.open.earliest(group) < until);
        let due: Vec<_> = due.map(|&group| (group, self.open.from(group), group_end(group))).collect();
        let stretches: Vec<_> = due.iter().map(|(_, from, end)| Stretch::all(from, end)).collect();
        // Of each group that was come to, the earliest that stays.
        let mut next: Vec<_> = due.iter().map(|_| NO_WINDOW).collect();
        let (mut come_to, mut stayed) = (due.len(), None);
        self.state.scan_many(&stretches, |index, key, window, _| {
            let start = start_in(key);
            if start < until && self.keys.len() < self.frame_rows_max {
                self.keys.push_whole(key);
                if !window.emitted {
                    results.push(key, self.aggregate.result(&window.state));
                }
                return Visit::More;
            }
            next[index] = start;
            if start >= until {
                return Visit::Stop;
            }
            (come_to, stayed) = (index + 1, Some(key.to_vec()));
            Visit::End
        })?;
        let progress = if stayed.is_some() { Progress::More } else { Progress::Done };
        for (&(group, ..), next) in due.iter().zip(next).take(come_to) {
            self.open.earliest[usize::from(group.0)] = next;
        }
        self.open.stayed = stayed;
        self.open.find_least();
        self.keys.iter().for_each(|key| self.state.remove(key));
        context.emit(RESULTS, results.finish()?.into());
        Ok(progress)
    }

    /// Emits open windows that changed since they emitted, a frame of them at most, and keeps them.
    fn emit_open(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        let mut results = Results::new(self.spec, &*self.key_codec);
        let from = self.end_from.take().unwrap_or_default();
        self.keys.clear();
        let groups = self.open.groups.iter().filter(|&&group| self.open.earliest(group) < NO_WINDOW);
        let bounds: Vec<_> =
            groups.map(|&group| (self.open.from(group).max(from.clone()), group_end(group))).collect();
        let stretches: Vec<_> = bounds.iter().map(|(from, end)| Stretch::all(from, end)).collect();
        self.state.scan_many(&stretches, |_, key, window, _| {
            if self.keys.len() == self.frame_rows_max {
                self.end_from = Some(key.to_vec());
                return Visit::End;
            }
            if !window.emitted {
                self.keys.push_whole(key);
                results.push(key, self.aggregate.result(&window.state));
            }
            Visit::More
        })?;
        let results = results.finish()?;
        self.state.resolve(&self.keys, &mut self.slots)?;
        for &slot in &self.slots {
            let window = self.state.value_mut(slot).as_mut().expect("the scan found this window");
            window.emitted = true;
        }
        context.emit(RESULTS, results.into());
        Ok(if self.end_from.is_some() { Progress::More } else { Progress::Done })
    }
}

impl<K: Data, V: Data, A: Aggregate<V>> Operator for WindowAggregate<K, V, A> {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        let spec = self.spec;
        let (batch, late) = split_late(frame.into_batch::<(K, V)>(), |columns, index| {
            columns.watermarks[index] >= spec.closes_at(spec.start_of(columns.times[index]))
        });
        if let Some(late) = late {
            context.counters.late.add(late.rows.len() as u64);
            context.emit(LATE, late.into());
        }
        self.add(batch)
    }

    fn advance(
        &mut self,
        _input: usize,
        watermark: Watermark,
        context: &mut Context<'_>,
    ) -> Result<Progress> {
        // A window takes records of all partitions.
        if watermark.partition.is_some() {
            return Ok(Progress::Done);
        }
        let until = self.spec.first_open(watermark.time);
        if self.open.least < until && self.close(until, context)? == Progress::More {
            return Ok(Progress::More);
        }
        // What is still open ends behind the watermark less grace.
        let time = held_back(watermark.time, self.spec.grace_ms);
        context.forward_watermark(Watermark { partition: None, time });
        Ok(Progress::Done)
    }

    fn end(&mut self, context: &mut Context<'_>) -> Result<Progress> {
        self.emit_open(context)
    }

    fn barrier(&mut self, epoch: Epoch, context: &mut Context<'_>) -> Result<()> {
        self.open.note_all_stored();
        self.state.freeze(epoch, context.processing_time, context.writer)
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.state.committed(epoch)
    }
}

/// Which windows there can be in each key group.
struct OpenWindows {
    groups: Vec<KeyGroup>,
    /// The start of the earliest open window: where a scan for closed ones begins, so that it does not pass
    /// over what was removed.
    earliest: Vec<Timestamp>,
    least: Timestamp,
    /// The first window that stayed when others of its group and start were closed: what lies before it in
    /// its group is removed, and is not passed over again.
    stayed: Option<Vec<u8>>,
    /// The start of the latest window that there was.
    latest: Vec<Timestamp>,
    /// The same at the last barrier: later windows are in memory or new, and the backend need not be asked.
    latest_stored: Vec<Timestamp>,
}

impl OpenWindows {
    fn new(groups: Vec<KeyGroup>) -> Self {
        let of_each = |time| vec![time; usize::from(KEY_GROUPS)];
        Self {
            groups,
            earliest: of_each(NO_WINDOW),
            least: NO_WINDOW,
            stayed: None,
            latest: of_each(Timestamp(i64::MIN)),
            latest_stored: of_each(Timestamp(i64::MIN)),
        }
    }

    fn note_stored(&mut self, group: KeyGroup, start: Timestamp) {
        let group = usize::from(group.0);
        self.latest[group] = start.max(self.latest[group]);
        self.latest_stored[group] = self.latest[group];
    }

    fn note_all_stored(&mut self) {
        self.latest_stored.copy_from_slice(&self.latest);
    }

    #[inline]
    fn may_be_stored(&self, group: KeyGroup, start: Timestamp) -> bool {
        start <= self.latest_stored[usize::from(group.0)]
    }

    fn earliest(&self, group: KeyGroup) -> Timestamp {
        self.earliest[usize::from(group.0)]
    }

    #[inline]
    fn note(&mut self, group: KeyGroup, start: Timestamp) {
        let latest = &mut self.latest[usize::from(group.0)];
        *latest = start.max(*latest);
        let earliest = &mut self.earliest[usize::from(group.0)];
        if start < *earliest {
            *earliest = start;
            self.least = self.least.min(start);
        }
        if self.stayed.is_some() {
            self.forget_stayed(group, start);
        }
    }

    /// A window of this start may be behind what was removed, or before it.
    #[cold]
    fn forget_stayed(&mut self, group: KeyGroup, start: Timestamp) {
        self.stayed.take_if(|stayed| group_of(stayed) == group && start <= start_in(stayed));
    }

    /// From where on there can be windows of a group.
    fn from(&self, group: KeyGroup) -> Vec<u8> {
        let stayed = self.stayed.as_deref().filter(|stayed| group_of(stayed) == group);
        stayed.unwrap_or_default().max(&window_start(group, self.earliest(group))[..]).to_vec()
    }

    /// To be called once windows were closed.
    fn find_least(&mut self) {
        self.least = self.earliest.iter().copied().min().unwrap_or(NO_WINDOW);
    }
}

/// Gathers the results of windows.
struct Results<'a, K, O> {
    spec: WindowSpec,
    key_codec: &'a dyn Codec<K>,
    batch: Batch<(Windowed<K>, O)>,
    failed: Option<Error>,
}

impl<'a, K: Data, O: Data> Results<'a, K, O> {
    fn new(spec: WindowSpec, key_codec: &'a dyn Codec<K>) -> Self {
        Self { spec, key_codec, batch: Batch::default(), failed: None }
    }

    fn push(&mut self, backend_key: &[u8], result: O) {
        let start = start_in(backend_key);
        let end = self.spec.end_of(start);
        let key_bytes = &backend_key[KEY_START..];
        match self.key_codec.decode(key_bytes) {
            Ok(key) => self.batch.rows.push((Windowed { key, start, end }, result)),
            Err(error) => {
                let what = format!("the key of the window that begins at {start} cannot be read");
                self.failed = Some(Error::caused(ErrorKind::Corrupt, what, error));
                return;
            }
        }
        // Made by a timer: it happens at the window's last millisecond and is never late downstream.
        let time = Timestamp(end.0.saturating_sub(1));
        let columns = &mut self.batch.columns;
        columns.times.push(time);
        columns.watermarks.push(Timestamp(time.0.saturating_sub(1)));
        columns.keys.push(key_bytes, murmur2(key_bytes) as u32);
    }

    fn finish(self) -> Result<Batch<(Windowed<K>, O)>> {
        self.failed.map_or(Ok(self.batch), Err)
    }
}

fn group_start(group: KeyGroup) -> [u8; GROUP_BYTES] {
    group.0.to_be_bytes()
}

fn group_end(group: KeyGroup) -> [u8; GROUP_BYTES] {
    (group.0 + 1).to_be_bytes()
}

fn window_start(group: KeyGroup, start: Timestamp) -> [u8; KEY_START] {
    let mut key = [0; KEY_START];
    key[..GROUP_BYTES].copy_from_slice(&group.0.to_be_bytes());
    key[GROUP_BYTES..].copy_from_slice(&time_bytes(start));
    key
}

fn start_in(backend_key: &[u8]) -> Timestamp {
    time_from(backend_key[GROUP_BYTES..KEY_START].try_into().expect("every key holds a window's start"))
}

/// A flag in front of the aggregate's state.
struct WindowCodec<S>(Arc<dyn Codec<S>>);

impl<S: Data> Codec<Window<S>> for WindowCodec<S> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, window: &Window<S>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(u8::from(window.emitted));
        self.0.encode(&window.state, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Window<S>, CodecError> {
        match bytes.split_first() {
            Some((&flag @ 0..=1, state)) => Ok(Window { state: self.0.decode(state)?, emitted: flag == 1 }),
            _ => Err(CodecError::new("a window's first byte is 0 or 1")),
        }
    }
}

#[cfg(test)]
mod tests;
