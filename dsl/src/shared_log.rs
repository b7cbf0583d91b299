//! The log that the flows of a processor share, and open anew when one of them failed on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lotic_engine::embedded::EmbeddedLog;
use lotic_engine::error::Result;
use lotic_engine::event_log::EventLog;
use lotic_engine::processor::OpenLog;
use lotic_log::{Clock, Durability, Log, LogOptions};
use parking_lot::Mutex;

/// An open log, and how to open it again.
pub(crate) struct SharedLog {
    directory: PathBuf,
    durability: Durability,
    clock: Arc<dyn Clock>,
    present: Mutex<Opened>,
}

/// The log as it was opened the `generation`th time.
#[derive(Clone)]
struct Opened {
    log: Log,
    generation: u64,
}

impl SharedLog {
    pub(crate) fn open(directory: &Path, durability: Durability, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let log = open(directory, durability, &clock)?;
        let present = Mutex::new(Opened { log, generation: 0 });
        Ok(Arc::new(Self { directory: directory.to_owned(), durability, clock, present }))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The log as it is open now.
    pub(crate) fn log(&self) -> Log {
        self.present.lock().log.clone()
    }

    /// Gives each attempt of a flow a hold on the log. An attempt that follows a failed one gets a log that
    /// was opened since: a failed write or an unknown outcome is settled by recovery only.
    pub(crate) fn holds(self: &Arc<Self>, flow: &str) -> OpenLog {
        let (shared, flow) = (Arc::clone(self), flow.to_owned());
        let mut used = None;
        Box::new(move || {
            let opened = match used {
                None => shared.present.lock().clone(),
                Some(generation) => shared.newer_than(generation)?,
            };
            used = Some(opened.generation);
            Ok(EmbeddedLog::new(opened.log, &flow) as Arc<dyn EventLog>)
        })
    }

    /// The log as it was opened after `generation`: by another flow that failed, or else now.
    fn newer_than(&self, generation: u64) -> Result<Opened> {
        let mut present = self.present.lock();
        if present.generation == generation {
            if let Err(error) = present.log.close() {
                tracing::warn!(%error, "the log that a flow failed on was not closed well; it recovers");
            }
            present.log = open(&self.directory, self.durability, &self.clock)?;
            present.generation += 1;
        }
        Ok(present.clone())
    }
}

fn open(directory: &Path, durability: Durability, clock: &Arc<dyn Clock>) -> Result<Log> {
    let options = LogOptions { clock: Arc::clone(clock), durability, ..LogOptions::disk()? };
    Ok(Log::open(directory, options)?)
}
