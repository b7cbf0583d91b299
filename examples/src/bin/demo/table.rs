//! Results on a terminal.

use std::path::Path;

use lotic_connectors::files::{Csv, CsvReader, Progress, ReadOptions};

use crate::Failure;

/// How many of the hours are shown.
const HOURS_SHOWN: usize = 5;

/// Shows the hours with the largest mean delay.
pub(crate) fn show_worst_hours(file: &Path) -> Result<(), Failure> {
    let (header, mut rows) = read(file)?;
    let column = header.iter().position(|name| name == "mean_delay").ok_or("no column mean_delay")?;
    let mean = |row: &Vec<String>| row[column].parse().unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let (shown, total) = (HOURS_SHOWN.min(rows.len()), rows.len());
    rows.truncate(shown);
    println!("  The {shown} worst of {total} hours of an airline:");
    print(&header, &rows);
    Ok(())
}

/// Shows a whole file.
pub(crate) fn show(file: &Path) -> Result<(), Failure> {
    let (header, rows) = read(file)?;
    println!("  By visibility, in miles, at the airport of departure:");
    print(&header, &rows);
    Ok(())
}

fn read(file: &Path) -> Result<(Vec<String>, Vec<Vec<String>>), Failure> {
    let text = std::fs::read_to_string(file)?;
    let header = text.lines().next().unwrap_or_default().split(',').map(str::to_owned).collect();
    let mut reader = CsvReader::<Vec<String>>::open(file, None, Csv::default(), ReadOptions::default())?;
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    while reader.read(1024, &mut rows, &mut rejected)? == Progress::More {}
    Ok((header, rows))
}

/// Columns as wide as their widest entry; numbers to the right.
fn print(header: &[String], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let entries = rows.iter().map(|row| &row[column]).chain([&header[column]]);
        entries.map(|entry| entry.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for row in std::iter::once(header).chain(rows.iter().map(Vec::as_slice)) {
        let is_number = |column: usize| rows.iter().all(|row| row[column].parse::<f64>().is_ok());
        print!("   ");
        for (column, entry) in row.iter().enumerate() {
            let width = widths[column];
            if is_number(column) {
                print!(" {entry:>width$}");
            } else {
                print!(" {entry:<width$}");
            }
        }
        println!();
    }
    println!();
}
