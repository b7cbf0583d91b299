//! Where a worker sits: commands for it and reports of it cross threads here, and nowhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::bell::Bell;
use crate::error::Result;
use crate::worker::{Command, Report, Worker};

/// What the conductor and one worker tell each other. Neither ever waits for the other here.
pub(crate) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    /// Commands that the worker has not carried out yet. Without any, the box is passed by without taking
    /// the lock.
    unsettled: AtomicUsize,
    reports: Mutex<Vec<Report>>,
    pub(crate) worker_bell: Arc<Bell>,
    conductor_bell: Arc<Bell>,
}

impl Mailbox {
    pub(crate) fn new(worker_bell: Arc<Bell>, conductor_bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::default(),
            unsettled: AtomicUsize::new(0),
            reports: Mutex::default(),
            worker_bell,
            conductor_bell,
        })
    }

    /// Tells the worker something. Commands are taken in order.
    pub(crate) fn command(&self, command: Command) {
        self.commands.lock().push_back(command);
        self.unsettled.fetch_add(1, Ordering::Release);
        self.worker_bell.ring();
    }

    /// What the worker has reported since the last call, in order.
    pub(crate) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock())
    }

    fn take_commands(&self) -> VecDeque<Command> {
        if self.is_settled() {
            return VecDeque::new();
        }
        std::mem::take(&mut self.commands.lock())
    }

    /// Whether the worker has carried out all that it was told.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }

    fn settle(&self, commands: usize) {
        self.unsettled.fetch_sub(commands, Ordering::AcqRel);
        self.conductor_bell.ring();
    }

    fn report(&self, mut reports: Vec<Report>) {
        self.reports.lock().append(&mut reports);
        self.conductor_bell.ring();
    }
}

/// A worker and its mailbox: what a thread, or a simulator, steps.
pub(crate) struct Seat {
    worker: Worker,
    mailbox: Arc<Mailbox>,
}

impl Seat {
    pub(crate) fn new(worker: Worker, mailbox: Arc<Mailbox>) -> Self {
        Self { worker, mailbox }
    }

    /// Takes commands in, does a bounded piece of work, and passes reports on. Whether anything was done.
    pub(crate) fn step(&mut self) -> Result<bool> {
        let commands = self.mailbox.take_commands();
        let told = commands.len();
        for command in commands {
            self.worker.handle(command)?;
        }
        if told > 0 {
            self.mailbox.settle(told);
        }
        let mut progressed = told > 0;
        progressed |= self.worker.step()?;
        let reports = self.worker.take_reports();
        if !reports.is_empty() {
            progressed = true;
            self.mailbox.report(reports);
        }
        Ok(progressed)
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.mailbox.worker_bell
    }
}
