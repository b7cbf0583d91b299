//! Tests that cannot be done on this machine. Each is named on stderr and counted: a test that passes
//! without testing must not look like one that has.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::failure::Result;

/// How many there were.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says that `test` is not done, and `why`, past the test harness, which keeps what a test that passes
/// prints to itself.
///
/// # Errors
/// If stderr cannot be written.
pub fn skip(test: &str, why: &str) -> Result<()> {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // One write, past the capture, which `eprintln!` goes through.
    std::io::stderr().write_all(format!("skipped, {count} by now: {test}: {why}\n").as_bytes())?;
    Ok(())
}
