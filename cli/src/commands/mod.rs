//! What each command does.

pub(crate) mod compact;
pub(crate) mod consume;
pub(crate) mod delete_records;
pub(crate) mod group;
pub(crate) mod import;
pub(crate) mod produce;
pub(crate) mod repair;
pub(crate) mod topic;
pub(crate) mod verify;

use std::path::Path;

use lotic_log::{Log, LogOptions};

use crate::Failure;
use crate::patience::{PATIENCE, passes};

/// Opens the log for this process alone; begins one where there is none.
fn open_or_begin(data: &Path) -> Result<Log, Failure> {
    Ok(Log::open(data, LogOptions::disk()?)?)
}

/// Opens the log for this process alone; there has to be one.
fn open(data: &Path) -> Result<Log, Failure> {
    Ok(Log::open(data, LogOptions { begins: false, ..LogOptions::disk()? })?)
}

/// Opens the log beside a process that may hold it; changes nothing. Waits for a while where that process is just
/// replacing segments, or cutting a partition off.
fn open_read_only(data: &Path) -> Result<Log, Failure> {
    let open = || Log::open_read_only(data, LogOptions::disk()?);
    let opened = PATIENCE.until_done(open, passes, || false)?;
    Ok(opened.expect("nobody tells it to end"))
}
