//! A system outside the log that shows totals, in two phases. It outlives the processor, and whatever it has
//! taken it keeps: what it shows of epochs that a power cut has taken is known to be of no flow any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use lotic_engine::epoch::Epoch;
use lotic_engine::error::Result;
use lotic_engine::frame::Batch;
use lotic_engine::operator::StepPlace;
use lotic_engine::sink::{Guarantee, Sink, SinkFactory};
use lotic_engine::window::Windowed;
use parking_lot::Mutex;

/// A row of it.
pub type Total = (Windowed<u32>, i64);

/// What is shown, and what is prepared to be.
#[derive(Clone, Default)]
pub struct Shown(Arc<Mutex<Target>>);

#[derive(Default)]
struct Target {
    /// By epoch and worker.
    prepared: BTreeMap<(Epoch, usize), Vec<Total>>,
    shown: Vec<(Epoch, Total)>,
    /// The newest epoch of which something is shown that was not taken back.
    newest: Epoch,
    /// How often the log had gone back behind what was shown.
    times_orphaned: usize,
}

impl Target {
    fn show(&mut self, place: (Epoch, usize)) {
        let rows = self.prepared.remove(&place).unwrap_or_default();
        self.shown.extend(rows.into_iter().map(|row| (place.0, row)));
        self.newest = self.newest.max(place.0);
    }

    /// The log ends with `last`: what is shown of later epochs never was.
    fn orphan_behind(&mut self, last: Epoch) {
        if self.newest > last {
            self.shown.retain(|(epoch, _)| *epoch <= last);
            self.newest = last;
            self.times_orphaned += 1;
        }
    }
}

impl Shown {
    /// What is shown of epochs that there are, by `start|account`.
    pub fn totals(&self) -> BTreeMap<String, Vec<i64>> {
        let mut totals: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, (window, sum)) in &self.0.lock().shown {
            totals.entry(format!("{}|{}", window.start, window.key)).or_default().push(*sum);
        }
        totals
    }

    /// The newest epoch of which something is shown that was not taken back.
    pub fn newest(&self) -> Epoch {
        self.0.lock().newest
    }

    /// How often the log was found to have gone back behind what was shown.
    pub fn times_orphaned(&self) -> usize {
        self.0.lock().times_orphaned
    }
}

impl SinkFactory<Total> for Shown {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn recover(&self, _: StepPlace<'_>, last: Epoch) -> Result<()> {
        let mut target = self.0.lock();
        target.orphan_behind(last);
        target.prepared.split_off(&(last.next(), 0));
        let finished: Vec<_> = target.prepared.keys().copied().collect();
        finished.into_iter().for_each(|place| target.show(place));
        Ok(())
    }

    fn open(&self, _: StepPlace<'_>, worker: usize) -> Result<Box<dyn Sink<Total>>> {
        Ok(Box::new(Writer { target: Arc::clone(&self.0), worker, written: Vec::new() }))
    }
}

struct Writer {
    target: Arc<Mutex<Target>>,
    worker: usize,
    written: Vec<Total>,
}

impl Sink<Total> for Writer {
    fn write(&mut self, batch: Batch<Total>) -> Result<()> {
        self.written.extend(batch.rows);
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<()> {
        let written = std::mem::take(&mut self.written);
        self.target.lock().prepared.insert((epoch, self.worker), written);
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<()> {
        self.target.lock().show((epoch, self.worker));
        Ok(())
    }
}
