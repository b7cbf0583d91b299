//! What exactly-once costs: the flights example with an epoch every 100 ms, beside one at the end.

use crate::Failure;
use crate::flights::{FLIGHTS_OF_THE_YEAR, Workload};
use crate::measure::{Side, alternate, report};

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let workload = Workload::year()?;
    let sides = vec![
        Side::new("epoch 100 ms", || workload.lotic(&["--epoch", "100ms"])),
        Side::new("one epoch at the end", || workload.lotic(&["--epoch", "1h"])),
    ];
    let rows = alternate(runs, sides)?;
    report("Exactly once: import and both results of the year", "flights", FLIGHTS_OF_THE_YEAR, &rows);
    Ok(())
}
