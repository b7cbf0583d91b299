//! SIGTERM and SIGINT: how a process is told to end.
//!
//! ```text
//!   a processor or a run is there: noted, for all that run and all that start later
//!   none is:                       what it does by default, which is to end the process
//! ```
//!
//! The handlers are registered once and stay: taking one away would not bring the default back. So a signal between
//! two flows of a program is noted too, and the second one is not begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lotic_engine::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static STATE: Mutex<State> = Mutex::new(State { flags: None, listeners: 0 });

struct State {
    /// Made with the first listener.
    flags: Option<Flags>,
    listeners: usize,
}

/// What the handlers read and write.
#[derive(Clone, Default)]
struct Flags {
    has_come: Arc<AtomicBool>,
    nobody_listens: Arc<AtomicBool>,
}

impl Flags {
    fn register() -> Result<Self> {
        let flags = Self::default();
        for signal in [SIGTERM, SIGINT] {
            // In this order: a signal that nobody listens to ends the process before it is noted.
            flag::register_conditional_default(signal, Arc::clone(&flags.nobody_listens))
                .and_then(|_| flag::register(signal, Arc::clone(&flags.has_come)))
                .map_err(|error| Error::caused(ErrorKind::Io, "signals cannot be listened to", error))?;
        }
        Ok(flags)
    }
}

/// Listens to the signals that ask the process to end, as long as it or a clone of it lives.
pub(crate) struct Signals {
    flags: Flags,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let mut state = STATE.lock();
        let flags = match &state.flags {
            Some(flags) => flags.clone(),
            None => state.flags.insert(Flags::register()?).clone(),
        };
        state.listeners += 1;
        flags.nobody_listens.store(false, Ordering::SeqCst);
        Ok(Self { flags })
    }

    /// Whether the process was told to end. Once it was, that stays.
    pub(crate) fn have_come(&self) -> bool {
        self.flags.has_come.load(Ordering::SeqCst)
    }
}

impl Clone for Signals {
    fn clone(&self) -> Self {
        STATE.lock().listeners += 1;
        Self { flags: self.flags.clone() }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        state.listeners -= 1;
        self.flags.nobody_listens.store(state.listeners == 0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
