//! How far a run is, on a terminal; nothing where nobody looks.

use std::io::{IsTerminal, Write, stderr};

use lotic::Metrics;

/// The line on the terminal, if there is one.
pub(crate) struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    /// A line on standard error, unless that is a pipe or a file.
    pub(crate) fn new() -> Self {
        Self { is_shown: stderr().is_terminal() }
    }

    /// Shows what a flow has done: `verb` and the events that `step` emitted.
    pub(crate) fn show(&self, verb: &str, step: &str, metrics: &Metrics) {
        if !self.is_shown {
            return;
        }
        let count = metrics.steps.iter().find(|found| found.step == step).map_or(0, |found| found.emitted);
        let epoch = metrics.last_committed;
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(stderr(), "\r\x1b[K{verb} {count} flights, epoch {epoch}").and(stderr().flush());
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K").and(stderr().flush());
        }
    }
}
