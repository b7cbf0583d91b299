//! Alternating runs, medians, CPU time and memory.

use std::time::Duration;

use lotic_log::{Clock, SystemClock};

use crate::Failure;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) wall: Duration,
    /// User and system time of everything that worked for it.
    pub(crate) cpu: Duration,
    /// The most memory that it had at once, in bytes; 0 where that was not looked at.
    pub(crate) peak: u64,
}

/// The median of the runs of one side, wall and CPU each by itself, and the highest of its peaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Median {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) peak: u64,
}

impl Median {
    pub(crate) fn of(runs: &[Cost]) -> Self {
        let of = |figure: fn(&Cost) -> Duration| {
            median(runs.iter().map(|run| figure(run).as_secs_f64()).collect())
        };
        let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
        Self { wall: of(|run| run.wall), cpu: of(|run| run.cpu), peak }
    }
}

/// The one in the middle; there has to be one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// One side of a comparison.
pub(crate) struct Side<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnMut() -> Result<Cost, Failure> + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> Result<Cost, Failure> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Runs all sides once unmeasured, then in turn, `runs` times; each with its name and its median.
pub(crate) fn alternate(
    runs: usize,
    mut sides: Vec<Side<'_>>,
) -> Result<Vec<(&'static str, Median)>, Failure> {
    let mut costs = vec![Vec::new(); sides.len()];
    for round in 0..=runs {
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            let cost = (side.run)().map_err(|failure| format!("{}: {failure}", side.name))?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(sides.iter().zip(&costs).map(|(side, costs)| (side.name, Median::of(costs))).collect())
}

/// Runs `work` in this process.
pub(crate) fn in_process(work: impl FnOnce() -> Result<(), Failure>) -> Result<Cost, Failure> {
    let clock = SystemClock::new();
    let cpu = cpu_time();
    work()?;
    Ok(Cost { wall: clock.elapsed(), cpu: cpu_time() - cpu, peak: 0 })
}

/// The most memory in bytes that a process, by its number or `self`, has had at once.
pub(crate) fn peak_memory(process: &str) -> u64 {
    memory(process, "VmHWM:")
}

/// The memory in bytes that this process has now.
pub(crate) fn resident_memory() -> u64 {
    memory("self", "VmRSS:")
}

fn memory(process: &str, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}

/// User and system time of this process and of the children it has waited for.
pub(crate) fn cpu_time() -> Duration {
    let ticks = |text: &str| -> u64 {
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // After pid and name: state is field 3 of proc(5), utime 14, stime 15, cutime 16, cstime 17.
        (11..15).filter_map(|index| fields.get(index)?.parse::<u64>().ok()).sum()
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    from_ticks(ticks(&stat))
}

/// User and system time of another process so far.
pub(crate) fn cpu_time_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    from_ticks((11..13).filter_map(|index| fields.get(index)?.parse::<u64>().ok()).sum())
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Prints a side's rate, with CPU time, and its ratio to the first.
pub(crate) fn report(title: &str, unit: &str, count: u64, sides: &[(&str, Median)]) {
    println!("\n{title}");
    let Some((_, first)) = sides.first() else { return };
    for (name, median) in sides {
        let rate = count as f64 / median.wall;
        let cpu = median.cpu / count as f64 * 1e6;
        println!(
            "  {name:<28} {:>9} {unit}/s   {cpu:>7.3} CPU s per million   {:>7.2} s   Lotic at {:.2}x",
            short(rate),
            median.wall,
            median.wall / first.wall,
        );
    }
}

/// Prints what a million records take on disk on both sides, and the most memory that each side had.
pub(crate) fn report_bytes(records: u64, own: u64, theirs: Option<u64>, sides: &[(&str, Median)]) {
    let per_million = |bytes: u64| bytes as f64 / records as f64;
    print!("  on disk: {:.1} MB per million", per_million(own));
    if let Some(theirs) = theirs {
        print!(", Kafka {:.1}; Lotic at {:.3}x", per_million(theirs), own as f64 / theirs as f64);
    }
    let peaks: Vec<String> = sides
        .iter()
        .filter(|(_, median)| median.peak > 0)
        .map(|(name, median)| format!("{name} {} MB", median.peak >> 20))
        .collect();
    println!("; memory at its peak: {}", peaks.join(", "));
}

fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.1} k", rate / 1e3),
        rate => format!("{rate:.1}"),
    }
}
